//! The contract of a sandbox provider, over the local provider as this user and, when this user is
//! root, once more as an ordinary one. What cannot be tried here is named on standard error with
//! `NOT RUN:`. Absent: timed assertions; figures come from the example `measure`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

mod commands;
mod disk;
mod door;
mod files;
mod killed;
mod launchers;
mod layers;
mod life;
mod rest;
mod roots;
mod upkeep;
mod walls;
mod work;
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
        world::not_run("the contract as an ordinary user", "the build folder cannot be entered by other users");
        return;
    }
    // As root the suite drops its own user; std also drops the supplementary groups.
    let status = Command::new(program)
        .args(["--skip", "all_of_this_holds_for_an_ordinary_user_too", "--test-threads", "2"])
        .uid(world::ORDINARY_USER)
        .gid(world::ORDINARY_USER)
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .env(world::BASE_VARIABLE, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "the contract does not hold for an ordinary user; its report is above");
}
