//! Sandboxes: the port that every provider meets ([`port`]), the local provider ([`local`]), and
//! what boxes start from ([`environment`]).
//!
//! A sandbox is the brain's hands: it runs commands and holds files, and nothing of the task's
//! state lives in it. What a provider cannot do on this machine it says in
//! [`port::Capabilities`]; it never pretends. Deliberately absent: git, agents, gates, who
//! listens at a box's way out (without one it has no network at all), and any reading of the
//! environment or the clock.

mod capabilities;
pub(crate) mod client;
pub mod environment;
pub mod error;
pub mod limits;
pub mod local;
pub mod port;
mod walk;

pub use error::{Advice, Problem, SandboxError};
pub use port::{
    Capabilities, CgroupSupport, Ended, Entry, EntryKind, ExecOutcome, ExecRequest, FileBytes, FoundBytes, Isolation,
    Limits, Listing, OutputChunk, OutputSink, Owners, Provider, ReadOnlyBind, Root, Sandbox, SandboxInfo, SnapshotRef,
    Staging, StartSpec, Started, StartedAs, Stream, UidMap, Usage,
};
