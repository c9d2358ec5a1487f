//! Identifiers: a prefix that says what it names, then a `UUIDv7` in lower-case base32hex.
//!
//! The order of ids is the order of their making, to the millisecond. Ids are names, never secrets:
//! a v7 carries the time and only 74 random bits.

use std::fmt;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};

use crate::clock::{Millis, Surroundings};

/// Characters after the prefix: 128 bits in base32.
const ENCODED_LENGTH: usize = 26;

/// The text is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_…")]
pub struct WrongId {
    /// The prefix that was expected.
    pub prefix: &'static str,
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
    // The alphabet is fixed and valid; if it ever were not, padding-free base32hex says the same.
    specification.encoding().unwrap_or(data_encoding::BASE32HEX_NOPAD)
}

fn fresh(prefix: &str, around: &Surroundings) -> String {
    let millis = u64::try_from(around.now().0).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &around.random()).into_uuid();
    format!("{prefix}_{}", base32().encode(uuid.as_bytes()))
}

/// The least that an id made at this time can be.
fn first_at(prefix: &str, at: Millis) -> String {
    let millis = u64::try_from(at.0).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    format!("{prefix}_{}", base32().encode(uuid.as_bytes()))
}

fn is_well_formed(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .is_some_and(|rest| rest.len() == ENCODED_LENGTH && base32().decode(rest.as_bytes()).is_ok())
}

/// What stands in a path. One that cannot be read can be taken for one that names nothing, where there is such a one.
pub trait NamesNothing: Sized {
    /// A value that nothing is called by.
    fn of_nothing() -> Option<Self>;
}

impl NamesNothing for String {
    /// Every text may be somebody's name.
    fn of_nothing() -> Option<Self> {
        None
    }
}

macro_rules! ids {
    ($($(#[doc = $doc:literal])* $name:ident = $prefix:literal;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What ids of this kind begin with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, ordered by time.
            #[must_use]
            pub fn new(around: &Surroundings) -> Self {
                Self(fresh(Self::PREFIX, around))
            }

            /// The least that an id of this kind can be when it was made at this time or later: where a list begins.
            #[must_use]
            pub fn first_at(at: Millis) -> Self {
                Self(first_at(Self::PREFIX, at))
            }

            /// Reads an id that came from outside.
            ///
            /// # Errors
            /// When prefix, length or alphabet are wrong.
            pub fn parse(text: &str) -> Result<Self, WrongId> {
                if is_well_formed(text, Self::PREFIX) { Ok(Self(text.to_owned())) } else { Err(WrongId { prefix: Self::PREFIX }) }
            }

            /// An id that nothing has: its time is 1970.
            #[must_use]
            pub fn of_nothing() -> Self {
                Self(format!("{}_{}", Self::PREFIX, "0".repeat(ENCODED_LENGTH)))
            }

            /// An id that our own database returned.
            #[must_use]
            pub fn stored(text: String) -> Self {
                Self(text)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl NamesNothing for $name {
            fn of_nothing() -> Option<Self> {
                Some(Self::of_nothing())
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                let pattern = format!("^{}_[0-9a-v]{{{ENCODED_LENGTH}}}$", Self::PREFIX);
                crate::schema::text_like(concat!($($doc),*), pattern)
            }
        }

        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A platform in one environment.
    TenantId = "ten";
    /// A login of a person who works at a tenant, or of an end user.
    MemberId = "mem";
    /// An end user of a tenant.
    UserId = "usr";
    /// A tenant's OAuth client at a provider.
    IntegrationId = "int";
    /// One external account of one user at one provider.
    ConnectionId = "con";
    /// One secret token set.
    CredentialId = "crd";
    /// Tokens that are still to be ended at their provider.
    RevocationId = "rvk";
    /// A one-time link with which a platform lets its user start handshakes.
    ConnectSessionId = "cns";
    /// A connection being made.
    HandshakeId = "hsk";
    /// One run of an agent for one user.
    ConversationId = "cnv";
    /// An ElevenLabs workspace with its API keys.
    WorkspaceId = "wks";
    /// An ElevenLabs agent with its needs.
    AgentId = "agt";
    /// A platform API key.
    ApiKeyId = "key";
    /// Something that happened and was recorded for delivery.
    EventId = "evt";
    /// Where events are delivered to.
    EventEndpointId = "evp";
    /// An entry of the audit book.
    AuditId = "aud";
    /// The data key of one owner.
    DataKeyId = "dky";
    /// A tenant's key, which wraps its data keys.
    TenantKeyId = "tky";
}

impl TenantId {
    /// The installation itself, as the tenant that owns what belongs to the operator: its workspaces,
    /// sessions and look-up keys. No API key and no member can belong to it.
    #[must_use]
    pub fn installation() -> Self {
        Self("ten_00000000000000000000000000".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock::{Millis, SeededEntropy, TestClock};

    #[test]
    fn ids_sort_by_the_time_of_their_making_and_survive_a_round_trip() {
        let clock = TestClock::at(Millis(1_700_000_000_000));
        let around = Surroundings { clock: Arc::new(clock.clone()), entropy: Arc::new(SeededEntropy::new(1)) };
        let first = ConnectionId::new(&around);
        clock.advance(Duration::from_millis(1));
        let second = ConnectionId::new(&around);

        assert!(first < second);
        assert_eq!(ConnectionId::parse(first.as_str()), Ok(first.clone()));
        assert!(UserId::parse(first.as_str()).is_err(), "a connection is not a user");
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "con", "con_", "con_short", "con_zzzzzzzzzzzzzzzzzzzzzzzzzz", "ten_' or 1=1 --"] {
            assert!(ConnectionId::parse(text).is_err(), "{text}");
        }
        assert!(TenantId::parse(TenantId::installation().as_str()).is_ok());
    }
}
