//! Addresses with places for variables, such as `https://{subdomain}.zendesk.com/oauth/tokens`, and what may be put there.
//!
//! Part of such an address comes from a tenant or from a provider's answer, so it decides where secrets go. A value is let in only
//! where it fits a strict pattern that leaves no way out of the provider's own hosts (fact sheet E.1, G.24); the gate to the street
//! checks the address behind the name once more.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use url::Url;

/// An https address of the catalogue, with `{name}` where a variable stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The address with the variables filled in. `None` when one is missing.
    #[must_use]
    pub fn at(&self, variables: &Variables) -> Option<Url> {
        self.with(variables, &[])
    }

    /// The same with more values, which are percent-encoded.
    #[must_use]
    pub(super) fn with(&self, variables: &Variables, more: &[(&str, &str)]) -> Option<Url> {
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            filled.push_str(before);
            match more.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => filled.extend(url::form_urlencoded::byte_serialize(value.as_bytes())),
                None => filled.push_str(variables.0.get(name)?),
            }
            rest = after;
        }
        filled.push_str(rest);
        Url::parse(&filled).ok()
    }
}

/// Braces in a path are kept, though a URL writes them in another way.
impl From<Url> for Address {
    fn from(url: Url) -> Self {
        Self(url.as_str().replace("%7B", "{").replace("%7D", "}"))
    }
}

#[cfg(test)]
impl Address {
    /// The same path elsewhere.
    pub(super) fn moved_to(&self, origin: &Url) -> Self {
        let path = self.0.trim_start_matches("https://").split_once('/').map_or("", |(_, path)| path);
        Self(format!("{}{path}", origin.as_str()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let balanced = text.matches('{').count() == text.matches('}').count();
        // An origin can be a variable itself, and then brings its own scheme.
        if !balanced || !(text.starts_with("https://") || text.starts_with('{')) {
            return Err(serde::de::Error::custom(format!("`{text}` must be an https address, variables in braces")));
        }
        Ok(Self(text))
    }
}

/// What may stand for a name in braces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// What it looks like.
    pub kind: VariableKind,
    /// For hosts and origins: what the name ends with, one of these. Empty for any public name.
    #[serde(default)]
    pub suffixes: Vec<String>,
    /// Where it comes from.
    #[serde(default)]
    pub from: VariableSource,
    /// Used when nothing else was said.
    #[serde(default)]
    pub default: Option<String>,
    /// One that fits, for people and tests.
    pub example: String,
}

/// What a variable looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariableKind {
    /// One label of a host name: `acme`.
    Label,
    /// A host name of at least two labels: `git.example.com`.
    Host,
    /// `https://` and a host name: `https://acme.my.salesforce.com`.
    Origin,
    /// A segment of a path: a directory's id or name.
    Segment,
}

/// Where a variable comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariableSource {
    /// The tenant says it with the integration.
    #[default]
    Integration,
    /// The provider says it in the token answer, where this JSON pointer (RFC 6901) leads to.
    Answer(String),
}

impl Variable {
    /// Whether this text may stand for it: nothing that leads out of the provider's hosts (fact sheet G.24).
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        match self.kind {
            VariableKind::Label => is_label(value),
            VariableKind::Host => self.accepts_host(value),
            VariableKind::Origin => value.strip_prefix("https://").is_some_and(|host| self.accepts_host(host)),
            VariableKind::Segment => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
                (1..=128).contains(&value.len())
                    && value.bytes().all(plain)
                    && !value.starts_with('.')
                    && !value.contains("..")
            }
        }
    }

    fn accepts_host(&self, host: &str) -> bool {
        let labels: Vec<&str> = host.split('.').collect();
        let top = labels.last().is_some_and(|top| top.len() > 1 && top.bytes().all(|b| b.is_ascii_lowercase()));
        let named = host.len() <= 253 && labels.len() > 1 && labels.iter().all(|label| is_label(label)) && top;
        let inside = |suffix: &String| host.len() > suffix.len() && host.ends_with(suffix.as_str());
        named && (self.suffixes.is_empty() || self.suffixes.iter().any(inside))
    }
}

