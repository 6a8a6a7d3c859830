//! Events, the list of tasks, leases and blobs: small ports by role, and what stands behind them.
//!
//! ```text
//!   EventLog   append = the one commit point; read, verify
//!   TaskIndex  lists, prefixes, wake-ups: derived, written in the same transaction as the events
//!   Leases     who works on a task; an append under an old epoch is refused
//!   Blobs      bytes by their digest
//!   Secrets    credentials, sealed, and who changed them; the vault over it has the keys
//! ```
//!
//! [`sqlite::open`] keeps all of it in one folder, [`memory::open`] in this process. What an append
//! means is decided in one place (`ledger`, pure) for both; the back ends only load and write.
//!
//! What always holds:
//! - An acknowledged append is on the disk (SQLite: WAL, `synchronous=FULL`, ack after the commit).
//! - Events are stored as the bytes given and chained by hash; `verify` recomputes the chain. Whoever
//!   can write the file can also compute a new chain: that takes an anchor outside, which is not here.
//! - After a failed commit or sync nothing more is written: the first error is given to all.
//! - A full disk refuses appends and nothing else; appends go on when there is room. What ends a task
//!   is stored on a full disk too, in room that was kept back.
//!
//! Absent on purpose: a clock (`now` is an argument), SQL for callers, any knowledge of what the
//! events mean, and wake-up signals (the orchestrator knows what it appended).

mod error;
mod ledger;
pub mod memory;
mod ports;
pub mod secrets;
pub mod sqlite;

pub use error::{
    AppendError, BlobError, ChainBroken, Fault, LeaseError, OpenError, ReadError, ResolveError, VerifyError,
};
pub use ports::{
    Append, Appended, Blobs, EventLog, Filter, Head, Idempotency, Lease, Leases, Lifeline, Store, StoredEvent,
    StoredKey, TaskIndex, Verified,
};

pub use secrets::{Secret, Secrets, Vault, VaultError};

/// Most bytes of one stored event. Larger outputs belong in a blob.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of one blob.
pub const MAX_BLOB_BYTES: usize = 64 * 1024 * 1024;
