//! The launcher: turns a plan into a running box, then is gone.
//!
//! A program of its own (our binary, started with [`crate::local::LAUNCHER_WORD`]), because
//! namespaces need a process with one thread. It reads a [`Plan`] from its input and writes one
//! [`Report`] per line to its output, which closes when the child is the hand.
//!
//! ```text
//! launcher (host)    socket, groups, mounts that need the host's rights → clone → id maps │ pid file │
//!   └ child (new user, mount, pid, net, ipc, uts and cgroup namespaces)
//!       waits for the maps → root, pivot, /proc, /dev → waits for the pid file → binds, masks, loopback
//!       → limits, capabilities, walls → is the hand
//! ```
//!
//! To start a program and link it takes longer than all that a launcher does, so the control plane
//! keeps one that serves: it waits for sockets and forks a launcher for each ([`serve`]).
//!
//! The launcher dies with the control plane that started it. If that is before the pid file is
//! written, the child reads the end of its pipe and exits: no box exists that is not written down. Absent:
//! decisions (the plan holds them all) and threads.

mod confine;
mod filter;
mod landlock;
mod launch;
mod mounts;
mod plan;
mod root;
mod serve;
mod sys;

pub use landlock::version as landlock_version;
pub use launch::launcher_main;
pub use plan::{Bind, Failed, IdMap, Plan, Report, RootMount, Step};
pub use serve::hand_over;
