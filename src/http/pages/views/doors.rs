//! Coming in and going out: sign in, the first owner, and one's own settings.

use askama::Template;

use super::{Frame, Moment, Place};

/// One input of a form that is shown again with what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// What stands in it. Never a password: those are typed again.
    pub value: String,
    /// What is wrong with it, as a sentence.
    pub error: Option<String>,
}

/// `GET /sign-in`; posts `email`, `password`, `next?`, then `tenant` when several match, to `/sign-in`.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/sign_in.html")]
pub struct SignInPage {
    /// The common part.
    pub frame: Frame,
    /// Where in signing in.
    pub step: SignInStep,
    /// One sentence, the same for a wrong address and a wrong password (WB-11).
    pub error: Option<String>,
    /// A path of ours to go to afterwards, for the hidden field `next`.
    pub next: Option<String>,
}

/// Where somebody is in signing in.
#[derive(Clone, Debug)]
pub enum SignInStep {
    /// Type address and password.
    Credentials {
        /// The address typed before.
        email: String,
    },
    /// Address and password fit in several tenants: choose one (`tenant` is its id).
    ChooseTenant {
        /// The address, sent again as `email`.
        email: String,
        /// The tenants that matched; at least two.
        tenants: Vec<TenantChoice>,
        /// True when the handler keeps nothing between the steps, so the password is typed again.
        ask_password: bool,
    },
}

/// A tenant somebody can sign in to.
#[derive(Clone, Debug)]
pub struct TenantChoice {
    /// The tenant's id, the value of `tenant`.
    pub id: String,
    /// The tenant's name.
    pub name: String,
    /// `production`, `test` or `uat`.
    pub environment: String,
}

/// `GET /setup/{token}`: make the first owner; posts `tenant_name`, `email`, `password` to the same path.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/setup.html")]
pub struct SetupPage {
    /// The common part.
    pub frame: Frame,
    /// The one-time token, for the form's path.
    pub token: String,
    /// The tenant's name.
    pub tenant_name: Field,
    /// The owner's address.
    pub email: Field,
    /// What is wrong with the password.
    pub password_error: Option<String>,
    /// The least number of characters of a password.
    pub password_min: u16,
    /// Until when the link works.
    pub expires: Moment,
}

/// `GET /portal/{token}`: one button, since looking at a link must not use it; posts to the same path.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/portal.html")]
pub struct PortalPage {
    /// The common part.
    pub frame: Frame,
    /// The one-time token, for the form's path.
    pub token: String,
}

/// `GET /settings`.
#[derive(Clone, Debug, Template)]
#[template(path = "pages/settings.html")]
pub struct SettingsPage {
    /// The common part.
    pub frame: Frame,
    /// The person's name, if known.
    pub name: Option<String>,
    /// The person's address, if known.
    pub email: Option<String>,
    /// The tenant's name.
    pub platform: String,
    /// The tenant's own id of the user, if the login or session has a user.
    pub user: Option<String>,
    /// `owner`, `admin` or `viewer`, if the person works at the tenant.
    pub role: Option<String>,
}

impl SettingsPage {
    fn place(&self) -> Option<Place> {
        Some(Place::Settings)
    }
}

#[cfg(test)]
mod samples {
    use super::super::tests::{EVIL, LONG, RTL, end_user, member, moment, nobody};
    use super::*;
    use crate::http::pages::views::Notice;

    impl SignInPage {
        pub(crate) fn samples() -> Vec<Self> {
            let tenant = |id: &str, name: &str, environment: &str| TenantChoice {
                id: id.into(),
                name: name.into(),
                environment: environment.into(),
            };
            let first = Self {
                frame: nobody(),
                step: SignInStep::Credentials { email: String::new() },
                error: None,
                next: None,
            };
            let failed = Self {
                step: SignInStep::Credentials { email: EVIL.into() },
                error: Some("That address and password do not match. Check both and try again.".into()),
                next: Some("/connections".into()),
                ..first.clone()
            };
            let several = Self {
                step: SignInStep::ChooseTenant {
                    email: "ada@example.com".into(),
                    tenants: vec![
                        tenant("ten_1", "Acme Voice", "production"),
                        tenant("ten_2", "Acme Voice", "test"),
                        tenant("ten_3", EVIL, "uat"),
                    ],
                    ask_password: true,
                },
                ..first.clone()
            };
            let mut signed_out = first.clone();
            signed_out.frame.notice = Some(Notice::SignedOut);
            vec![first, failed, several, signed_out]
        }
    }

    impl SetupPage {
        pub(crate) fn samples() -> Vec<Self> {
            let first = Self {
                frame: nobody(),
                token: "c2V0dXA".into(),
                tenant_name: Field::default(),
                email: Field::default(),
                password_error: None,
                password_min: 15,
                expires: moment("14:20"),
            };
            let wrong = Self {
                tenant_name: Field { value: EVIL.into(), error: Some("Use at most 80 characters.".into()) },
                email: Field { value: LONG.into(), error: Some("This is not an e-mail address.".into()) },
                password_error: Some("Use at least 15 characters.".into()),
                ..first.clone()
            };
            vec![first, wrong]
        }
    }

    impl PortalPage {
        pub(crate) fn samples() -> Vec<Self> {
            let plain = Self { frame: nobody(), token: "vkl_cG9ydGFs".into() };
            let odd = Self { token: EVIL.into(), ..plain.clone() };
            vec![plain, odd]
        }
    }

    impl SettingsPage {
        pub(crate) fn samples() -> Vec<Self> {
            let person = Self {
                frame: end_user(),
                name: Some("Ada Example".into()),
                email: Some("ada@example.com".into()),
                platform: "Acme Voice".into(),
                user: Some("u-42".into()),
                role: None,
            };
            let works_here = Self { frame: member(), user: None, role: Some("owner".into()), ..person.clone() };
            let portal = Self { name: Some(RTL.into()), email: None, user: Some(LONG.into()), ..person.clone() };
            vec![person, works_here, portal]
        }
    }
}
