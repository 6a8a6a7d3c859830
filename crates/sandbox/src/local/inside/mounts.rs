//! The box's file tree: overlay, binds, `/proc`, `/dev`, and the change of root.
//!
//! Mounts are made detached and then put in place, so what needs the host's rights is opened by the
//! launcher and attached by the child. Absent: cleaning up (a box's mounts vanish with its mount
//! namespace) and host paths in what the box can read about its root.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_bind,
    mount_change, move_mount, open_tree, unmount,
};

use super::plan::{AtStep as _, Bind, Failed, RootMount, Step};
use super::sys;

/// Where the root is mounted before it is the root: in the box's own mount namespace, over the work
/// folder, that is there anyhow. A folder of its own would be one more to make and to take away.
pub const POINT: &str = "w";
/// What the box reads nothing from: levers, who and what the machine is, what helps to attack its
/// kernel, and counters from which one box can tell what another is doing. Left in sight are those
/// that builds read to size themselves and that system calls tell anyway: `cpuinfo`, `meminfo`,
/// `stat`, `loadavg`, `uptime`, `version`. Files that only the host's root may read need no mask;
/// some have one all the same, being worth two.
const MASKED: [&str; 18] = [
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// The same for folders: an empty one is seen.
const MASKED_FOLDERS: [&str; 4] = ["/proc/acpi", "/proc/asound", "/proc/pressure", "/proc/scsi"];
/// What it reads but does not write, whatever the files' own modes say.
const READ_ONLY: [&str; 4] = ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A detached overlay of `lowers` (topmost first), `u` and `w`, all relative to the working folder.
pub fn overlay(lowers: &[std::path::PathBuf], how: RootMount) -> Result<OwnedFd, Failed> {
    // Within a user namespace only `user.*` attributes may be written. By the host folders can be
    // renamed; the index stays off, it would tie an upper to the very lowers it began with.
    let options: &[(&str, Option<&str>)] = if how.by_host {
        &[("redirect_dir", Some("on")), ("index", Some("off")), ("metacopy", Some("off")), ("volatile", None)]
    } else {
        &[("userxattr", None), ("index", Some("off")), ("volatile", None)]
    };
    if how.classic { classic_overlay(lowers, options) } else { modern_overlay(lowers, options) }
}

fn modern_overlay(lowers: &[std::path::PathBuf], options: &[(&str, Option<&str>)]) -> Result<OwnedFd, Failed> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Overlay, || "fsopen overlay".into())?;
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", lower.as_path())
            .at(Step::Overlay, || format!("adding the layer {}", lower.display()))?;
    }
    for (name, folder) in [("upperdir", "u"), ("workdir", "w")] {
        fsconfig_set_string(&context, name, folder).at(Step::Overlay, || format!("setting {name}"))?;
    }
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *name, *value),
            None => fsconfig_set_flag(&context, *name),
        }
        .at(Step::Overlay, || format!("setting {name}"))?;
    }
    fsconfig_create(&context).at(Step::Overlay, || "creating the overlay".into())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(Step::Overlay, || "fsmount".into())
}

/// The same with one mount call: kernels before 6.8 know no `lowerdir+`.
fn classic_overlay(lowers: &[std::path::PathBuf], options: &[(&str, Option<&str>)]) -> Result<OwnedFd, Failed> {
    let lowers: Vec<String> = lowers.iter().map(|lower| lower.to_string_lossy().into_owned()).collect();
    let mut data = format!("lowerdir={},upperdir=u,workdir=w", lowers.join(":"));
    for (name, value) in options {
        data.push(',');
        data.push_str(name);
        data.extend(value.iter().flat_map(|value| ["=", *value]));
    }
    let data = std::ffi::CString::new(data).map_err(std::io::Error::from).at(Step::Overlay, || "options".into())?;
    mount("overlay", POINT, "overlay", MountFlags::NOSUID | MountFlags::NODEV, &*data)
        .at(Step::Overlay, || "mounting the overlay".into())?;
    let tree = tree(POINT.as_ref()).at(Step::Overlay, || "taking the overlay".into())?;
    unmount(POINT, UnmountFlags::DETACH).at(Step::Overlay, || "detaching the overlay".into())?;
    Ok(tree)
}

fn tree(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}

/// A detached read-only view of a host path.
pub fn read_only(from: &Path) -> Result<OwnedFd, Failed> {
    let view = tree(from).at(Step::Bind, || format!("opening {}", from.display()))?;
    sys::make_read_only(&view).at(Step::Bind, || format!("making {} read-only", from.display()))?;
    Ok(view)
}

/// Puts a detached mount in place.
pub fn attach(view: &OwnedFd, at: &Path, step: Step) -> Result<(), Failed> {
    move_mount(view, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(step, || format!("attaching at {}", at.display()))
}

/// Cuts this mount namespace off from the host's.
pub fn make_private() -> Result<(), Failed> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .at(Step::Pivot, || "making mounts private".into())
}

