//! Input that does not fit, field by field, so that whoever sent it learns everything at once.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

/// One field that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field, such as `connections[2].provider`.
    pub field: String,
    /// What is wrong and what to do, for people. Never repeats a secret.
    pub message: String,
}

/// Everything in one request that does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    /// Just one field.
    #[must_use]
    pub fn one(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Adds a field.
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    /// Keeps what is wrong with a part and goes on; gives the part when nothing is.
    pub fn keep<T>(&mut self, part: Result<T, Self>) -> Option<T> {
        part.map_err(|mut wrong| self.0.append(&mut wrong.0)).ok()
    }

    /// Fine when nothing was added.
    ///
    /// # Errors
    /// Itself when something was.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        f.write_str(&texts.join("; "))
    }
}

impl std::error::Error for Invalid {}

/// A name that people choose: 1–`max` characters, no control characters, no surrounding space.
///
/// # Errors
/// Says what is wrong with `field`.
pub fn checked_name(field: &str, text: &str, max: usize) -> Result<String, Invalid> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        Err(Invalid::one(field, "must not be empty"))
    } else if trimmed.chars().count() > max {
        Err(Invalid::one(field, format!("must have at most {max} characters")))
    } else if trimmed.chars().any(char::is_control) {
        Err(Invalid::one(field, "must not contain control characters"))
    } else {
        Ok(trimmed.to_owned())
    }
}

/// A tenant's own id of a user: 1–200 characters without control characters, kept as it is.
///
/// # Errors
/// Says what is wrong with `field`.
pub fn checked_external_id(field: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err(Invalid::one(field, "must have 1 to 200 characters, none of them a control character"));
    }
    Ok(())
}
