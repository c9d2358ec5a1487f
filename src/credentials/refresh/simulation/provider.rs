//! A provider with the manners of one rotation family (provider facts, D.2).

use std::time::Duration;

use super::super::{Policy, Replay, Revocation};
use crate::clock::Millis;

/// A handle to a token set: the refresh token's number.
pub type Tokens = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// There is no refresh token.
    F0,
    /// The refresh token stays; revoking anything ends the user's whole consent.
    F1,
    /// Every answer brings a new one, and the old ones live on; nothing can be revoked by us.
    F2,
    /// A spent token may be replayed for a while and brings the same pair again.
    F3Same,
    /// A spent token may be replayed for a while, each time for another pair; using one pair ends its twins.
    F3Other,
    /// A spent token is dead.
    F4,
    /// A spent token ends all its descendants when it is sent again.
    F5,
}

impl Family {
    pub const ALL: [Self; 7] = [Self::F0, Self::F1, Self::F2, Self::F3Same, Self::F3Other, Self::F4, Self::F5];
    pub const ROTATING_MOSTLY: [Self; 8] =
        [Self::F1, Self::F2, Self::F3Same, Self::F3Other, Self::F3Other, Self::F4, Self::F5, Self::F5];

    pub fn policy(self, grace: Duration) -> Policy {
        match self {
            Self::F0 | Self::F1 => Policy::new(Replay::Safe, false, Revocation::WholeConsent),
            Self::F2 => Policy::new(Replay::Safe, true, Revocation::Impossible),
            Self::F3Same | Self::F3Other => Policy::new(Replay::Grace(grace), true, Revocation::OneTokenSet),
            Self::F4 | Self::F5 => Policy::new(Replay::Unsafe, true, Revocation::OneTokenSet),
        }
    }

    /// A lost answer may cost the connection.
    pub fn can_lose(self) -> bool {
        matches!(self, Self::F3Same | Self::F3Other | Self::F4 | Self::F5)
    }

    pub fn gives_grace(self) -> bool {
        matches!(self, Self::F3Same | Self::F3Other)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Live,
    Spent(Millis),
    Dead,
}

#[derive(Clone, Copy)]
struct Token {
    consent: i64,
    parent: Option<Tokens>,
    child: Option<Tokens>,
    life: Life,
}

pub enum Reply {
    Fresh(Tokens),
    Refused,
}

pub struct Provider {
    family: Family,
    grace: Duration,
    revocation: Revocation,
    tokens: Vec<Token>,
    consents: i64,
    /// Spent tokens sent again where that is not tolerated.
    pub reused: u64,
}

impl Provider {
    pub fn new(family: Family, grace: Duration, revocation: Revocation) -> Self {
        Self { family, grace, revocation, tokens: Vec::new(), consents: 0, reused: 0 }
    }

    fn mint(&mut self, consent: i64, parent: Option<Tokens>) -> Tokens {
        let new = self.tokens.len();
        if let Some(parent) = parent {
            self.tokens[parent].child = Some(new);
        }
        self.tokens.push(Token { consent, parent, child: None, life: Life::Live });
        new
    }

    /// The user agrees: the first token of a new consent.
    pub fn consent(&mut self) -> Tokens {
        self.consents += 1;
        self.mint(self.consents, None)
    }

    /// The consent that a token came from, counted from 1.
    pub fn consent_of(&self, token: Tokens) -> i64 {
        self.tokens[token].consent
    }

    pub fn lives(&self, token: Tokens) -> bool {
        self.tokens[token].life == Life::Live
    }

    pub fn refresh(&mut self, token: Tokens, now: Millis) -> Reply {
        let Token { life, consent, parent, child } = self.tokens[token];
        match (life, self.family) {
            (Life::Dead, _) => return Reply::Refused,
            (Life::Live, Family::F0 | Family::F1) => return Reply::Fresh(token),
            (Life::Live, Family::F2) => {}
            (Life::Live, _) => {
                self.tokens[token].life = Life::Spent(now);
                self.end_twins(token, parent);
            }
            (Life::Spent(at), family) if family.gives_grace() && now < at.after(self.grace) => {
                if let (Family::F3Same, Some(child)) = (family, child) {
                    return Reply::Fresh(child);
                }
            }
            (Life::Spent(_), family) => {
                self.reused += 1;
                if family != Family::F4 {
                    self.end(consent);
                }
                return Reply::Refused;
            }
        }
        Reply::Fresh(self.mint(consent, Some(token)))
    }

    fn end_twins(&mut self, token: Tokens, parent: Option<Tokens>) {
        for (twin, other) in self.tokens.iter_mut().enumerate() {
            if twin != token && parent.is_some() && other.parent == parent && other.life == Life::Live {
                other.life = Life::Dead;
            }
        }
    }

    fn end(&mut self, consent: i64) {
        for token in self.tokens.iter_mut().filter(|token| token.consent == consent) {
            token.life = Life::Dead;
        }
    }

    pub fn revoke(&mut self, token: Tokens) {
        if self.revocation == Revocation::WholeConsent {
            (1..=self.consents).for_each(|consent| self.end(consent));
        } else {
            self.end(self.tokens[token].consent);
        }
    }
}
