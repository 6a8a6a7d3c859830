//! The local provider: namespaces on this machine's kernel, an overlay per box.
//!
//! A start is one run of the launcher ([`launcher_main`], a process of its own because namespaces need
//! a process with one thread; one that is kept forks it for each box); afterwards the box belongs to
//! nobody: it outlives the control plane and is found again by its folder ([`Provider::list`](crate::port::Provider::list),
//! [`Provider::attach`](crate::port::Provider::attach)). Works as root (a range of users, folders
//! of layers can be renamed) and as an ordinary user (one user, no control groups unless they are
//! delegated). Absent: any network but loopback; a daemon; files of the host beyond an allow-list
//! of programs ([`toolchains`]).

mod boxes;
mod cgroup;
mod chores;
mod explain;
mod flatten;
mod host_file;
mod inside;
mod launchers;
mod layers;
mod layout;
mod process;
mod provider;
mod sandbox;
mod search;
mod shelf;
mod skeleton;
mod snapshots;
mod stack;
mod suspend;
pub mod toolchains;
mod usage;
mod watch;

pub use inside::launcher_main;
pub use provider::{LocalConfig, LocalProvider};
pub use toolchains::{Toolchain, Toolchains};

/// First argument with which the product's binary runs [`launcher_main`].
pub const LAUNCHER_WORD: &str = "__box";
