//! Which calls to a provider's API the broker makes, whatever an agent's rules say: reading and sending, no administration (AG-12).
//!
//! The list is of what is allowed, never of what is not: a path that a server would read in another way than we do is refused.

use http::Method;
use serde::Deserialize;

/// Methods that a rule can name.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Methods and a path, as in `GET,POST calendar/v3/calendars/*/events`; `*` is one segment, `**` the rest (one segment or more).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CallRule {
    text: String,
    methods: Vec<Method>,
    path: String,
}

/// The text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no rule for calls; write methods and a path, as in `GET,POST crm/v3/objects/*`")]
pub struct NoCallRule(String);

impl TryFrom<String> for CallRule {
    type Error = NoCallRule;

    fn try_from(text: String) -> Result<Self, NoCallRule> {
        let wrong = || NoCallRule(text.clone());
        let (methods, path) = text.split_once(' ').ok_or_else(wrong)?;
        let known = |name: &str| METHODS.iter().find(|method| method.as_str() == name).cloned();
        let methods: Option<Vec<Method>> = methods.split(',').map(known).collect();
        let (methods, path) = (methods.ok_or_else(wrong)?, path.to_owned());
        let fits = path.split('/').all(|part| !part.is_empty() && !part.contains(' '));
        let rest_is_last = path.split('/').rev().skip(1).all(|part| part != "**");
        if fits && rest_is_last { Ok(Self { text, methods, path }) } else { Err(NoCallRule(text)) }
    }
}

