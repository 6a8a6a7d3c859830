//! The hand: the small process that is pid 1 inside a sandbox, and the protocol it speaks.
//!
//! The brain (the control plane) is outside the box. It connects to a unix socket whose file lies
//! outside too, so that nothing in the box can find it; the hand is given only the listening
//! descriptor, and is no program of its own: the launcher's child becomes it ([`run`]). Over a connection come requests ([`wire::Request`]), back come replies and raw
//! output ([`frame`]). One connection serves one request after the other; several connections run
//! side by side.
//!
//! What it promises:
//!
//! * **A command with a given exec id runs at most once** in the life of a box. A second request
//!   with the same id follows the first from its beginning, also after it has ended ([`ledger`]).
//! * **A lost connection kills nothing.** The command goes on, its output is kept, and a later
//!   request with its id gets all of it. What is kept is dropped when the brain acknowledges, or,
//!   the oldest first, when commands that are over keep more than 32 MiB together; the ending itself
//!   is kept for ever, and says that output was dropped.
//! * **What is kept is the box's own burden.** Up to 64 KiB of a command lie in the hand's memory,
//!   which counts against the box's memory limit; more lies in a nameless file in the box's `/tmp`,
//!   with the box's other files, and goes with the box.
//! * **An end by time limit, output cap or request ends the whole tree**: process group, session,
//!   descendants, and orphans that called `setsid` ([`tree`]). The reply is sent when they are dead.
//!   Processes that a command leaves in the background after an ordinary exit go on running
//!   (a development server, say); killing the exec id ends them.
//!
//! * **The way out is a port on loopback**, if the launcher hands a door over: bytes are carried to
//!   the proxy outside, and held while it is away ([`door`]).
//!
//! Deliberately absent: threads other than the door's, an async runtime, any privilege of its own (it lives behind the
//! same filter and capabilities as what it runs), any other network, any configuration file, any secret.

mod command;
pub mod door;
mod entry;
mod files;
pub mod frame;
mod ledger;
mod os;
mod output;
mod peer;
mod serve;
mod spool;
mod tree;
pub mod wire;

pub use entry::{Setup, run};
