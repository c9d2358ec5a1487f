//! Scopes in words. A scope we have no words for is shown by its own name, never left out.

use Reach::{Change, Identity, Read, Unknown};

/// How far a scope reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Who the account belongs to.
    Identity,
    /// Reading only.
    Read,
    /// Writing, sending, changing or deleting.
    Change,
    /// We have no words for it, so we claim nothing about it.
    Unknown,
}

impl Reach {
    /// The mark beside the scope.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Read => "reads",
            Self::Change => "changes",
            Self::Unknown => "other",
        }
    }
}

/// One permission at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The provider's own name of it.
    pub name: String,
    /// What it allows, in plain words; the name itself when we have none.
    pub words: String,
    /// How far it reaches.
    pub reach: Reach,
}

impl Scope {
    /// The scope in words, for a provider of the catalogue and the provider's own name of the scope.
    #[must_use]
    pub fn of(provider: &str, name: &str) -> Self {
        let (table, key) = match provider {
            "google" => (GOOGLE, name.strip_prefix("https://www.googleapis.com/auth/").unwrap_or(name)),
            "slack" => (SLACK, name),
            "telegram" => (TELEGRAM, name),
            _ => (COMMON, name),
        };
        let known = table.iter().chain(COMMON).find(|(scope, ..)| *scope == key);
        let (words, reach) = known.map_or((name, Unknown), |(_, reach, words)| (*words, *reach));
        Self { name: name.to_owned(), words: words.to_owned(), reach }
    }

    /// A list of scopes in words: what changes things first, then what reads, then identity, each thing said once.
    #[must_use]
    pub fn list<'a>(provider: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let mut scopes: Vec<Self> = Vec::new();
        for scope in names.into_iter().map(|name| Self::of(provider, name)) {
            if scopes.iter().all(|one| one.words != scope.words) {
                scopes.push(scope);
            }
        }
        scopes.sort_by_key(|scope| match scope.reach {
            Change => 0,
            Unknown => 1,
            Read => 2,
            Identity => 3,
        });
        scopes
    }

    /// True when the words are ours and the name may be shown beside them.
    #[must_use]
    pub fn has_words(&self) -> bool {
        self.reach != Unknown
    }
}

type Row = (&'static str, Reach, &'static str);

/// Names that OpenID Connect fixes for everyone (OpenID Connect Core 1.0, section 5.4).
const COMMON: &[Row] = &[
    ("openid", Identity, "Know which account this is"),
    ("email", Identity, "See the account’s e-mail address"),
    ("profile", Identity, "See the account’s name and picture"),
    ("phone", Identity, "See the account’s phone number"),
    ("offline_access", Identity, "Stay connected while you are away"),
];

const GOOGLE: &[Row] = &[
    ("userinfo.email", Identity, "See the account’s e-mail address"),
    ("userinfo.profile", Identity, "See the account’s name and picture"),
    ("calendar", Change, "See, change and delete calendars and their events"),
    ("calendar.readonly", Read, "See calendars and their events"),
    ("calendar.events", Change, "See, change and delete calendar events"),
    ("calendar.events.readonly", Read, "See calendar events"),
    ("calendar.freebusy", Read, "See when you are free or busy"),
    ("gmail.readonly", Read, "Read all mail and its settings"),
    ("gmail.metadata", Read, "See who wrote and when, but not the mail itself"),
    ("gmail.send", Change, "Send mail in your name"),
    ("gmail.compose", Change, "Write drafts and send mail in your name"),
    ("gmail.modify", Change, "Read, write, send and sort mail"),
    ("gmail.labels", Change, "See and change mail labels"),
    ("https://mail.google.com/", Change, "Full access to mail, including deleting it for good"),
    ("drive", Change, "See, change and delete all files in Drive"),
    ("drive.readonly", Read, "See and download all files in Drive"),
    ("drive.file", Change, "See and change only the files opened or made with this platform"),
    ("drive.metadata.readonly", Read, "See names and details of files in Drive"),
    ("documents", Change, "See and change documents"),
    ("documents.readonly", Read, "See documents"),
    ("spreadsheets", Change, "See and change spreadsheets"),
    ("spreadsheets.readonly", Read, "See spreadsheets"),
    ("tasks", Change, "See, change and delete tasks"),
    ("tasks.readonly", Read, "See tasks"),
    ("contacts", Change, "See, change and delete contacts"),
    ("contacts.readonly", Read, "See contacts"),
];

const TELEGRAM: &[Row] = &[("telegram:bot_access", Change, "Let the bot write to you")];

const SLACK: &[Row] = &[
    ("chat:write", Change, "Post messages"),
    ("chat:write.public", Change, "Post in public channels without joining them"),
    ("channels:read", Read, "See the list of public channels"),
    ("channels:history", Read, "Read messages in public channels"),
    ("channels:join", Change, "Join public channels"),
    ("channels:manage", Change, "Create and change public channels"),
    ("groups:read", Read, "See the list of private channels"),
    ("groups:history", Read, "Read messages in private channels"),
    ("im:read", Read, "See the list of direct messages"),
    ("im:history", Read, "Read direct messages"),
    ("im:write", Change, "Begin direct messages"),
    ("mpim:read", Read, "See the list of group messages"),
    ("mpim:history", Read, "Read group messages"),
    ("mpim:write", Change, "Begin group messages"),
    ("search:read", Read, "Search messages and files"),
    ("users:read", Read, "See the people in the workspace"),
    ("users:read.email", Read, "See the e-mail addresses of people in the workspace"),
    ("users.profile:read", Read, "See people’s profiles"),
    ("users.profile:write", Change, "Change your profile and status"),
    ("files:read", Read, "See files"),
    ("files:write", Change, "Upload, change and delete files"),
    ("reactions:read", Read, "See reactions"),
    ("reactions:write", Change, "Add and remove reactions"),
    ("reminders:write", Change, "Set reminders"),
    ("team:read", Read, "See the workspace’s name"),
    ("app_mentions:read", Read, "Read messages that mention the app"),
    ("commands", Change, "Offer slash commands"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_google_scope_have_the_same_words_and_are_said_once() {
        let scopes = Scope::list("google", ["email", "https://www.googleapis.com/auth/userinfo.email"]);
        assert_eq!(scopes.len(), 1);
        assert_eq!(scopes[0].reach, Identity);
    }

    #[test]
    fn an_unknown_scope_is_shown_by_its_name_and_claims_nothing() {
        let scope = Scope::of("google", "https://www.googleapis.com/auth/brand.new");
        assert_eq!(scope.words, "https://www.googleapis.com/auth/brand.new");
        assert_eq!(scope.reach, Unknown);
    }

    #[test]
    fn what_changes_things_is_listed_first() {
        let scopes = Scope::list("slack", ["users:read", "chat:write"]);
        assert_eq!(scopes[0].name, "chat:write");
    }
}
