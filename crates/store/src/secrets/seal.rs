//! Sealing and opening one value: AES-256-GCM with everything that says where it may go bound in.
//!
//! What is bound is one JSON array in a fixed order, so that no two bindings give the same bytes.
//! Changing it makes every stored row unreadable; a test keeps a row of old. Absent: where keys and
//! rows lie.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroize as _;

use super::keys::Key;
use super::port::SecretLine;
use super::value::Secret;
use crate::error::Fault;

/// Says what kind of thing is sealed, and in which form.
const FORM: &str = "chargehand secret 1";
/// What the cipher adds to a value.
const TAG_BYTES: usize = 16;

/// Gives random bytes that nobody can guess.
pub trait Entropy: Send + Sync {
    /// Fills the bytes.
    ///
    /// # Errors
    /// [`Fault`] if the system gives none.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Fault>;
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.0.fill(bytes).map_err(|error| Fault::new("draw random bytes", error))
    }
}

/// A sealed value.
pub(crate) struct Sealed {
    pub nonce: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// Everything of a row that must not change without its value's being sealed anew.
fn bound(line: &SecretLine) -> Vec<u8> {
    let (repo, environment) = (line.scope.repo().unwrap_or_default(), line.scope.environment().unwrap_or_default());
    let hosts: Vec<&str> = line.hosts.iter().map(super::SecretHost::as_str).collect();
    let added_as = line.added_as.to_string();
    let parts = (FORM, line.name.as_str(), repo, environment, hosts, added_as, line.revision, line.key_id.as_str());
    serde_json::to_vec(&parts).unwrap_or_default()
}

fn cipher(key: &Key) -> Result<LessSafeKey, Fault> {
    let key = UnboundKey::new(&AES_256_GCM, key.bytes()).map_err(|error| Fault::new("take a key", error))?;
    Ok(LessSafeKey::new(key))
}

/// Seals a value for a row. `line.key_id` has to be the key's.
///
/// # Errors
/// [`Fault`] without randomness.
pub(crate) fn seal(key: &Key, line: &SecretLine, value: &Secret, entropy: &dyn Entropy) -> Result<Sealed, Fault> {
    let mut nonce = [0_u8; NONCE_LEN];
    entropy.fill(&mut nonce)?;
    // Room for the tag from the start: a buffer that grows would leave the value behind.
    let mut bytes = Vec::with_capacity(value.expose().len() + TAG_BYTES);
    bytes.extend_from_slice(value.expose().as_bytes());
    let sealed =
        cipher(key)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound(line)), &mut bytes);
    if let Err(error) = sealed {
        bytes.zeroize();
        return Err(Fault::new("seal a secret", error));
    }
    Ok(Sealed { nonce: nonce.to_vec(), bytes })
}

/// Opens a row's value; `None` if the row is not what was sealed.
pub(crate) fn open(key: &Key, line: &SecretLine, sealed: &Sealed) -> Option<Secret> {
    let nonce = Nonce::try_assume_unique_for_key(&sealed.nonce).ok()?;
    let mut bytes = zeroize::Zeroizing::new(sealed.bytes.clone());
    let plain = cipher(key).ok()?.open_in_place(nonce, Aad::from(bound(line)), &mut bytes).ok()?;
    std::str::from_utf8(plain).ok().map(Secret::new)
}
