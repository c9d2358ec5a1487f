//! What a provider was asked for, so that it is known what it has not granted, also after a refresh, and what to ask for again (OA-11).

use serde::{Deserialize, Serialize};

use crate::providers::Descriptor;

/// Scopes that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// By the integration, of the app; of everybody, where a provider does not tell apps and people apart.
    #[serde(default)]
    pub(super) app: Vec<String>,
    /// By the integration, of the person.
    #[serde(default)]
    pub(super) person: Vec<String>,
    /// Beside that: of the person, where a provider tells apps and people apart.
    #[serde(default)]
    pub(super) more: Vec<String>,
}

impl Asked {
    /// As columns hold it; a damaged column reads as nothing.
    pub(super) fn of_column(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(super) fn to_column(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Adds what was not asked for anyway.
    pub(super) fn and(mut self, more: impl IntoIterator<Item = String>, fixed: &[String]) -> Self {
        for scope in more {
            let is_known = [&self.app, &self.person, &self.more].into_iter().any(|list| list.contains(&scope));
            if !is_known && !fixed.contains(&scope) {
                self.more.push(scope);
            }
        }
        self
    }

    /// Of apps, as the provider hears it.
    pub(super) fn of_app(&self, descriptor: &Descriptor) -> Vec<String> {
        let more: &[String] = if descriptor.tells_user_scopes_apart() { &[] } else { &self.more };
        [&self.app, more].concat()
    }

    /// Of the person, as the provider hears it.
    pub(super) fn of_person(&self, descriptor: &Descriptor) -> Vec<String> {
        let more: &[String] = if descriptor.tells_user_scopes_apart() { &self.more } else { &[] };
        [&self.person, more].concat()
    }

    /// Of a credential of this kind.
    pub(super) fn of_kind(&self, kind: &str, descriptor: &Descriptor) -> Vec<String> {
        match (descriptor.tells_user_scopes_apart(), kind) {
            (true, "user") => self.of_person(descriptor),
            (true, _) => self.of_app(descriptor),
            (false, _) => self.all(),
        }
    }

    /// Everything, of whomever.
    pub(super) fn all(&self) -> Vec<String> {
        [&*self.app, &*self.person, &*self.more].concat()
    }

    /// What was not granted, by what each credential has now.
    pub(super) fn missing<'a>(
        &self,
        descriptor: &Descriptor,
        granted: impl Iterator<Item = (&'a str, &'a [String])> + Clone,
    ) -> Vec<String> {
        let of = |person: bool| {
            let is_meant = move |kind: &str| !descriptor.tells_user_scopes_apart() || (kind == "user") == person;
            let scopes: Vec<String> =
                granted.clone().filter(|(kind, _)| is_meant(kind)).flat_map(|(_, scopes)| scopes.to_vec()).collect();
            let asked = if person { self.of_person(descriptor) } else { self.of_app(descriptor) };
            descriptor.missing_scopes(&asked, &scopes)
        };
        let mut missing = of(false);
        missing.extend(of(true).into_iter().filter(|scope| !missing.contains(scope)).collect::<Vec<_>>());
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::known;

    fn list(scopes: &[&str]) -> Vec<String> {
        scopes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn oa_11_what_was_asked_of_the_person_is_not_granted_by_what_the_bot_may() {
        let slack = &known("slack");
        let asked = Asked { app: list(&["chat:write", "team:read"]), person: list(&["chat:write"]), more: Vec::new() }
            .and(list(&["files:read", "team:read"]), &slack.scopes.fixed);
        assert_eq!(asked.more, ["files:read"], "the rest is asked for anyway");
        assert_eq!(asked.of_person(slack), ["chat:write", "files:read"]);
        assert_eq!(asked.of_kind("bot", slack), ["chat:write", "team:read"]);
        let (user, bot) = (list(&["files:read"]), list(&["chat:write", "team:read"]));
        let granted = [("user", user.as_slice()), ("bot", bot.as_slice())];
        assert_eq!(asked.missing(slack, granted.into_iter()), ["chat:write"]);
        assert_eq!(asked.missing(slack, granted.into_iter().take(1)), ["chat:write", "team:read"], "no bot at all");
    }

    #[test]
    fn oa_11_where_everybody_is_asked_at_once_so_is_what_is_asked_beside() {
        let google = &known("google");
        let asked =
            Asked { app: list(&["a"]), ..Asked::default() }.and(list(&["b", "openid", "b"]), &list(&["openid"]));
        assert_eq!((asked.of_app(google), asked.of_person(google)), (list(&["a", "b"]), Vec::new()));
        let granted = list(&["b"]);
        assert_eq!(asked.missing(google, [("user", granted.as_slice())].into_iter()), ["a"]);
        assert_eq!(Asked::of_column(&asked.to_column()), asked);
        assert_eq!(Asked::of_column("damaged"), Asked::default());
    }
}
