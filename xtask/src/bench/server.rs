//! A server of its own for the bench: started on a fresh data folder, asked for its health on the
//! unix socket, weighed by the kernel's figures, and stopped.
//!
//! Absent: this machine's settings and keys; the server and its commands see neither.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::proc;

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// What start-up or work left behind is freed or paged out by then.
const SETTLE: Duration = Duration::from_secs(3);
/// What a server and its commands must not find: somebody's settings, keys and folders.
const UNSEEN: [&str; 9] = [
    "CHARGEHAND_MODEL",
    "CHARGEHAND_LISTEN",
    "CHARGEHAND_TOKEN",
    "CHARGEHAND_LOG",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "XDG_DATA_HOME",
];

/// What the kernel says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Its share of the memory that it is mapped to: what the machine would get back.
    pub pss_bytes: u64,
    /// All memory that it is mapped to.
    pub rss_bytes: u64,
}

/// A running server with folders of its own. It ends with this value.
pub struct Server {
    child: Child,
    program: PathBuf,
    home: TempDir,
    /// From its start to the first healthy answer.
    pub ready_ms: f64,
}

impl Server {
    /// Starts `program serve` and waits until it is healthy.
    pub fn start(program: &Path) -> anyhow::Result<Self> {
        // A short path: a unix socket's name has at most 107 bytes.
        let home = tempfile::Builder::new().prefix("cb-").tempdir().context("cannot make a scratch folder")?;
        std::fs::write(home.path().join("settings.toml"), "").context("cannot write empty settings")?;
        let log = File::create(home.path().join("serve.log")).context("cannot make the server's log")?;
        let began = Instant::now();
        let child = command(program, home.path())
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the server's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {} serve", program.display()))?;
        let mut server = Self { child, program: program.to_owned(), home, ready_ms: 0.0 };
        let socket = data(server.home.path()).join("chargehand.sock");
        while !is_healthy(&socket) {
            if let Some(status) = server.child.try_wait().context("cannot look after the server")? {
                bail!("the server ended ({status}) instead of getting ready; it said:\n{}", server.said());
            }
            if began.elapsed() > READY_WITHIN {
                bail!("the server was not healthy within {} s; it said:\n{}", READY_WITHIN.as_secs(), server.said());
            }
            sleep(Duration::from_millis(2));
        }
        server.ready_ms = began.elapsed().as_secs_f64() * 1000.0;
        Ok(server)
    }

    /// A folder for whatever the tasks need beside the data folder.
    pub fn scratch(&self) -> &Path {
        self.home.path()
    }

    /// A command of the product that speaks to this server.
    pub fn client(&self) -> Command {
        command(&self.program, self.home.path())
    }

    /// The end of what the server logged.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(self.home.path().join("serve.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Its memory after it had nothing to do for some seconds.
    pub fn settled_memory(&self) -> anyhow::Result<Memory> {
        sleep(SETTLE);
        let rollup = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(&rollup).with_context(|| format!("cannot read {rollup}"))?;
        memory(&text).with_context(|| format!("{rollup} has no Pss and Rss"))
    }

    /// Ends it by the product's own command; fails if it is still there afterwards.
    pub fn stop(mut self) -> anyhow::Result<()> {
        proc::captured(self.client().arg("stop"))?;
        self.has_ended(STOPPED_WITHIN).then_some(()).context("the server still runs after `chargehand stop`")
    }

    fn has_ended(&mut self, within: Duration) -> bool {
        let asked = Instant::now();
        while asked.elapsed() < within {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Server {
    /// Also when something else failed; asked first, so that its sandboxes go with it.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !self.has_ended(STOPPED_WITHIN) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn data(home: &Path) -> PathBuf {
    home.join("data")
}

fn command(program: &Path, home: &Path) -> Command {
    let mut command = proc::built(program);
    command
        .env("CHARGEHAND_DATA_DIR", data(home))
        .env("CHARGEHAND_CONFIG", home.join("settings.toml"))
        .env("XDG_CONFIG_HOME", home);
    for name in UNSEEN {
        command.env_remove(name);
    }
    command
}

/// Whether the server answers `GET /v1/health` with success. No answer yet is no error.
fn is_healthy(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let request = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let done = stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .and_then(|()| stream.write_all(request))
        .and_then(|()| stream.read_to_end(&mut answer));
    done.is_ok() && says_success(&answer)
}

fn says_success(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.1 204")
}

/// Reads the kernel's `smaps_rollup`.
fn memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Memory { pss_bytes: bytes("Pss:")?, rss_bytes: bytes("Rss:")? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_kernels_figures_are_read_in_bytes() {
        let text = "00400000-7ffd [rollup]\nRss:               21504 kB\nPss:               20480 kB\nPss_Dirty:          9000 kB\n";
        assert_eq!(memory(text), Some(Memory { pss_bytes: 20480 * 1024, rss_bytes: 21504 * 1024 }));
        assert_eq!(memory("Rss: 1 kB\n"), None);
    }

    #[test]
    fn the_kernels_real_figures_can_be_read() {
        let own = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        assert!(memory(&own).unwrap().rss_bytes > 0);
    }

    #[test]
    fn only_a_successful_answer_is_healthy() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        assert!(!is_healthy(&socket), "nobody listens");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}"];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /v1/health "));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert!(!is_healthy(&socket));
        assert!(is_healthy(&socket));
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_with_its_own_words() {
        let error = Server::start(Path::new("/bin/echo")).err().unwrap().to_string();
        assert!(error.contains("instead of getting ready") && error.contains("\nserve"), "{error}");
    }

    #[test]
    fn a_server_and_its_commands_see_nobodys_settings_and_keys() {
        let command = command(Path::new("chargehand"), Path::new("/tmp/ch-x"));
        let set: Vec<_> = command.get_envs().collect();
        for name in UNSEEN {
            assert!(set.contains(&(name.as_ref(), None)), "{name}");
        }
        assert!(set.contains(&("CHARGEHAND_DATA_DIR".as_ref(), Some("/tmp/ch-x/data".as_ref()))));
    }
}
