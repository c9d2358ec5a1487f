//! What went wrong, said for whoever typed the command: the error, its causes, and the next step.

use std::error::Error;
use std::io::Write;

use crate::accounts::AccountsError;
use crate::app::{DiscoverError, StartError};
use crate::config::ConfigError;
use crate::connections::ConnectionsError;
use crate::workspaces::WorkspacesError;

/// Why a command was not done.
#[derive(Debug)]
pub(super) struct Trouble {
    what: String,
    causes: Vec<String>,
    next: Option<String>,
    status: u8,
}

impl Trouble {
    /// The work could not be done, or a check failed: status 1.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), next: None, status: 1 }
    }

    /// The command was used wrongly: status 2.
    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self { status: 2, ..Self::new(what) }
    }

    /// What to do about it.
    pub(super) fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// The exit status.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    /// Says it on stderr.
    pub(super) fn tell(&self) {
        // If even stderr is gone, the exit status is left.
        let _ = std::io::stderr().lock().write_all(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.what);
        for cause in &self.causes {
            text.push_str(&format!("cause: {cause}\n"));
        }
        if let Some(next) = &self.next {
            text.push_str(&format!("next: {next}\n"));
        }
        text
    }

    fn of(error: &dyn Error) -> Self {
        let mut trouble = Self::new(error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if text != trouble.what && !trouble.causes.contains(&text) {
                trouble.causes.push(text);
            }
            source = cause.source();
        }
        trouble
    }
}

impl From<StartError> for Trouble {
    fn from(error: StartError) -> Self {
        Self::of(&error).next("`valetkey doctor` looks at key, database and settings and says what is missing")
    }
}

impl From<DiscoverError> for Trouble {
    fn from(error: DiscoverError) -> Self {
        let trouble = Self::of(&error);
        match error {
            DiscoverError::Outbound(_) => {
                trouble.next("`valetkey doctor` looks at outgoing calls and says what is missing")
            }
            DiscoverError::Document(_) => {
                trouble.next("ask the provider for its issuer, or write the row by hand as `docs/OPERATIONS.md` says")
            }
        }
    }
}

impl From<WorkspacesError> for Trouble {
    fn from(error: WorkspacesError) -> Self {
        Self::of(&error)
    }
}

impl From<ConfigError> for Trouble {
    fn from(error: ConfigError) -> Self {
        let trouble = Self::of(&error);
        match error {
            ConfigError::Missing(_) => Self { status: 2, ..trouble }.next("give --config the path of a TOML file"),
            ConfigError::Invalid(_) => trouble.next("correct the setting it names"),
        }
    }
}

impl From<AccountsError> for Trouble {
    fn from(error: AccountsError) -> Self {
        let trouble = Self::of(&error);
        match error {
            AccountsError::Invalid(_) => trouble.next("correct what is named and run the command again"),
            AccountsError::Conflict(_) => trouble.next("choose another name, or use the one that exists"),
            AccountsError::Store(_) => trouble.next("see that the database runs and has room, then try again"),
            _ => trouble,
        }
    }
}

impl From<ConnectionsError> for Trouble {
    fn from(error: ConnectionsError) -> Self {
        let trouble = Self::of(&error);
        match error {
            ConnectionsError::Invalid(_) => trouble.next("correct what is named and run the command again"),
            ConnectionsError::Store(_) => trouble.next("see that the database runs and has room, then try again"),
            _ => trouble,
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("the system refused: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyError;

    #[test]
    fn trouble_says_what_why_and_what_next() {
        let trouble = Trouble::from(StartError::Bind {
            setting: "VALETKEY_BIND",
            address: ([127, 0, 0, 1], 8080).into(),
            source: std::io::Error::from(std::io::ErrorKind::AddrInUse),
        });
        let text = trouble.text();
        assert!(text.starts_with("error: VALETKEY_BIND: cannot listen on 127.0.0.1:8080"), "{text}");
        assert!(text.contains("\ncause: address in use\n") && text.contains("\nnext: "), "{text}");
        assert_eq!(trouble.status(), 1);
    }

    #[test]
    fn a_sentence_is_not_said_twice() {
        let text = Trouble::from(StartError::Key(KeyError::Missing)).text();
        assert_eq!(text.matches("no root key is set").count(), 1, "{text}");
    }
}
