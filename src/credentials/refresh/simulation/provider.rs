//! A provider as `reference` describes the families: static, grace, immediate death, family revocation.

use std::time::Duration;

use super::super::{Policy, Replay, Revocation};
use super::world::Tokens;
use crate::clock::Millis;

/// How long a spent token may be replayed with [`Family::F3`].
const GRACE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The refresh token stays; revoking anything ends the user's whole consent.
    F1,
    /// A spent token may be replayed for a while, each time for another pair; using one pair ends its twins.
    F3,
    /// A spent token is dead.
    F4,
    /// A spent token ends all its descendants when it is sent again.
    F5,
}

impl Family {
    pub fn policy(self) -> Policy {
        match self {
            Self::F1 => Policy::new(Replay::Safe, false, Revocation::WholeConsent),
            Self::F3 => Policy::new(Replay::Grace(GRACE), true, Revocation::OneTokenSet),
            Self::F4 | Self::F5 => Policy::new(Replay::Unsafe, true, Revocation::OneTokenSet),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Live,
    Spent(Millis),
    Dead,
}

struct Token {
    consent: usize,
    parent: Option<Tokens>,
    life: Life,
}

pub enum Reply {
    Fresh(Tokens),
    Refused,
}

pub struct Provider {
    family: Family,
    tokens: Vec<Token>,
    consents: usize,
    /// Answers with tokens.
    pub issued: u64,
    /// Spent tokens sent again where that is not tolerated.
    pub reused: u64,
}

impl Provider {
    pub fn new(family: Family) -> Self {
        Self { family, tokens: Vec::new(), consents: 0, issued: 0, reused: 0 }
    }

    fn mint(&mut self, consent: usize, parent: Option<Tokens>) -> Tokens {
        self.tokens.push(Token { consent, parent, life: Life::Live });
        self.tokens.len() - 1
    }

    /// The user agrees: the first token of a new consent.
    pub fn consent(&mut self) -> Tokens {
        self.consents += 1;
        self.mint(self.consents, None)
    }

    pub fn lives(&self, token: Tokens) -> bool {
        self.tokens.get(token).is_some_and(|token| token.life == Life::Live)
    }

    pub fn refresh(&mut self, token: Tokens, now: Millis) -> Reply {
        let (life, consent, parent) = (self.tokens[token].life, self.tokens[token].consent, self.tokens[token].parent);
        let in_grace = |at: Millis| self.family == Family::F3 && now < at.after(GRACE);
        match life {
            Life::Live if self.family == Family::F1 => {
                self.issued += 1;
                return Reply::Fresh(token);
            }
            Life::Live => {
                self.tokens[token].life = Life::Spent(now);
                for (twin, other) in self.tokens.iter_mut().enumerate() {
                    if twin != token && parent.is_some() && other.parent == parent && other.life == Life::Live {
                        other.life = Life::Dead;
                    }
                }
            }
            Life::Spent(at) if in_grace(at) => {}
            Life::Spent(_) => {
                self.reused += 1;
                if self.family != Family::F4 {
                    self.end(consent);
                }
                return Reply::Refused;
            }
            Life::Dead => return Reply::Refused,
        }
        self.issued += 1;
        Reply::Fresh(self.mint(consent, Some(token)))
    }

    fn end(&mut self, consent: usize) {
        for token in self.tokens.iter_mut().filter(|token| token.consent == consent) {
            token.life = Life::Dead;
        }
    }

    pub fn revoke(&mut self, token: Tokens) {
        if self.family == Family::F1 {
            (1..=self.consents).for_each(|consent| self.end(consent));
        } else {
            self.end(self.tokens[token].consent);
        }
    }
}
