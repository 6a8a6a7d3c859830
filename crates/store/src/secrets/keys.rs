//! Keys, and where they come from.
//!
//! A ring holds the key that seals and those that only open. During a change of keys both are in it,
//! so that a row opens whether it was sealed anew already or not. Absent: a cache. The ring is read
//! when it is needed, so that a key file put back is seen at once.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::id::Digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::error::KeyError;
use super::key_file::FileKeys;
use super::seal::Entropy;
use super::value::Secret;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Hex digits of a key's id.
const ID_DIGITS: usize = 16;

/// Names a key without telling it: the beginning of a digest of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// An id that was stored.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key. Its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: KeyId,
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let digest = Digest::of_parts(&[b"chargehand secret key\0", &bytes]);
        let id = KeyId(digest.as_str().chars().take(ID_DIGITS).collect());
        Self { bytes: Zeroizing::new(bytes), id }
    }

    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::NoEntropy`].
    pub fn random(entropy: &dyn Entropy) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        entropy.fill(&mut *bytes).map_err(KeyError::NoEntropy)?;
        Ok(Self::new(*bytes))
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &*self.bytes
    }

    /// The key as people keep it.
    pub(crate) fn base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.as_slice()))
    }

    /// A key as people keep it.
    pub(crate) fn from_base64(text: &str) -> Result<Self, &'static str> {
        let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| "there is text in it that is not base64")?);
        let bytes: [u8; KEY_BYTES] =
            bytes.as_slice().try_into().map_err(|_| "there is a key in it that has not 32 bytes")?;
        Ok(Self::new(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The keys at hand: one that seals, and those that open.
#[derive(Debug, Clone)]
pub struct KeyRing {
    active: Key,
    older: Vec<Key>,
}

impl KeyRing {
    /// A ring. Of equal keys one is kept.
    #[must_use]
    pub fn new(active: Key, older: Vec<Key>) -> Self {
        let mut kept: Vec<Key> = Vec::with_capacity(older.len());
        for key in older {
            if key.id != active.id && kept.iter().all(|one| one.id != key.id) {
                kept.push(key);
            }
        }
        Self { active, older: kept }
    }
    /// The key that seals.
    #[must_use]
    pub const fn active(&self) -> &Key {
        &self.active
    }
    /// The keys that only open.
    #[must_use]
    pub fn older(&self) -> &[Key] {
        &self.older
    }
    /// The key of this name.
    #[must_use]
    pub fn find(&self, id: &KeyId) -> Option<&Key> {
        std::iter::once(&self.active).chain(&self.older).find(|key| key.id == *id)
    }
    /// All of them, the active one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.active).chain(&self.older)
    }
}

/// Where keys come from. Calls may block on a disk; those that store something come one at a time.
///
/// **Contract.** What a call stored is on the disk when it returns. `begin_change` never takes a key
/// away; `end_change` is called only when nothing is sealed with another key than the active one.
pub trait KeyProvider: Send + Sync {
    /// The keys; `None` if there is none yet.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with what is there.
    fn load(&self) -> Result<Option<KeyRing>, KeyError>;

    /// Makes the first key.
    ///
    /// # Errors
    /// [`KeyError::File`], also if there is one already.
    fn create(&self, entropy: &dyn Entropy) -> Result<KeyRing, KeyError>;

    /// A ring with a new active key and all those before it. A change that was begun and not ended is
    /// gone on with instead.
    ///
    /// # Errors
    /// [`KeyError::GivenFromOutside`] if the next key is not this program's to make.
    fn begin_change(&self, entropy: &dyn Entropy) -> Result<KeyRing, KeyError>;

    /// Forgets all keys but the active one, if they are this program's to forget.
    ///
    /// # Errors
    /// [`KeyError::File`]; the older keys are then kept, which does no harm.
    fn end_change(&self) -> Result<(), KeyError>;

    /// Where the keys are, for messages.
    fn place(&self) -> String;
}

/// Keys from a variable: the first one seals, those after commas only open. A key file that was used
/// before opens what it sealed.
#[derive(Debug)]
pub struct VariableKeys {
    ring: KeyRing,
    variable: &'static str,
    file: FileKeys,
}

impl VariableKeys {
    /// Reads the variable's text.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`] without the text.
    pub fn parse(text: &Secret, variable: &'static str, file: FileKeys) -> Result<Self, KeyError> {
        let unreadable = |why| KeyError::Unreadable { place: variable.to_owned(), why };
        let mut keys = Vec::new();
        for part in text.expose().split(',') {
            keys.push(Key::from_base64(part.trim()).map_err(unreadable)?);
        }
        let mut keys = keys.into_iter();
        let active = keys.next().ok_or_else(|| unreadable("there is no key in it"))?;
        Ok(Self { ring: KeyRing::new(active, keys.collect()), variable, file })
    }
}

impl KeyProvider for VariableKeys {
    fn load(&self) -> Result<Option<KeyRing>, KeyError> {
        let mut older = self.ring.older().to_vec();
        older.extend(self.file.load()?.iter().flat_map(KeyRing::all).cloned());
        Ok(Some(KeyRing::new(self.ring.active().clone(), older)))
    }

    fn create(&self, _: &dyn Entropy) -> Result<KeyRing, KeyError> {
        Ok(self.ring.clone())
    }

    fn begin_change(&self, _: &dyn Entropy) -> Result<KeyRing, KeyError> {
        match self.load()? {
            Some(ring) if !ring.older().is_empty() => Ok(ring),
            _ => Err(KeyError::GivenFromOutside { variable: self.variable }),
        }
    }

    fn end_change(&self) -> Result<(), KeyError> {
        Ok(())
    }

    fn place(&self) -> String {
        self.variable.to_owned()
    }
}
