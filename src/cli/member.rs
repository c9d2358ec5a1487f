//! `valetkey member create`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::output::Output;
use super::session::{Session, operator_for, read_secret};
use super::trouble::Trouble;
use crate::accounts::NewMember;
use crate::caller;

const CREATE: &str = "\
Examples:
  valetkey member create --tenant acme --email ada@acme.example --role owner --password-file password
  valetkey member create --tenant acme --email ada@acme.example --user u-42 --password-file - < password";

/// Make logins
#[derive(Debug, Subcommand)]
pub(super) enum Member {
    Create(Create),
}

/// Make a login for somebody who works at a tenant, or for an end user
#[derive(Debug, Args)]
#[command(after_help = CREATE)]
pub(super) struct Create {
    /// Name or id of the tenant
    #[arg(long)]
    tenant: String,
    /// With what the person signs in
    #[arg(long)]
    email: String,
    /// What the person may do at the tenant; an end user's login needs none
    #[arg(long, value_enum, required_unless_present = "user")]
    role: Option<Role>,
    /// File with the password, or - for stdin
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// The tenant's own id of the end user that the login belongs to
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Owner,
    Admin,
    Viewer,
}

impl Member {
    pub(super) async fn run(self, session: &Session) -> Result<(), Trouble> {
        match self {
            Self::Create(command) => command.run(session).await,
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Trouble> {
        let new = NewMember {
            email: self.email.clone(),
            password: read_secret("--password-file", &self.password_file)?,
            role: self.role.map(|role| match role {
                Role::Owner => caller::Role::Owner,
                Role::Admin => caller::Role::Admin,
                Role::Viewer => caller::Role::Viewer,
            }),
            user: self.user,
        };
        session
            .in_the_house(|rooms| async move {
                let caller = operator_for(&rooms, &self.tenant).await?;
                let id = rooms.accounts.member_create(&caller, new).await?;
                self.output.say(&json!({ "id": id }), &format!("{} can sign in; the login is {id}.", self.email))
            })
            .await
    }
}
