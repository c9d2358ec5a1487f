//! Values that must not be seen.
//!
//! [`Secret`] has no `Display`, no `Serialize` and no `Clone`; its `Debug` prints the type only, and
//! its memory is wiped when it is dropped. The only way to look inside is [`Secret::expose`], so
//! `grep -rn '\.expose()' src` lists every place that does. The only way to put one into an answer
//! is `audit::Exposed`, which wants proof that the hand-out was recorded first.

use std::fmt;

use secrecy::{ExposeSecret, SecretBox};
use zeroize::Zeroize;

/// A secret text: a token, a client secret, a password, an API key.
pub struct Secret(SecretBox<str>);

impl Secret {
    /// Takes ownership of `text` and hides it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretBox::new(text.into().into_boxed_str()))
    }

    /// Takes bytes that must be UTF-8; what is not is wiped and refused.
    #[must_use]
    pub fn from_utf8(bytes: Vec<u8>) -> Option<Self> {
        match String::from_utf8(bytes) {
            Ok(text) => Some(Self::new(text)),
            Err(error) => {
                error.into_bytes().zeroize();
                None
            }
        }
    }

    /// Looks inside. Every call is a place a reviewer reads.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A second copy, on purpose and by name.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.expose())
    }

    /// True when there is nothing inside but white space.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.expose().trim().is_empty()
    }

    /// True when there is nothing inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_the_type_and_nothing_else() {
        let secret = Secret::new("ya29.canary");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(Secret(…))");
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        assert!(Secret::from_utf8(vec![0xff, 0xfe]).is_none());
        assert_eq!(Secret::from_utf8(b"ok".to_vec()).expect("text").expose(), "ok");
    }
}