/// Attaches binds. After the pivot, because an agent may have put links in the way in an earlier
/// life of the box; now they lead nowhere but into the box.
pub fn attach_binds(binds: &[(Bind, OwnedFd)]) -> Result<(), Failed> {
    for (bind, view) in binds {
        if bind.make && !bind.at.exists() {
            make_point(view, &bind.at).at(Step::Bind, || format!("making {}", bind.at.display()))?;
        }
        attach(view, &bind.at, Step::Bind)?;
    }
    Ok(())
}

/// An empty folder or file to mount on, like what will be mounted.
fn make_point(view: &OwnedFd, at: &Path) -> std::io::Result<()> {
    if FileType::from_raw_mode(rustix::fs::fstat(view)?.st_mode) == FileType::Directory {
        return fs::create_dir_all(at);
    }
    at.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::OpenOptions::new().create(true).append(true).open(at).map(drop)
}

/// What is opened while the host's tree is still in sight, to be attached when it is not.
pub struct FromHost {
    proc: OwnedFd,
    devices: Vec<(&'static str, OwnedFd)>,
}

/// Opens the devices, and makes the `/proc` of the new pid namespace: the kernel gives no clearer
/// view of it than is in sight already.
pub fn from_host() -> Result<FromHost, Failed> {
    let doing = || "making /proc".to_owned();
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Proc, doing)?;
    fsconfig_create(&context).at(Step::Proc, doing)?;
    let quiet =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, quiet).at(Step::Proc, doing)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let device = |name: &'static str| {
        let opened = open_tree(CWD, Path::new("/dev").join(name), flags);
        opened.at(Step::Dev, || format!("opening /dev/{name}")).map(|view| (name, view))
    };
    Ok(FromHost { proc, devices: DEVICES.into_iter().map(device).collect::<Result<_, _>>()? })
}

/// `/proc`, and a `/dev` with nothing but what programs expect. After the pivot.
pub fn proc_and_dev(from_host: &FromHost) -> Result<(), Failed> {
    attach(&from_host.proc, "/proc".as_ref(), Step::Proc)?;
    let doing = || "making /dev".to_owned();
    let options = c"mode=755,size=64k,nr_inodes=256";
    mount("tmpfs", "/dev", "tmpfs", MountFlags::NOSUID, options).at(Step::Dev, doing)?;
    for (name, view) in &from_host.devices {
        let at = Path::new("/dev").join(name);
        rustix::fs::open(&at, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o666))
            .at(Step::Dev, doing)?;
        attach(view, &at, Step::Dev)?;
    }
    for folder in ["/dev/pts", "/dev/shm"] {
        fs::create_dir(folder).at(Step::Dev, doing)?;
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "/dev/pts", "devpts", quiet, c"newinstance,ptmxmode=0666,mode=620")
        .at(Step::Dev, || "mounting /dev/pts".into())?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount("shm", "/dev/shm", "tmpfs", quiet, c"mode=1777,size=512m").at(Step::Dev, || "mounting /dev/shm".into())?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, to) in links {
        symlink(to, Path::new("/dev").join(name)).at(Step::Dev, doing)?;
    }
    Ok(())
}

/// Makes the working folder the root and loses sight of the old one.
pub fn pivot() -> Result<(), Failed> {
    rustix::process::pivot_root(".", ".").at(Step::Pivot, || "pivot_root".into())?;
    unmount(".", UnmountFlags::DETACH).at(Step::Pivot, || "letting go of the host's tree".into())?;
    std::env::set_current_dir("/").at(Step::Pivot, || "entering the new root".into())
}

/// Hides what `/proc` tells about the machine, and keeps its levers from being moved. After the pivot.
pub fn mask() -> Result<(), Failed> {
    for path in READ_ONLY.map(Path::new) {
        let view = match tree(path) {
            // A kernel that has no such file.
            Err(Errno::NOENT) => continue,
            other => other.at(Step::Proc, || format!("opening {}", path.display()))?,
        };
        sys::make_read_only(&view).at(Step::Proc, || format!("making {} read-only", path.display()))?;
        attach(&view, path, Step::Proc)?;
    }
    let empty = Path::new("/dev/.empty");
    for path in MASKED_FOLDERS.map(Path::new).into_iter().filter(|path| path.exists()) {
        if !empty.exists() {
            fs::create_dir(empty).at(Step::Proc, || "making an empty folder".into())?;
        }
        attach(&read_only(empty)?, path, Step::Proc)?;
    }
    for path in MASKED {
        match mount_bind("/dev/null", path) {
            Err(Errno::NOENT) => {}
            other => other.at(Step::Proc, || format!("hiding {path}"))?,
        }
    }
    Ok(())
}
