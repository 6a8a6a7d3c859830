//! The only writer of task state: plans, performs, records, retries, cancels.
//!
//! ```text
//! submit, command ──Handle──→ log::record ──→ store        (one append is the commit point)
//!                                  │ wake
//! Engine ─ one Runner per task ─ plan → act → record → plan …
//!            RunAgent → agent (native, command)   Perform → effects   Judge → gates   Decide, Land → policy
//! ```
//!
//! Every deed is stored as an intent before and a result after it. Absent on purpose: decisions
//! (they are pure and live in `domain::plan`, `agent::turn`, `gates` and `policy`), HTTP, and any
//! knowledge of which store, sandbox, forge or model stands behind a port.

mod boxes;
mod build_log;
mod building;
mod builds;
mod catalog;
mod choice;
mod collect;
mod compare;
mod doors;
mod effects;
mod engine;
mod environment;
mod failure;
mod files;
mod fork;
mod handle;
mod hub;
mod journal;
mod keeping;
mod live;
mod log;
mod network;
mod place;
mod ports;
mod request;
mod run;
mod work;

pub use catalog::{EnvironmentError, RecipeView};
pub use doors::{Outside, Trust};
pub use engine::Engine;
pub use fork::ForkWish;
pub use handle::{DiffFile, Handle, TaskDiff};
pub use live::{Live, LiveHub};
pub use network::{NetworkSettings, check as check_network};
pub use place::EnvironmentSettings;
pub use ports::{ChosenModel, Clock, Models, Ports, Random, Settings};
pub use request::{CommandError, ForkError, MAX_GOAL_CHARS, Submission, SubmitError, Submitted};
pub use sandbox::environment::registry::{Record as EnvironmentRecord, State as EnvironmentState};
