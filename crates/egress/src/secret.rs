//! Secret values on their way from the store to a request, and the placeholders that boxes see.
//!
//! Absent: where values are kept, and for whom; that is the caller's [`SecretSource`].

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

/// What a placeholder begins with; the secret's name follows.
pub const PLACEHOLDER_PREFIX: &str = "chargehand-secret-";

/// What a box is given in place of a value.
#[must_use]
pub fn placeholder(name: &str) -> String {
    format!("{PLACEHOLDER_PREFIX}{name}")
}

/// A value that is never shown by accident, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself. Whoever calls this answers for where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a value can't be had. Told to the box, so it holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is none of this name in the box's scope.
    #[error("there is no such secret for this task; set it with `chargehand secret set`")]
    Missing,
    /// There is one, and it could not be read.
    #[error("it could not be read: {detail}")]
    Unreadable {
        /// Why, without the value.
        detail: String,
    },
}

/// Gives values to the door of one box.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The value of a secret in this box's scope. **Contract:** called for each request that needs
    /// it, after the request was allowed; may cache, must not hand out what the box's task may not use.
    ///
    /// # Errors
    /// [`SecretError`]; the request is then refused.
    async fn secret(&self, name: &str) -> Result<Secret, SecretError>;
}

/// No secrets at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

#[async_trait]
impl SecretSource for NoSecrets {
    async fn secret(&self, _name: &str) -> Result<Secret, SecretError> {
        Err(SecretError::Missing)
    }
}
