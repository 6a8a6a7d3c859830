//! The only way out of a sandbox: allow-list, credential injection, metering, audit.
//!
//! A box has no network interface but loopback and no resolver. On the host stands one [`Door`] for
//! each box: a unix socket in a folder that is mounted into the box, speaking the HTTP proxy
//! protocol. A request takes one path through this room, and each step can only refuse:
//!
//! ```text
//! bytes ── hyper ── target, path: one reading each ── AllowList: a Grant or a Denial
//!       ── placeholders, the commands of a push ── resolve once, judge every address, dial that one
//!       ── the secret is added ── far side ── the answer, searched for the secret ── box
//!       └─ whatever happened: exactly one EgressRecord
//! ```
//!
//! What is absent: any default that allows anything; names of registries; storage (records go to an
//! [`Audit`]); the clock and the environment, which are arguments; the forwarder inside the box.

mod address;
mod audit;
mod authority;
mod decide;
mod denial;
mod door;
mod git;
mod headers;
mod hello;
mod inject;
mod list;
mod meter;
mod pace;
mod path;
mod redact;
mod resolve;
mod secret;
mod settings;
mod target;

pub use address::{Reach, reach};
pub use audit::{Audit, Clock, EgressRecord};
pub use authority::{AuthorityError, BoxAuthority};
pub use decide::{Asked, Grant, Tunnel};
pub use denial::Denial;
pub use door::{Door, DoorConfig, DoorError, Limits, SOCKET_NAME, TrustError, UpstreamTls};
pub use git::{Commands, MAX_COMMANDS_BYTES, read_commands};
pub use hello::{Hello, MAX_HELLO_BYTES, read_hello};
pub use list::{AllowEntry, AllowList, BoundSecret, EntryProblem, ListError, Scheme, SecretAs};
pub use path::{CleanPath, PathError, PathPattern};
pub use redact::{KnownValues, MAX_VALUE_BYTES, MIN_VALUE_BYTES, Mask, RedactError, Redactor};
pub use resolve::{Resolver, SystemResolver};
pub use secret::{NoSecrets, PLACEHOLDER_PREFIX, Secret, SecretError, SecretSource, placeholder};
pub use settings::{BoxSettings, BoxSettingsFor, box_settings};
pub use target::{Authority, Host, Target, TargetError};
