//! The launcher's two halves, before and after the clone.
//!
//! Absent: what each step does (see the neighbours).

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

use super::plan::{AtStep as _, Bind, Failed, Plan, Report, Step};
use super::sys::Side;
use super::{confine, mounts, root, serve, sys};
use crate::local::process::Identity;

/// Runs the launcher: reads a plan from standard input, reports on standard output. If standard input
/// is a socket, serves plans instead until it is closed (see `serve`). Gives the exit code. Has to be
/// called before the program has started a thread.
#[must_use]
pub fn launcher_main() -> i32 {
    if serve::is_asked_for() {
        return serve::serve();
    }
    let Ok(report) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 10) else { return 1 };
    let plan = read_plan(io::stdin());
    let tied = plan.and_then(|plan| {
        die_with_parent(plan.parent).at(Step::Plan, || "tying the launcher to its parent".into())?;
        Ok(plan)
    });
    ended(tied.and_then(|plan| launch(&plan, &report)), &report)
}

/// Runs the launcher for whoever holds the other end of a socket, and no longer than they do: reads a
/// plan to the end of what they send, reports on the same socket. Gives the exit code.
pub fn launch_for(caller: OwnedFd) -> i32 {
    let mut caller = UnixStream::from(caller);
    let plan = read_plan(&mut caller);
    let caller = OwnedFd::from(caller);
    let tied = plan.and_then(|plan| {
        die_with_caller(&caller).at(Step::Plan, || "tying the launcher to its caller".into())?;
        Ok(plan)
    });
    ended(tied.and_then(|plan| launch(&plan, &caller)), &caller)
}

fn ended(outcome: Result<(), Failed>, report: &OwnedFd) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(failed) => {
            say(report, &Report::Failed(failed));
            1
        }
    }
}

fn read_plan(mut from: impl Read) -> Result<Plan, Failed> {
    let mut text = String::new();
    from.read_to_string(&mut text).at(Step::Plan, || "reading the plan".into())?;
    serde_json::from_str(&text).map_err(io::Error::from).at(Step::Plan, || "understanding the plan".into())
}

fn say(report: &OwnedFd, what: &Report) {
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    let _ = rustix::io::write(report, &line);
}

/// What the child is given by its parent.
struct Prepared {
    listener: OwnedFd,
    /// The root, if it was mounted by the host.
    root: Option<OwnedFd>,
    host: Option<HostViews>,
}

/// Read-only views of host folders, opened while the host's tree is in sight.
struct HostViews {
    binds: Vec<(Bind, OwnedFd)>,
    /// Handed over to the hand, attached nowhere.
    door: Option<OwnedFd>,
}

fn launch(plan: &Plan, report: &OwnedFd) -> Result<(), Failed> {
    std::env::set_current_dir(&plan.run).at(Step::Plan, || format!("entering {}", plan.run.display()))?;
    let _ = fs::remove_file("hand.sock");
    let listener = UnixListener::bind("hand.sock").at(Step::Socket, || "binding the hand's socket".into())?;
    prefer_the_hand();
    join_groups(plan)?;
    let mut prepared = Prepared { listener: listener.into(), root: None, host: None };
    if plan.root.by_host {
        if plan.root.classic {
            // The classic call mounts at a place; nobody else is to see it there.
            private_mounts()?;
        }
        prepared.root = Some(mounts::overlay(&plan.lowers, plan.root)?);
        prepared.host = Some(open_views(plan)?);
    }
    let (waits, go) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::Namespaces, || "making a pipe".into())?;
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    match sys::clone_into_namespaces(flags).at(Step::Namespaces, || "making the namespaces".into())? {
        Side::Child => {
            drop(go);
            let failed = match become_box(plan, prepared, &waits, report) {
                Ok(never) => match never {},
                Err(failed) => failed,
            };
            say(report, &Report::Failed(failed));
            std::process::exit(1);
        }
        Side::Parent(pid) => {
            drop(waits);
            let go_on =
                || rustix::io::write(&go, b"g").at(Step::Namespaces, || "letting the box go on".into()).map(drop);
            let mapped = write_maps(plan, pid).and_then(|()| go_on());
            let done = mapped.and_then(|()| write_pid(plan, pid)).and_then(|()| go_on());
            match done {
                Ok(()) => {
                    say(report, &Report::Running { pid });
                    Ok(())
                }
                Err(failed) => {
                    // The end of the pipe tells the child to go.
                    drop(go);
                    let _ = rustix::process::waitpid(Pid::from_raw(pid), rustix::process::WaitOptions::empty());
                    Err(failed)
                }
            }
        }
    }
}

/// A launcher whose control plane is gone would finish a start that somebody else has cleaned up
/// after. The parent's thread waits for the launcher, so the signal comes only if all of it is gone.
fn die_with_parent(parent: i32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid().map(Pid::as_raw_nonzero).is_some_and(|pid| pid.get() == parent) {
        return Ok(());
    }
    Err(io::Error::other("the parent is gone"))
}

/// The same without being a child of the caller: the socket closes with all of its process.
fn die_with_caller(caller: &OwnedFd) -> io::Result<()> {
    sys::die_when_closed(caller)?;
    // It may have been closed before.
    let mut fds = [PollFd::new(caller, PollFlags::empty())];
    rustix::event::poll(&mut fds, Some(&Timespec::default()))?;
    let [socket] = fds;
    if socket.revents().contains(PollFlags::HUP) {
        return Err(io::Error::other("the caller is gone"));
    }
    Ok(())
}

