//! The nouns, the events, `fold(events) -> Task` and `plan(&Task, now) -> Vec<Action>`.
//!
//! Pure: no I/O, no clock, no randomness. `now` and ids come in as arguments, so the embedded
//! engine, a test and a workflow engine of another make can all run the same plan. The life of a
//! task in this room:
//!
//! ```text
//! command ─decide→ events ─fold→ Task ─plan(now)→ actions ─(orchestrator)→ events ─fold→ …
//! ```
//!
//! Absent on purpose: what a gate's result amounts to (`gates`), what may land (`policy`), the
//! conversation with the model (`agent`), and every word about how an effect is carried out.

pub mod command;
pub mod contract;
pub mod effect;
pub mod event;
pub mod evidence;
pub mod fold;
pub mod id;
pub mod plan;
pub mod principal;
pub mod state;
pub mod step;
pub mod summary;
pub mod task;

pub use fold::{Illegal, fold};
pub use plan::{Action, plan};
