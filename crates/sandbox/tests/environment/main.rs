//! Environments on the local provider: imports, builds, the registry; as this user and, when this
//! user is root, once more as an ordinary one. What cannot be tried here is named on standard error
//! with `NOT RUN:`. Absent: recipes as text, which need no box.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

mod archive;
mod builds;
mod images;
mod imports;
mod kills;
mod records;
#[allow(dead_code, reason = "the verbs of the contract suite; not all are needed here")]
#[path = "../contract/world.rs"]
mod world;

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

#[test]
fn all_of_this_holds_for_an_ordinary_user_too() {
    if !world::is_root() {
        return;
    }
    let folder = tempfile::Builder::new().prefix("ordinary").tempdir_in(world::base()).unwrap();
    chown(folder.path(), Some(world::ORDINARY_USER), Some(world::ORDINARY_USER)).unwrap();
    let program = std::env::current_exe().unwrap();
    let reachable = Command::new("/bin/true").uid(world::ORDINARY_USER).current_dir(folder.path()).status();
    if !reachable.is_ok_and(|status| status.success()) {
        world::not_run("environments as an ordinary user", "the build folder cannot be entered by other users");
        return;
    }
    let status = Command::new(program)
        .args(["--skip", "all_of_this_holds_for_an_ordinary_user_too", "--test-threads", "2"])
        .uid(world::ORDINARY_USER)
        .gid(world::ORDINARY_USER)
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .env(world::BASE_VARIABLE, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "environments do not work for an ordinary user; the report is above");
}
