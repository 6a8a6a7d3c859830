//! The turn state machine (pure) and the driver that runs its effects.
//!
//! A native agent is a loop outside the box: the model answers, the platform runs the tools that
//! the answer asks for, the results go back. Here it is split in two. [`conversation`] folds the
//! task's events into what the model has seen, and [`turn`] says what comes next from that and the
//! time; both are pure. [`native`] performs the one next thing, has it stored through a
//! [`port::Journal`] and looks again. So a restart in the middle of anything goes on from the last
//! stored event, and there is no second copy of the conversation that could differ.
//!
//! ```text
//! events ─fold→ Conversation ─next(limits, now)→ call the model | run a tool | ask | wait | end
//!    ↑                                                      │
//!    └── Journal: intent stored ← effect performed ← result stored
//! ```
//!
//! [`command`] is the other agent of this room: any program that edits a tree. Absent: who may
//! use which tool, when a task is done, and what the result is worth; an agent's word is never
//! evidence.

pub mod command;
pub mod conversation;
pub mod native;
pub mod port;
pub mod prompt;
pub mod tools;
pub mod turn;