/// Lower case, so that one place has one name (RFC 1123 section 2.1).
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Values that were let in, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// None.
    pub const NONE: &'static Self = &Self(BTreeMap::new());

    /// Lets in what fits and fills in what has a default.
    ///
    /// # Errors
    /// The name of the first that does not fit or is not known.
    pub fn new(known: &BTreeMap<String, Variable>, given: BTreeMap<String, String>) -> Result<Self, String> {
        let fits = |(name, value): &(&String, &String)| known.get(*name).is_some_and(|one| one.accepts(value));
        if let Some((name, _)) = given.iter().find(|one| !fits(one)) {
            return Err(name.clone());
        }
        let defaults = known.iter().filter_map(|(name, one)| Some((name.clone(), one.default.clone()?)));
        Ok(Self(defaults.chain(given).collect()))
    }

    /// What stands for this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(kind: VariableKind, suffixes: &[&str]) -> Variable {
        Variable {
            kind,
            suffixes: suffixes.iter().map(|one| (*one).to_owned()).collect(),
            from: VariableSource::Integration,
            default: None,
            example: String::new(),
        }
    }

    #[test]
    fn nothing_leads_out_of_the_providers_hosts() {
        let rows: [(Variable, &[&str], &[&str]); 5] = [
            (
                variable(VariableKind::Label, &[]),
                &["acme", "a", "acme-2", "0x"],
                &["", "-a", "a-", "Acme", "a.b", "a/b", "a@b", "a:1", "a?b", "a#b", "a%2e", "ä", "a b", "a\n", "a{b}"],
            ),
            (
                variable(VariableKind::Host, &[".myshopify.com"]),
                &["acme.myshopify.com", "a-1.myshopify.com"],
                &[
                    ".myshopify.com",
                    "myshopify.com",
                    "evilmyshopify.com",
                    "acme.myshopify.com.evil.example",
                    "acme.myshopify.com:8443",
                    "acme.myshopify.com/",
                    "acme.myshopify.com.",
                    "user@acme.myshopify.com",
                    "evil.example#.myshopify.com",
                    "evil.example/.myshopify.com",
                    "ACME.myshopify.com",
                    "xn--.myshopify.com\u{0}",
                ],
            ),
            (
                variable(VariableKind::Host, &[]),
                &["git.example.com", "gitlab.com"],
                &["localhost", "127.0.0.1", "[::1]", "2130706433", "git.example.c", "git.example.1", "git..com", "git"],
            ),
            (
                variable(VariableKind::Origin, &[".salesforce.com"]),
                &["https://acme.my.salesforce.com"],
                &[
                    "http://acme.my.salesforce.com",
                    "https://acme.my.salesforce.com/",
                    "https://acme.my.salesforce.com:443",
                    "https://salesforce.com",
                    "https://evil.example/.salesforce.com",
                    "https://evil.example?.salesforce.com",
                    "https://a@b.salesforce.com",
                    "javascript:alert(1)",
                    "//acme.my.salesforce.com",
                ],
            ),
            (
                variable(VariableKind::Segment, &[]),
                &["common", "contoso.onmicrosoft.com", "9188040d-6c67-4c5b-b112-36a304b66dad"],
                &["", ".", "..", "a/b", "a..b", ".a", "a?b", "a#b", "a%2f", "a b", "a\\b"],
            ),
        ];
        for (variable, good, bad) in rows {
            for value in good {
                assert!(variable.accepts(value), "{value:?} fits {:?}", variable.kind);
            }
            for value in bad {
                assert!(!variable.accepts(value), "{value:?} does not fit {:?}", variable.kind);
            }
        }
    }

    #[test]
    fn an_address_without_all_its_values_is_none() {
        let known = BTreeMap::from([
            ("subdomain".to_owned(), variable(VariableKind::Label, &[])),
            ("tenant".to_owned(), Variable { default: Some("common".into()), ..variable(VariableKind::Segment, &[]) }),
        ]);
        let address = Address("https://{subdomain}.example.com/{tenant}/token?t={token}".to_owned());
        let given = BTreeMap::from([("subdomain".to_owned(), "acme".to_owned())]);
        let variables = Variables::new(&known, given).expect("fits");
        assert_eq!(address.at(&variables), None, "a token is missing");
        let filled = address.with(&variables, &[("token", "a/b c&d")]).expect("filled");
        assert_eq!(filled.as_str(), "https://acme.example.com/common/token?t=a%2Fb+c%26d");
        for (name, value) in [("subdomain", "a.b"), ("unknown", "a"), ("tenant", "../x")] {
            let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert_eq!(Variables::new(&known, given), Err(name.to_owned()), "{value}");
        }
    }

    #[test]
    fn only_https_addresses_are_read() {
        for text in ["http://example.com", "ftp://example.com", "example.com", "https://{a.example.com", ""] {
            assert!(serde_json::from_value::<Address>(text.into()).is_err(), "{text}");
        }
        for text in ["https://example.com", "https://{shop}/admin", "{instance_url}/services"] {
            assert!(serde_json::from_value::<Address>(text.into()).is_ok(), "{text}");
        }
    }
}
