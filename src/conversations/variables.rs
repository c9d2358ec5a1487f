//! The variables of a conversation: every declared one is there, secrets only under `secret__` names (AG-02, RL-18).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{ConversationsError, NOT_CONNECTED};
use crate::audit::{Durable, Exposed};
use crate::invalid::Invalid;
use crate::secret::Secret;
use crate::workspaces::{HandOver, Need};

/// Variables that one conversation may be given by its platform.
const MOST_VARIABLES: usize = 100;
/// Characters of one variable.
const LONGEST_VALUE: usize = 8192;

/// What a variable holds.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    /// Anybody may see it.
    Plain(Value),
    /// On its way out, with its entry in the book.
    Secret(Exposed),
}

/// The variables as they go into the initiation frame.
pub(super) type Variables = BTreeMap<String, Content>;

/// Checks what a platform sends along: plain names, scalar values.
pub(super) fn check(given: &BTreeMap<String, Value>) -> Result<(), ConversationsError> {
    let mut invalid = Invalid::default();
    if given.len() > MOST_VARIABLES {
        invalid.add("dynamic_variables", format!("must have at most {MOST_VARIABLES} entries"));
    }
    for (name, value) in given {
        let field = format!("dynamic_variables.{name}");
        if !crate::workspaces::variable_name_is_plain(name) {
            invalid.add(field, "is a reserved name, or begins with secret__ or system__, or is no variable name; secrets come from connections only");
        } else if !(value.is_string() || value.is_number() || value.is_boolean()) {
            invalid.add(field, "must be a text, a number or a truth value");
        } else if value.as_str().is_some_and(|text| text.len() > LONGEST_VALUE) {
            invalid.add(field, format!("must have at most {LONGEST_VALUE} characters"));
        }
    }
    invalid.into_result()?;
    Ok(())
}

/// The names under which a provider's token is injected.
pub(super) fn injected_names(provider: &str) -> [String; 2] {
    [format!("secret__user_{provider}_token"), format!("secret__user_{provider}_authorization")]
}

/// The variables that every conversation has.
pub(super) struct Basics<'a> {
    pub(super) user: &'a str,
    pub(super) user_name: &'a str,
    pub(super) conversation: &'a str,
    pub(super) ticket: &'a Secret,
    pub(super) given: &'a BTreeMap<String, Value>,
}

pub(super) fn basic(basics: &Basics<'_>, durable: &Durable) -> Variables {
    let mut variables: Variables =
        basics.given.iter().map(|(name, value)| (name.clone(), Content::Plain(value.clone()))).collect();
    let plain = |text: &str| Content::Plain(Value::from(text));
    variables.insert("user_id".to_owned(), plain(basics.user));
    variables.insert("user_name".to_owned(), plain(basics.user_name));
    variables.insert("valetkey_conversation".to_owned(), plain(basics.conversation));
    let authorization = Secret::new(format!("Bearer {}", basics.ticket.expose()));
    variables.insert(
        "secret__valetkey_ticket".to_owned(),
        Content::Secret(Exposed::new(basics.ticket.duplicate(), durable)),
    );
    variables
        .insert("secret__valetkey_authorization".to_owned(), Content::Secret(Exposed::new(authorization, durable)));
    variables
}

/// A token under its two names.
pub(super) fn inject(variables: &mut Variables, provider: &str, token: &Secret, durable: &Durable) {
    let [bare, header] = injected_names(provider);
    variables.insert(bare, Content::Secret(Exposed::new(token.duplicate(), durable)));
    let authorization = Secret::new(format!("Bearer {}", token.expose()));
    variables.insert(header, Content::Secret(Exposed::new(authorization, durable)));
}

/// A sentinel for whatever could have been injected and was not: without it ElevenLabs refuses to start.
pub(super) fn fill_gaps<'a>(variables: &mut Variables, needs: impl Iterator<Item = &'a Need>) {
    for need in needs.filter(|need| need.hand_over != HandOver::Broker) {
        for name in injected_names(&need.provider) {
            variables.entry(name).or_insert_with(|| Content::Plain(Value::from(NOT_CONNECTED)));
        }
    }
}