/// What the box starts with, the hand inherits and puts back for each command: among two thousand
/// processes that are all busy, the one that can end them is not to wait for its turn. Only root can.
fn prefer_the_hand() {
    if rustix::process::getpriority_process(None) == Ok(0) {
        let _ = rustix::process::setpriority_process(None, -10);
    }
}

#[expect(deprecated, reason = "the launcher has one thread, so its file descriptors are nobody else's")]
fn private_mounts() -> Result<(), Failed> {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)
        .at(Step::Overlay, || "making a mount namespace".into())?;
    mounts::make_private()
}

fn join_groups(plan: &Plan) -> Result<(), Failed> {
    for group in &plan.groups {
        let doing = || format!("making the control group {}", group.folder.display());
        match fs::create_dir(&group.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.at(Step::Groups, doing)?,
        }
        for (file, value) in &group.settings {
            let optional = file.ends_with('?');
            let path = group.folder.join(file.trim_end_matches('?'));
            match fs::write(&path, value) {
                Err(_) if optional => {}
                other => other.at(Step::Groups, || format!("writing {value} to {}", path.display()))?,
            }
        }
        fs::write(group.folder.join(&group.join), "0").at(Step::Groups, doing)?;
    }
    Ok(())
}

fn open_views(plan: &Plan) -> Result<HostViews, Failed> {
    let binds = plan.binds.iter().cloned();
    let binds = binds.map(|bind| mounts::read_only(&bind.from).map(|view| (bind, view))).collect::<Result<_, _>>()?;
    let door = plan.door.as_deref().map(mounts::read_only).transpose()?;
    Ok(HostViews { binds, door })
}

fn write_maps(plan: &Plan, pid: i32) -> Result<(), Failed> {
    let write = |file: &str, text: String| {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, &text).at(Step::IdMaps, || format!("writing `{text}` to {file} of the box"))
    };
    if plan.ids.count == 1 {
        write("setgroups", "deny".into())?;
    }
    write("uid_map", format!("0 {} {}", plan.ids.outer_uid, plan.ids.count))?;
    write("gid_map", format!("0 {} {}", plan.ids.outer_gid, plan.ids.count))
}

fn write_pid(plan: &Plan, pid: i32) -> Result<(), Failed> {
    let identity = Identity::of(pid)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .at(Step::PidFile, || "looking at the box's first process".into())?;
    let text = format!("{} {} {}\n", identity.pid, identity.started, plan.boot);
    fs::write("pid.new", text).at(Step::PidFile, || "writing the pid file".into())?;
    fs::rename("pid.new", "pid").at(Step::PidFile, || "replacing the pid file".into())
}

/// From a fresh clone to the hand, which this process then is. Comes back only with what failed.
///
/// No program is started, which saves a millisecond, needs no loader in the box's root, and leaves the
/// process in the hands of the namespace that its program was started in: to the box, its folder in
/// `/proc` belongs to somebody else.
fn become_box(
    plan: &Plan,
    prepared: Prepared,
    waits: &OwnedFd,
    report: &OwnedFd,
) -> Result<std::convert::Infallible, Failed> {
    wait_for_go(waits)?;
    mounts::make_private()?;
    let (root, host) = match (prepared.root, prepared.host) {
        (Some(root), Some(host)) => (root, host),
        _ => (mounts::overlay(&plan.lowers, plan.root)?, open_views(plan)?),
    };
    mounts::attach(&root, mounts::POINT.as_ref(), Step::Overlay)?;
    std::env::set_current_dir(mounts::POINT).at(Step::Overlay, || "entering the overlay".into())?;
    become_root(plan)?;
    let from_host = mounts::from_host()?;
    mounts::pivot()?;
    mounts::proc_and_dev(&from_host)?;
    // Meanwhile it was written down. Until then nothing of the box's files is touched.
    wait_for_go(waits)?;
    mounts::attach_binds(&host.binds)?;
    drop((from_host, host.binds));
    if plan.own_root {
        root::runs_here()?;
    }
    confine::namespaces()?;
    mounts::mask()?;
    sys::loopback_up().at(Step::Loopback, || "bringing the loopback interface up".into())?;
    let doing = || format!("entering {}", plan.workdir.display());
    fs::create_dir_all(&plan.workdir).at(Step::Root, doing)?;
    std::env::set_current_dir(&plan.workdir).at(Step::Root, doing)?;
    confine::confine(plan)?;
    // Whoever waits for it asks the socket next, which takes what comes before the hand does.
    say(report, &Report::Ready);
    sys::quiet(&[Some(&prepared.listener), host.door.as_ref()])
        .at(Step::Hand, || "letting go of the launcher's descriptors".into())?;
    // Nobody is left to be told of a failure; the box then ends, and is found not to answer.
    let setup = hand::Setup {
        listener: prepared.listener,
        door: host.door,
        home: plan.workdir.clone(),
        env: plan.env.clone(),
        file_bytes: plan.file_bytes,
    };
    std::process::exit(i32::from(hand::run(setup).is_err()))
}

/// Waits for the launcher to have done its next part; without a launcher nothing goes on.
fn wait_for_go(waits: &OwnedFd) -> Result<(), Failed> {
    let mut byte = [0_u8; 1];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(waits, &mut byte));
    if read.at(Step::Namespaces, || "waiting for the launcher".into())? == 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// From the host's user to the box's root.
fn become_root(plan: &Plan) -> Result<(), Failed> {
    use rustix::process::{Gid, Uid};
    let doing = || "becoming the box's root".to_owned();
    if plan.ids.count > 1 {
        rustix::thread::set_thread_groups(&[]).at(Step::IdMaps, doing)?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at(Step::IdMaps, doing)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at(Step::IdMaps, doing)
}
