//! Credentials that boxes never see: what they are, where they may go, and how they lie on the disk.
//!
//! ```text
//! server ── set, list, remove ──▶ Vault ── sealed rows ──▶ Secrets (SQLite, memory)
//! engine ── for_box, value_for ─▶   │
//!                                   └── KeyProvider: a key file in the data folder, or a variable
//! ```
//!
//! What always holds:
//! - A row is sealed with AES-256-GCM under a random nonce. Scope, name, hosts, way of adding, revision
//!   and key id are authenticated with it, so a row that was moved or widened does not open.
//! - The key never lies in the database: a copy of the database alone gives no value away.
//! - Each change writes who made it in the same transaction, and never what the value was.
//! - Nothing is sealed under a second key while rows wait for one that is missing, so that a lost key
//!   file is noticed at once and putting it back mends everything.
//!
//! Absent on purpose: adding a value to a request (that is the way out of a box), an operation that
//! lists values, and short values, which could not be found again when output is redacted.

mod binding;
mod error;
mod key_file;
mod keys;
mod port;
mod seal;
mod value;
mod vault;

pub use binding::{AddedAs, BadSecret, SecretHost, SecretName, SecretScope};
pub use error::{KeyError, SecretsError, VaultError};
pub use key_file::FileKeys;
pub use keys::{Key, KeyId, KeyProvider, KeyRing, VariableKeys};
pub use port::{AuditAction, SealedSecret, SecretAudit, SecretLine, Secrets};
pub use seal::{Entropy, SystemEntropy};
pub use value::{MAX_SECRET_BYTES, MIN_SECRET_BYTES, Secret};
pub use vault::{Revealed, Rotated, SecretWish, Vault};

pub(crate) use port::{Change, effective, judge};
