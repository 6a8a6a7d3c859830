//! The peer: an overlay mounted the plain way, and bubblewrap with all namespaces on it.
//!
//! The overlay is mounted by the program `mount`, as a script does it, or by one system call, which
//! is the best that can be done around bubblewrap. Runs in a process of its own ([`main`], a mount namespace of its own, so that nothing stays
//! mounted), which starts one box for each line that it is sent ([`Peer::once`]) and answers with
//! the nanoseconds from before it made the upper folder to the first byte of output. An ordinary
//! user mounts in a user namespace. Absent: limits, filters and a hand, all of which ours has.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use sandbox::local::toolchains::SYSTEM;

use crate::report::Outcome;
use crate::world::Tree;

/// The word by which this program is the peer's starter.
pub const WORD: &str = "peer";

/// How the overlay comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// `mount -t overlay`.
    ByProgram,
    /// `mount(2)`.
    ByCall,
}

impl Mounted {
    const fn word(self) -> &'static str {
        match self {
            Self::ByProgram => "program",
            Self::ByCall => "call",
        }
    }
}

/// The peer's starter, from the side of the measurement.
pub struct Peer {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts it; it works in `folder`, which it makes.
    pub fn start(bwrap: &Path, folder: &Path) -> Outcome<Self> {
        std::fs::DirBuilder::new().mode(0o700).create(folder)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WORD).arg(bwrap).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let to = process.stdin.take().ok_or("no pipe to the peer")?;
        let from = BufReader::new(process.stdout.take().ok_or("no pipe from the peer")?);
        let mut peer = Self { process, to, from };
        // The first ones read the programs from the disk.
        for mounted in [Mounted::ByProgram, Mounted::ByCall] {
            peer.once(mounted)?;
        }
        Ok(peer)
    }

    /// One start, to the first byte of output.
    pub fn once(&mut self, mounted: Mounted) -> Outcome<Duration> {
        writeln!(self.to, "{}", mounted.word()).map_err(|_| "bubblewrap does not work here; see above")?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        let nanos = answer.trim().parse().map_err(|_| "bubblewrap does not work here; see above")?;
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The starter itself: `BWRAP FOLDER`.
pub fn main(words: &[OsString]) -> Outcome {
    let [bwrap, folder] = words else { return Err("the peer needs bubblewrap and a folder".into()) };
    let starter = Starter::new(bwrap.into(), folder.into())?;
    for (round, line) in std::io::stdin().lines().enumerate() {
        let mounted = if line? == Mounted::ByCall.word() { Mounted::ByCall } else { Mounted::ByProgram };
        println!("{}", starter.once(round, mounted)?.as_nanos());
    }
    Ok(())
}

struct Starter {
    bwrap: PathBuf,
    folder: PathBuf,
    options: &'static str,
}

impl Starter {
    fn new(bwrap: PathBuf, folder: PathBuf) -> Outcome<Self> {
        Tree { files: 200, bytes: 800 }.write(&folder.join("lower/workspace"))?;
        let root = rustix::process::geteuid().is_root();
        enter_namespaces(root)?;
        let options = if root { "volatile" } else { "userxattr,volatile" };
        Ok(Self { bwrap, folder, options })
    }

    fn once(&self, round: usize, mounted: Mounted) -> Outcome<Duration> {
        let own = self.folder.join(round.to_string());
        let merged = own.join("m");
        let begun = Instant::now();
        std::fs::create_dir(&own)?;
        for name in ["u", "w", "m"] {
            std::fs::create_dir(own.join(name))?;
        }
        let (lower, upper, work) = (self.folder.join("lower"), own.join("u"), own.join("w"));
        let data = format!(
            "lowerdir={},upperdir={},workdir={},{}",
            lower.display(),
            upper.display(),
            work.display(),
            self.options
        );
        mount(mounted, &data, &merged).map_err(|error| format!("can't mount the peer's overlay: {error}"))?;
        let mut child = self.command(&merged).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut byte = [0];
        let mut output = child.stdout.take().ok_or("no output")?;
        let read = output.read(&mut byte)?;
        let took = begun.elapsed();
        let status = child.wait()?;
        rustix::mount::unmount(&merged, UnmountFlags::empty())?;
        std::fs::remove_dir_all(&own)?;
        if read == 1 && status.success() { Ok(took) } else { Err(format!("bubblewrap ended with {status}").into()) }
    }

    /// The same view as a box of ours: the host's programs read-only, the rest its own.
    fn command(&self, merged: &Path) -> Command {
        let mut command = Command::new(&self.bwrap);
        for name in ["user", "ipc", "pid", "net", "uts", "cgroup"] {
            command.arg(format!("--unshare-{name}"));
        }
        command.args(["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--bind"]).arg(merged).arg("/");
        for path in SYSTEM {
            match std::fs::read_link(path) {
                Ok(to) => command.arg("--symlink").arg(to).arg(path),
                Err(_) if Path::new(path).is_dir() => command.args(["--ro-bind", path, path]),
                Err(_) => &mut command,
            };
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]);
        command.args(["--chdir", "/workspace", "/bin/echo", "x"]).env_clear();
        command
    }
}

fn mount(mounted: Mounted, data: &str, merged: &Path) -> Outcome {
    if mounted == Mounted::ByCall {
        let data = std::ffi::CString::new(data)?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        return Ok(rustix::mount::mount("overlay", merged, "overlay", flags, data.as_c_str())?);
    }
    let mut command = Command::new("mount");
    command.args(["-t", "overlay", "-o"]).arg(format!("nodev,nosuid,{data}")).arg("overlay").arg(merged);
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("mount ended with {status}").into()) }
}

#[expect(unsafe_code, reason = "unshare is unsafe only for the file table, which stays shared")]
fn enter_namespaces(root: bool) -> Outcome {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let flags = if root { UnshareFlags::NEWNS } else { UnshareFlags::NEWNS | UnshareFlags::NEWUSER };
    // SAFETY: the file table stays shared.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    if !root {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
        std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", private)?)
}
