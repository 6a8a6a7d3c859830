//! The port for sealed rows, what passes through it, and what every back end decides alike.
//!
//! Absent: keys and values. Whatever stands behind the port never sees either.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::principal::Principal;
use jiff::Timestamp;

use super::binding::{AddedAs, SecretHost, SecretName, SecretScope};
use super::error::SecretsError;
use super::keys::KeyId;
use crate::error::ReadError;

/// What may be known of a stored secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretLine {
    /// What it is called.
    pub name: SecretName,
    /// For whom it is.
    pub scope: SecretScope,
    /// Where it may go; sorted, never empty.
    pub hosts: Vec<SecretHost>,
    /// How it is added to a request.
    pub added_as: AddedAs,
    /// The key that it is sealed with.
    pub key_id: KeyId,
    /// Grows by one with every write, from 1.
    pub revision: u64,
    /// When it was first set; kept to the microsecond.
    pub created_at: Timestamp,
    /// When its value, hosts or way were last set; kept to the microsecond.
    pub updated_at: Timestamp,
}

/// A stored secret, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// What may be known of it.
    pub line: SecretLine,
    /// The nonce that it was sealed under.
    pub nonce: Vec<u8>,
    /// The sealed value.
    pub sealed: Vec<u8>,
}

/// What was done to a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// It was made, or its value, hosts or way changed.
    Set,
    /// It was removed.
    Removed,
    /// It was sealed with another key.
    Resealed,
}

impl AuditAction {
    /// The word for it, as stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Removed => "removed",
            Self::Resealed => "resealed",
        }
    }
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Set, Self::Removed, Self::Resealed].into_iter().find(|action| action.word() == word)
    }
}

/// Who changed which secret, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAudit {
    /// Its place among all changes; grows, from 1.
    pub row: u64,
    /// When; kept to the microsecond.
    pub at: Timestamp,
    /// Who.
    pub actor: Principal,
    /// What was done.
    pub action: AuditAction,
    /// To which secret.
    pub name: SecretName,
    /// For whom that is or was.
    pub scope: SecretScope,
    /// Where it may go after the change; for a removed one, where it might have gone.
    pub hosts: Vec<SecretHost>,
    /// How it is or was added.
    pub added_as: AddedAs,
}

/// Sealed secrets, and who changed them.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Stores a row and who did it: both or neither. The row's revision has to be one more than the
    /// stored one's, and 1 for a new row. `action` says whether somebody set it or it got a new seal.
    /// When it returns `Ok`, both survive a loss of power.
    ///
    /// # Errors
    /// [`SecretsError::Conflict`] if another revision is stored.
    async fn put(
        &self,
        secret: SealedSecret,
        action: AuditAction,
        actor: &Principal,
        at: Timestamp,
    ) -> Result<(), SecretsError>;

    /// Removes a row and stores who did it: both or neither. Gives what was removed.
    ///
    /// # Errors
    /// [`SecretsError::NotFound`].
    async fn remove(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        actor: &Principal,
        at: Timestamp,
    ) -> Result<SecretLine, SecretsError>;

    /// Every secret, by scope (server, repositories, environments) and name.
    ///
    /// # Errors
    /// [`ReadError`] if the storage fails or holds what it can't have written.
    async fn list(&self) -> Result<Vec<SecretLine>, ReadError>;

    /// The secrets that count in a box of this repository and environment: of one name the most
    /// specific one. The most specific come first, and among them it goes by name.
    ///
    /// # Errors
    /// As [`Secrets::list`].
    async fn for_box(&self, repo: &str, environment: Option<&str>) -> Result<Vec<SecretLine>, ReadError>;

    /// One row, sealed; `None` if there is none.
    ///
    /// # Errors
    /// As [`Secrets::list`].
    async fn get(&self, scope: &SecretScope, name: &SecretName) -> Result<Option<SealedSecret>, ReadError>;

    /// The last changes, newest first, at most `limit`.
    ///
    /// # Errors
    /// As [`Secrets::list`].
    async fn audit(&self, limit: u32) -> Result<Vec<SecretAudit>, ReadError>;
}

/// A change as back ends carry it out.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put { secret: Box<SealedSecret>, action: AuditAction },
    Remove { scope: SecretScope, name: SecretName },
}

impl Change {
    pub fn scope(&self) -> &SecretScope {
        match self {
            Self::Put { secret, .. } => &secret.line.scope,
            Self::Remove { scope, .. } => scope,
        }
    }
    pub fn name(&self) -> &SecretName {
        match self {
            Self::Put { secret, .. } => &secret.line.name,
            Self::Remove { name, .. } => name,
        }
    }
    pub fn action(&self) -> AuditAction {
        match self {
            Self::Put { action, .. } => *action,
            Self::Remove { .. } => AuditAction::Removed,
        }
    }
}

/// Whether a change fits what is stored; gives the line that its audit tells of.
pub(crate) fn judge(change: &Change, stored: Option<&SecretLine>) -> Result<SecretLine, SecretsError> {
    match change {
        Change::Put { secret, .. } => {
            let next = stored.map_or(0, |line| line.revision).saturating_add(1);
            if secret.line.revision == next {
                Ok(secret.line.clone())
            } else {
                Err(SecretsError::Conflict { name: secret.line.name.clone() })
            }
        }
        Change::Remove { scope, name } => {
            stored.cloned().ok_or_else(|| SecretsError::NotFound { name: name.clone(), scope: scope.clone() })
        }
    }
}

/// Of lines that apply to a box, those that count: by name the most specific one, in the order that
/// [`Secrets::for_box`] promises. Lines of other repositories and environments are passed over.
pub(crate) fn effective(
    lines: impl IntoIterator<Item = SecretLine>,
    repo: &str,
    environment: Option<&str>,
) -> Vec<SecretLine> {
    let applies = |scope: &SecretScope| match scope {
        SecretScope::Server => true,
        SecretScope::Repository { repo: own } => own == repo,
        SecretScope::Environment { repo: own, name } => own == repo && Some(name.as_str()) == environment,
    };
    let mut by_name: BTreeMap<SecretName, SecretLine> = BTreeMap::new();
    for line in lines.into_iter().filter(|line| applies(&line.scope)) {
        match by_name.get(&line.name) {
            // The order of scopes goes from the general to the specific.
            Some(other) if other.scope >= line.scope => {}
            _ => {
                by_name.insert(line.name.clone(), line);
            }
        }
    }
    let mut lines: Vec<SecretLine> = by_name.into_values().collect();
    lines.sort_by(|a, b| (&b.scope, &a.name).cmp(&(&a.scope, &b.name)));
    lines
}
