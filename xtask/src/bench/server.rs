//! The memory of a server that has nothing to do.
//!
//! Starts `chargehand serve` on a fresh data folder, waits for its own health check on the unix
//! socket, lets it settle, reads the kernel's figures and stops it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::proc;

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
/// What start-up left behind is freed or paged out by then.
const SETTLE: Duration = Duration::from_secs(3);

/// What the kernel says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Its share of the memory that it is mapped to: what the machine would get back.
    pub pss_bytes: u64,
    /// All memory that it is mapped to.
    pub rss_bytes: u64,
}

/// The server's figures, and how long it took to start.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Idle {
    /// Memory when settled.
    #[serde(flatten)]
    pub memory: Memory,
    /// From start to the first healthy answer.
    pub ready_ms: f64,
}

/// Ends the server also when something else fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures one start of this binary.
pub fn measure(program: &Path) -> anyhow::Result<Idle> {
    let scratch = tempfile::tempdir().context("cannot make a scratch folder")?;
    let data = scratch.path().join("data");
    let log_path = scratch.path().join("serve.log");
    let log = File::create(&log_path).context("cannot make the server's log")?;
    let started = Instant::now();
    let child = proc::built(program)
        .arg("serve")
        .arg("--data-dir")
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the server's log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {} serve", program.display()))?;
    let mut server = Running(child);
    let socket = data.join("chargehand.sock");
    let said = || std::fs::read_to_string(&log_path).unwrap_or_default();
    while !is_healthy(&socket) {
        if let Some(status) = server.0.try_wait().context("cannot look after the server")? {
            bail!("the server ended ({status}) instead of getting ready; it said:\n{}", said());
        }
        if started.elapsed() > READY_WITHIN {
            bail!("the server was not healthy within {} s; it said:\n{}", READY_WITHIN.as_secs(), said());
        }
        sleep(Duration::from_millis(2));
    }
    let ready_ms = started.elapsed().as_secs_f64() * 1000.0;
    sleep(SETTLE);
    let rollup = format!("/proc/{}/smaps_rollup", server.0.id());
    let text = std::fs::read_to_string(&rollup).with_context(|| format!("cannot read {rollup}"))?;
    let memory = memory(&text).with_context(|| format!("{rollup} has no Pss and Rss"))?;
    stop(&mut server)?;
    Ok(Idle { memory, ready_ms })
}

/// Asks for an orderly end.
fn stop(server: &mut Running) -> anyhow::Result<()> {
    let pid = i32::try_from(server.0.id()).ok().and_then(Pid::from_raw).context("the server has no process id")?;
    kill_process(pid, Signal::TERM).context("cannot ask the server to stop")?;
    let asked = Instant::now();
    while server.0.try_wait().context("cannot look after the server")?.is_none() {
        if asked.elapsed() > STOPPED_WITHIN {
            bail!("the server did not stop within {} s of SIGTERM", STOPPED_WITHIN.as_secs());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
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
        let error = measure(Path::new("/bin/echo")).unwrap_err().to_string();
        assert!(error.contains("instead of getting ready") && error.contains("serve --data-dir"), "{error}");
    }
}
