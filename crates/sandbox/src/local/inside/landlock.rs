//! The second wall around a box's files, behind the mount namespace: Landlock.
//!
//! Whatever way a program finds to a file that does not lie beneath the box's root (a descriptor
//! that was left open, a path through somebody else's `/proc`), the kernel refuses it. Devices take
//! requests beneath `/dev` only. Processes of the box reach no abstract socket and signal no process
//! outside of it. A kernel without Landlock, or with an older one, gives what it has; a provider
//! says so in its capabilities. Absent: rules inside the box (its root is its own), and the network
//! (ports on loopback are the box's own too).

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};

use super::plan::{AtStep as _, Failed, Step};
use super::sys;

/// Access rights of files: those of the first version, and what later ones brought.
const FIRST: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Abstract sockets and signals.
const SCOPES: u64 = 3;

/// The kernel's version of Landlock; 0 if there is none, or it is switched off.
pub fn version() -> u32 {
    sys::landlock_version()
}

/// The rights that a version knows.
const fn rights(version: u32) -> u64 {
    let mut rights = FIRST;
    if version >= 2 {
        rights |= REFER;
    }
    if version >= 3 {
        rights |= TRUNCATE;
    }
    if version >= 5 {
        rights |= IOCTL_DEV;
    }
    rights
}

/// Keeps this thread, and all that comes from it, beneath `root`; requests to devices work beneath
/// `devices`. True if a wall stands. Needs no-new-privileges.
pub fn restrict(root: &OwnedFd, devices: &OwnedFd) -> std::io::Result<bool> {
    let version = version();
    if version == 0 {
        return Ok(false);
    }
    let all = rights(version);
    let ruleset = sys::landlock_ruleset(all, if version >= 6 { SCOPES } else { 0 })?;
    sys::landlock_allow(&ruleset, root, all & !IOCTL_DEV)?;
    sys::landlock_allow(&ruleset, devices, all)?;
    sys::landlock_enter(&ruleset)?;
    Ok(true)
}

/// The wall of a box, from inside of it.
pub fn around_the_box() -> Result<(), Failed> {
    let doing = || "setting up Landlock".to_owned();
    let folder =
        |path: &str| rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let (root, devices) = (folder("/").at(Step::Confine, doing)?, folder("/dev").at(Step::Confine, doing)?);
    restrict(&root, &devices).at(Step::Confine, doing).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_file_outside_is_refused_even_through_a_descriptor_that_was_open_before() {
        if version() == 0 {
            // Named by the contract suite too.
            return eprintln!("NOT RUN: Landlock keeps a thread beneath its root: this kernel has none");
        }
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&inside, &outside] {
            std::fs::write(folder.path().join("file"), "x").unwrap();
        }
        let open = |path: &std::path::Path| {
            rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
        };
        let (root, left_open) = (open(inside.path()), open(outside.path()));
        // Landlock holds for a thread: this one, not the others of the test program.
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            assert!(restrict(&root, &root).unwrap());
            let read = |at: &OwnedFd, path: &str| rustix::fs::openat(at, path, OFlags::RDONLY, Mode::empty()).map(drop);
            let write =
                |at: &OwnedFd| rustix::fs::openat(at, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).map(drop);
            assert_eq!((read(&root, "file"), write(&root)), (Ok(()), Ok(())));
            assert_eq!((read(&left_open, "file"), write(&left_open)), (Err(Errno::ACCESS), Err(Errno::ACCESS)));
            assert_eq!(read(&root, "/etc/passwd"), Err(Errno::ACCESS));
            assert_eq!(rustix::fs::renameat(&root, "file", &root, "moved"), Ok(()));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_older_version_is_asked_for_nothing_that_it_does_not_know() {
        assert_eq!((rights(1), rights(2), rights(3), rights(4)), (0x1fff, 0x3fff, 0x7fff, 0x7fff));
        assert_eq!((rights(5), rights(9)), (0xffff, 0xffff));
    }
}
