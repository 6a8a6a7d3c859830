//! Values in and out: the one place where rows and keys meet.
//!
//! ```text
//! set     check ─ keys at hand? ─ seal ─ put (row + who) ──▶ stored
//! rotate  new key in front (stored) ─ each row sealed anew ─ all rows looked at ─ old keys forgotten
//!         killed anywhere: both keys open; the next rotation goes on
//! ```
//!
//! Changes exclude each other and reads of values, so that no row is sealed with a key that is just
//! being forgotten. Absent: a list of values, and a clock (`now` is an argument).

use std::sync::Arc;

use domain::principal::Principal;
use jiff::Timestamp;
use tokio::sync::RwLock;

use super::binding::{AddedAs, BadSecret, SecretHost, SecretName, SecretScope};
use super::error::{KeyError, SecretsError, VaultError};
use super::keys::{KeyId, KeyProvider, KeyRing};
use super::port::{AuditAction, SealedSecret, SecretAudit, SecretLine, Secrets};
use super::seal::{Entropy, Sealed, SystemEntropy, open, seal};
use super::value::Secret;
use crate::error::Fault;

/// A secret that should be stored.
#[derive(Debug, Clone)]
pub struct SecretWish {
    /// What it is called.
    pub name: SecretName,
    /// For whom it is.
    pub scope: SecretScope,
    /// Where it may go; at least one.
    pub hosts: Vec<SecretHost>,
    /// How it is added to a request.
    pub added_as: AddedAs,
    /// The value.
    pub value: Secret,
}

/// A value and how it is to be added.
#[derive(Debug, Clone)]
pub struct Revealed {
    /// The value.
    pub value: Secret,
    /// How it is added, as stored at this moment.
    pub added_as: AddedAs,
}

/// What a change of keys came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key that everything is sealed with now.
    pub active: KeyId,
    /// How many secrets were sealed anew by this call.
    pub resealed: u64,
}

/// Secrets with the keys that open them.
pub struct Vault {
    secrets: Arc<dyn Secrets>,
    keys: Arc<dyn KeyProvider>,
    entropy: Arc<dyn Entropy>,
    turn: RwLock<()>,
}

impl Vault {
    /// A vault over sealed rows, with randomness of the operating system.
    #[must_use]
    pub fn new(secrets: Arc<dyn Secrets>, keys: Arc<dyn KeyProvider>) -> Self {
        Self::with_entropy(secrets, keys, Arc::new(SystemEntropy::default()))
    }

    /// A vault with other randomness. Two values sealed with one key and equal randomness can be read
    /// by everybody.
    #[must_use]
    pub fn with_entropy(secrets: Arc<dyn Secrets>, keys: Arc<dyn KeyProvider>, entropy: Arc<dyn Entropy>) -> Self {
        Self { secrets, keys, entropy, turn: RwLock::new(()) }
    }

    /// Stores a secret, or replaces the one of this name and scope. The first one makes the key. When
    /// it returns, the secret survives a loss of power.
    ///
    /// # Errors
    /// [`VaultError::Bad`] for what can't be stored or sent, [`VaultError::KeyMissing`] if a stored
    /// secret waits for a key that is not there, [`VaultError::Store`] if it can't be stored.
    pub async fn set(&self, wish: SecretWish, who: &Principal, now: Timestamp) -> Result<SecretLine, VaultError> {
        wish.value.check(&wish.added_as)?;
        let mut hosts = wish.hosts;
        hosts.sort();
        hosts.dedup();
        if hosts.is_empty() {
            return Err(BadSecret::NoHost.into());
        }
        let _alone = self.turn.write().await;
        let lines = self.secrets.list().await?;
        let ring = match self.ring(&lines).await? {
            Some(ring) => ring,
            None => self.with_keys(|keys, entropy| keys.create(entropy)).await?,
        };
        let now = to_the_microsecond(now);
        let before = lines.into_iter().find(|line| line.name == wish.name && line.scope == wish.scope);
        let line = SecretLine {
            name: wish.name,
            scope: wish.scope,
            hosts,
            added_as: wish.added_as,
            key_id: ring.active().id().clone(),
            revision: before.as_ref().map_or(0, |before| before.revision).saturating_add(1),
            created_at: before.map_or(now, |before| before.created_at),
            updated_at: now,
        };
        self.store(&ring, line.clone(), &wish.value, (AuditAction::Set, who, now)).await?;
        Ok(line)
    }

    /// Removes a secret. Needs no key. Gives what was removed.
    ///
    /// # Errors
    /// [`VaultError::Store`] with [`SecretsError::NotFound`].
    pub async fn remove(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        who: &Principal,
        now: Timestamp,
    ) -> Result<SecretLine, VaultError> {
        let _alone = self.turn.write().await;
        Ok(self.secrets.remove(scope, name, who, to_the_microsecond(now)).await?)
    }

    /// Every secret, without values. See [`Secrets::list`].
    ///
    /// # Errors
    /// [`VaultError::Unread`].
    pub async fn list(&self) -> Result<Vec<SecretLine>, VaultError> {
        Ok(self.secrets.list().await?)
    }

    /// The secrets that count in a box, without values. See [`Secrets::for_box`].
    ///
    /// # Errors
    /// [`VaultError::Unread`].
    pub async fn for_box(&self, repo: &str, environment: Option<&str>) -> Result<Vec<SecretLine>, VaultError> {
        Ok(self.secrets.for_box(repo, environment).await?)
    }

    /// Who changed which secret, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`VaultError::Unread`].
    pub async fn audit(&self, limit: u32) -> Result<Vec<SecretAudit>, VaultError> {
        Ok(self.secrets.audit(limit).await?)
    }

