//! What can go wrong with secrets, typed by what the caller may do about it. No message repeats a value.
//!
//! Absent: the command line's own mistakes.

use std::path::PathBuf;

use super::binding::{BadSecret, SecretName, SecretScope};
use super::keys::KeyId;
use crate::error::{Fault, ReadError};

/// Why a sealed row was not stored or removed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretsError {
    /// Somebody changed the row meanwhile. Read it again and decide again.
    #[error("somebody else changed the secret `{name}` at the same moment; try again")]
    Conflict {
        /// Which.
        name: SecretName,
    },
    /// There is no such secret.
    #[error("there is no secret `{name}` for {scope}; `chargehand secret list` shows all")]
    NotFound {
        /// Which.
        name: SecretName,
        /// Where it was looked for.
        scope: SecretScope,
    },
    /// No room on the disk.
    #[error("the disk that holds the data folder is full; free some space, then try again")]
    DiskFull,
    /// The storage failed.
    #[error("the secret can't be stored")]
    Failed(#[source] Fault),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why there is no key to seal or open with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The key file or variable holds something else than keys.
    #[error(
        "{place} does not hold keys ({why}); put the file or value back from your backup. A key is 32 random bytes in base64, one a line in the file, separated by commas in the variable"
    )]
    Unreadable {
        /// Which file or variable.
        place: String,
        /// What is wrong, without the content.
        why: &'static str,
    },
    /// Others may read the key file.
    #[error("{} can be read by other users of this machine; run `chmod 600 {}`, and `chargehand secret rotate-key` if somebody may have read it", .path.display(), .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read or written.
    #[error("could not {operation} the key file {}: {}", .path.display(), .fault.source)]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        fault: Fault,
    },
    /// No room for the key file. Nothing was changed.
    #[error("the disk that holds {} is full; free some space, then try again", .path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The key is given from outside, so this program can't make the next one.
    #[error(
        "the key comes from {variable}, so the new one has to come from there too: set it to NEW,OLD (the new key first, the present one after a comma; `openssl rand -base64 32` makes one), start the server again, and run this again"
    )]
    GivenFromOutside {
        /// The variable.
        variable: &'static str,
    },
    /// No randomness.
    #[error("the system gives no random bytes")]
    NoEntropy(#[source] Fault),
}

/// Why a secret can't be set, had or rotated.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The caller's mistake.
    #[error(transparent)]
    Bad(#[from] BadSecret),
    /// The rows are sealed under a key that is not here. Nothing is lost while that key exists.
    #[error(
        "{count} stored secret(s) are sealed with the key {needed}, which {place} does not hold. Put that key back (the key file is not part of the database, nor of a copy of it); if it is gone for good, remove those secrets with `chargehand secret rm` and set them again"
    )]
    KeyMissing {
        /// The key that is missing.
        needed: KeyId,
        /// How many rows wait for it.
        count: usize,
        /// Where keys come from.
        place: String,
    },
    /// Keys can't be had at all.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The row was changed outside of this program.
    #[error("the stored secret `{name}` does not open: the database was changed by something else; set it again")]
    Tampered {
        /// Which.
        name: SecretName,
    },
    /// The secret is not for this host. Nothing may be sent.
    #[error("the secret `{name}` may not be sent to {host}:{port}")]
    NotForHost {
        /// Which.
        name: SecretName,
        /// The host of the request.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The row can't be stored or removed, or is not there.
    #[error(transparent)]
    Store(#[from] SecretsError),
    /// The rows can't be read.
    #[error(transparent)]
    Unread(#[from] ReadError),
}