impl CallRule {
    /// Reading anything: what is allowed where nobody has looked at a provider's API.
    #[must_use]
    pub fn reading() -> Self {
        Self { text: "GET **".to_owned(), methods: vec![Method::GET], path: "**".to_owned() }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it allows a call of this path, which is still percent-encoded.
    #[must_use]
    pub fn allows(&self, method: &Method, path: &str) -> bool {
        self.methods.contains(method) && path_fits(&self.path, path)
    }
}

/// Whether a path fits a glob: `*` is one segment, `**` the rest (one segment or more).
#[must_use]
pub fn path_fits(glob: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in glob.split('/') {
        if part == "**" {
            return segments.next().is_some_and(|segment| !segment.is_empty());
        }
        match segments.next() {
            Some(segment) if !segment.is_empty() && (part == "*" || part == segment) => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::Broker;
    use crate::providers::api_call::check_path;
    use crate::providers::catalogue::known;

    fn rule(text: &str) -> Result<CallRule, NoCallRule> {
        CallRule::try_from(text.to_owned())
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        for (glob, path) in [
            ("gmail/v1/users/me/messages", "gmail/v1/users/me/messages"),
            ("gmail/v1/users/*/messages", "gmail/v1/users/me/messages"),
            ("gmail/**", "gmail/v1/users/me/messages"),
            ("**", "gmail"),
            ("chat.postMessage", "chat.postMessage"),
        ] {
            assert!(path_fits(glob, path), "{glob} {path}");
        }
        for (glob, path) in [
            ("gmail/v1/users/*/messages", "gmail/v1/users/me/drafts"),
            ("gmail/v1/users/*", "gmail/v1/users/me/messages"),
            ("gmail/**", "gmail"),
            ("gmail/**", "gmail/"),
            ("gmail/*", "gmail//"),
            ("chat.postMessage", "chat.postMessage2"),
            ("chat.*", "chat.postMessage"),
        ] {
            assert!(!path_fits(glob, path), "{glob} {path}");
        }
    }

    #[test]
    fn a_rule_is_methods_and_a_path() {
        let both = rule("GET,POST a/*/b").expect("a rule");
        assert!(both.allows(&Method::GET, "a/1/b") && both.allows(&Method::POST, "a/2/b"));
        assert!(!both.allows(&Method::PUT, "a/1/b") && !both.allows(&Method::GET, "a/1/c"));
        for wrong in ["", "GET", "GET ", "get a", "HEAD a", "GET,, a", "GET a//b", "GET /a", "GET a/**/b", "GET a b"] {
            assert_eq!(rule(wrong), Err(NoCallRule(wrong.to_owned())));
        }
    }

    #[test]
    fn every_rule_of_the_catalogue_is_of_paths_that_can_be_sent() {
        for one in
            crate::providers::catalogue::descriptors(None, &std::collections::BTreeMap::new()).expect("the catalogue")
        {
            let Broker::Calls(rules) = &one.broker else { continue };
            for rule in rules {
                let path = rule.path.replace("**", "x/y").replace('*', "x");
                assert_eq!(check_path(&path), Ok(()), "{}: {}", one.id, rule.as_str());
            }
        }
    }

    #[test]
    fn an_agent_reads_and_sends_and_administers_nothing_ag_12() {
        let allows = |provider: &str, method: &str, path: &str| {
            let Broker::Calls(rules) = known(provider).broker else { panic!("{provider} has paths") };
            let method = method.parse().expect("a method");
            rules.iter().any(|rule| rule.allows(&method, path))
        };
        for (provider, method, path) in [
            ("google", "GET", "gmail/v1/users/me/messages/18c"),
            ("google", "POST", "gmail/v1/users/me/messages/send"),
            ("google", "POST", "gmail/v1/users/me/drafts"),
            ("google", "POST", "gmail/v1/users/me/messages/18c/modify"),
            ("google", "POST", "calendar/v3/calendars/primary/events"),
            ("google", "DELETE", "calendar/v3/calendars/primary/events/e1"),
            ("google", "PATCH", "tasks/v1/lists/l/tasks/t"),
            ("google", "POST", "drive/v3/files"),
            ("microsoft", "POST", "v1.0/me/sendMail"),
            ("microsoft", "PATCH", "v1.0/me/events/e1"),
            ("github", "POST", "repos/octo/hello/issues"),
            ("notion", "POST", "v1/search"),
            ("hubspot", "PATCH", "crm/v3/objects/contacts/1"),
            ("dropbox", "POST", "2/files/list_folder"),
            ("atlassian", "POST", "ex/jira/site/rest/api/3/issue"),
            ("zendesk", "PUT", "api/v2/tickets/1.json"),
            ("linear", "POST", "graphql"),
            ("spotify", "GET", "v1/me/player"),
        ] {
            assert!(allows(provider, method, path), "{provider} {method} {path}");
        }
        for (provider, method, path) in [
            ("google", "POST", "gmail/v1/users/me/settings/forwardingAddresses"),
            ("google", "POST", "gmail/v1/users/me/settings/delegates"),
            ("google", "PUT", "gmail/v1/users/me/settings/autoForwarding"),
            ("google", "POST", "gmail/v1/users/me/messages/batchDelete"),
            ("google", "DELETE", "gmail/v1/users/me/messages/18c"),
            ("google", "POST", "calendar/v3/calendars/primary/acl"),
            ("google", "POST", "calendar/v3/calendars/primary/clear"),
            ("google", "POST", "drive/v3/files/f/permissions"),
            ("google", "PATCH", "drive/v3/files/f"),
            ("airtable", "POST", "v0/meta/bases"),
            ("google", "DELETE", "drive/v3/files/f"),
            ("google", "POST", "gmail/v1/users/me/messages/s%65nd"),
            ("microsoft", "POST", "v1.0/users"),
            ("microsoft", "POST", "v1.0/me/changePassword"),
            ("microsoft", "POST", "v1.0/me/mailFolders/inbox/messageRules"),
            ("github", "DELETE", "repos/octo/hello"),
            ("github", "PUT", "repos/octo/hello/collaborators/eve"),
            ("github", "POST", "user/keys"),
            ("salesforce", "POST", "services/data/v62.0/sobjects/User"),
            ("dropbox", "POST", "2/files/permanently_delete"),
            ("zendesk", "POST", "api/v2/users.json"),
            ("stripe", "POST", "v1/refunds"),
        ] {
            assert!(!allows(provider, method, path), "{provider} {method} {path}");
        }
    }
}