    /// A value to be added to a request to this host and port, as stored at this moment. The stored
    /// row decides, so that a host that was taken away gets nothing any more.
    ///
    /// # Errors
    /// [`VaultError::NotForHost`] if it may not go there, [`VaultError::Store`] with
    /// [`SecretsError::NotFound`] if it was removed; [`VaultError::KeyMissing`], [`VaultError::Tampered`].
    pub async fn value_for(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        host: &str,
        port: u16,
    ) -> Result<Revealed, VaultError> {
        self.open_row(scope, name, |line| {
            if line.hosts.iter().any(|own| own.is(host, port)) {
                return Ok(());
            }
            Err(VaultError::NotForHost { name: line.name.clone(), host: host.to_owned(), port })
        })
        .await
    }

    /// A value, to be looked for in output and blotted out. What goes out of a box takes
    /// [`Vault::value_for`].
    ///
    /// # Errors
    /// As [`Vault::value_for`], except for the host.
    pub async fn reveal(&self, scope: &SecretScope, name: &SecretName) -> Result<Secret, VaultError> {
        Ok(self.open_row(scope, name, |_| Ok(())).await?.value)
    }

    /// Seals every secret with a new key, then forgets the old one. Broken off anywhere, both keys
    /// open; calling it again goes on.
    ///
    /// # Errors
    /// [`VaultError::Key`] if the next key is not this program's to make; [`VaultError::Tampered`]
    /// names a row that does not open, and keeps the old key for the others.
    pub async fn rotate(&self, who: &Principal, now: Timestamp) -> Result<Rotated, VaultError> {
        let _alone = self.turn.write().await;
        let lines = self.secrets.list().await?;
        self.ring(&lines).await?;
        let ring = self.with_keys(|keys, entropy| keys.begin_change(entropy)).await?;
        let active = ring.active().id().clone();
        let now = to_the_microsecond(now);
        let mut resealed = 0;
        for line in lines.into_iter().filter(|line| line.key_id != active) {
            let Some(row) = self.secrets.get(&line.scope, &line.name).await? else { continue };
            let value = self.unseal(&ring, &row)?;
            let next = SecretLine { key_id: active.clone(), revision: row.line.revision + 1, ..row.line };
            self.store(&ring, next, &value, (AuditAction::Resealed, who, now)).await?;
            resealed += 1;
        }
        if self.secrets.list().await?.iter().all(|line| line.key_id == active) {
            self.with_keys(|keys, _| keys.end_change()).await?;
        }
        Ok(Rotated { active, resealed })
    }

    async fn open_row(
        &self,
        scope: &SecretScope,
        name: &SecretName,
        allowed: impl FnOnce(&SecretLine) -> Result<(), VaultError>,
    ) -> Result<Revealed, VaultError> {
        let _shared = self.turn.read().await;
        let row = self.secrets.get(scope, name).await?;
        let row = row.ok_or_else(|| SecretsError::NotFound { name: name.clone(), scope: scope.clone() })?;
        allowed(&row.line)?;
        let ring = self.ring(std::slice::from_ref(&row.line)).await?;
        let Some(ring) = ring else { return Err(self.missing(std::slice::from_ref(&row.line), None)) };
        let value = self.unseal(&ring, &row)?;
        Ok(Revealed { value, added_as: row.line.added_as })
    }

    fn unseal(&self, ring: &KeyRing, row: &SealedSecret) -> Result<Secret, VaultError> {
        let lines = std::slice::from_ref(&row.line);
        let key = ring.find(&row.line.key_id).ok_or_else(|| self.missing(lines, Some(ring)))?;
        let sealed = Sealed { nonce: row.nonce.clone(), bytes: row.sealed.clone() };
        open(key, &row.line, &sealed).ok_or_else(|| VaultError::Tampered { name: row.line.name.clone() })
    }

    async fn store(
        &self,
        ring: &KeyRing,
        line: SecretLine,
        value: &Secret,
        (action, who, now): (AuditAction, &Principal, Timestamp),
    ) -> Result<(), VaultError> {
        let sealed = seal(ring.active(), &line, value, &*self.entropy).map_err(KeyError::NoEntropy)?;
        let secret = SealedSecret { line, nonce: sealed.nonce, sealed: sealed.bytes };
        Ok(self.secrets.put(secret, action, who, now).await?)
    }

    /// The keys, if they open all these lines; `None` if there are neither keys nor lines.
    async fn ring(&self, lines: &[SecretLine]) -> Result<Option<KeyRing>, VaultError> {
        let ring = self.with_keys(|keys, _| keys.load()).await?;
        let opens = |line: &SecretLine| ring.as_ref().is_some_and(|ring| ring.find(&line.key_id).is_some());
        if lines.iter().all(opens) { Ok(ring) } else { Err(self.missing(lines, ring.as_ref())) }
    }

    fn missing(&self, lines: &[SecretLine], ring: Option<&KeyRing>) -> VaultError {
        let waits = |line: &&SecretLine| ring.is_none_or(|ring| ring.find(&line.key_id).is_none());
        let first = lines.iter().find(waits).map(|line| line.key_id.clone());
        VaultError::KeyMissing {
            needed: first.unwrap_or_else(|| KeyId::stored(String::new())),
            count: lines.iter().filter(waits).count(),
            place: self.keys.place(),
        }
    }

    /// Keys may lie on a disk: never on the thread that serves others.
    async fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn KeyProvider, &dyn Entropy) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let (keys, entropy) = (self.keys.clone(), self.entropy.clone());
        let done = tokio::task::spawn_blocking(move || work(&*keys, &*entropy)).await;
        match done {
            Ok(done) => Ok(done?),
            Err(error) => Err(SecretsError::Failed(Fault::new("look at the keys", error)).into()),
        }
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("keys", &self.keys.place()).finish_non_exhaustive()
    }
}

fn to_the_microsecond(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}
