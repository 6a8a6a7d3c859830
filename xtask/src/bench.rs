//! `cargo xtask bench …`: speed and memory, measured in that run, each figure beside its floor.
//!
//! Absent: figures from an earlier run, and a verdict. The numbers are for people and machines to
//! judge.

pub mod engine;
mod report;
pub mod sandbox;
mod scripted;
mod server;
mod stats;
mod timeline;
