//! The log of a build as it is written: what setup says without the values of secrets, and lines of the
//! platform's own about what its commands asked the outside for.
//!
//! Everything that is kept or shown of a build goes through here, so that one list of values counts for
//! all of it. Absent: the file and its bounds (`sandbox::environment::log`), and doors.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::event::EgressRequest;
use egress::{KnownValues, Mask, Redactor};
use sandbox::environment::log::BuildLog;

/// Takes the log of a build as it comes.
///
/// Contract: must not block.
pub(crate) type Show = Arc<dyn Fn(&str) + Send + Sync>;

/// Requests of one command that are told one by one; the rest is counted.
const MAX_TOLD: usize = 200;
/// Hosts of one command that are counted apart.
const MAX_HOSTS: usize = 100;

/// A log that is being written, by setup and by its doors.
pub(crate) struct Written {
    known: KnownValues,
    show: Show,
    at: Mutex<At>,
}

struct At {
    /// None once it is complete.
    log: Option<BuildLog>,
    redactor: Redactor,
    /// Whether the last line has no end yet.
    within_line: bool,
}

impl Written {
    /// A log from which `known` values are kept.
    pub(crate) fn new(log: BuildLog, known: KnownValues, show: Show) -> Self {
        let redactor = Redactor::new(known.clone(), Mask::Named);
        Self { known, show, at: Mutex::new(At { log: Some(log), redactor, within_line: false }) }
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, at: &mut At, clean: &[u8]) {
        let Some(last) = clean.last() else { return };
        at.within_line = *last != b'\n';
        if let Some(log) = &mut at.log {
            log.write(clean);
        }
        (self.show)(&String::from_utf8_lossy(clean));
    }

    /// Adds what setup says; gives what of it may be told by now.
    pub(crate) fn said(&self, bytes: &[u8]) -> Vec<u8> {
        let mut at = self.at();
        let clean = at.redactor.push(bytes);
        self.put(&mut at, &clean);
        clean
    }

    /// Adds a line of the platform's own.
    pub(crate) fn line(&self, text: &str) {
        let mut at = self.at();
        let begin = if at.within_line { "\n" } else { "" };
        let line = format!("{begin}chargehand: {}\n", self.clean(text));
        self.put(&mut at, line.as_bytes());
    }

    /// A text without the values.
    pub(crate) fn clean(&self, text: &str) -> String {
        self.known.redact(text)
    }

    /// Completes the log.
    ///
    /// # Errors
    /// What kept a part of it from being written.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut at = self.at();
        let rest = at.redactor.finish();
        self.put(&mut at, &rest);
        at.log.take().map_or(Ok(()), BuildLog::finish)
    }
}

/// What passed the door of one setup command, for the log of the build: refusals and failures as they
/// come, all else in numbers when the door is closed.
pub(crate) struct Passed {
    log: Arc<Written>,
    /// Which command, counted from 1.
    command: usize,
    told: usize,
    untold: u64,
    hosts: BTreeMap<(String, u16), Count>,
    elsewhere: Count,
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    up_bytes: u64,
    down_bytes: u64,
}

impl Count {
    fn add(&mut self, request: &EgressRequest) {
        self.requests += 1;
        self.up_bytes += request.up_bytes;
        self.down_bytes += request.down_bytes;
    }

    fn told(&self) -> String {
        let plural = if self.requests == 1 { "" } else { "s" };
        format!("{} request{plural}, {} bytes out, {} bytes in", self.requests, self.up_bytes, self.down_bytes)
    }
}

impl Passed {
    /// Nothing has passed yet.
    pub(crate) fn new(log: Arc<Written>, command: usize) -> Self {
        let hosts = BTreeMap::new();
        Self { log, command, told: 0, untold: 0, hosts, elsewhere: Count::default() }
    }

    /// Adds requests, and how many more there were of which nothing is known.
    pub(crate) fn note(&mut self, requests: &[EgressRequest], unlisted: u64) {
        self.untold += unlisted;
        for request in requests {
            let (what, why) = match (&request.denied, &request.failure) {
                (Some(why), _) => ("was not let out", why),
                (None, Some(why)) => ("failed", why),
                (None, None) => {
                    self.count(request);
                    continue;
                }
            };
            if self.told == MAX_TOLD {
                self.untold += 1;
                continue;
            }
            self.told += 1;
            let EgressRequest { method, host, port, path, .. } = request;
            // One request is one line, whatever stands in it.
            let line = format!("command {}: {method} {host}:{port}{path} {what}: {why}", self.command);
            self.log.line(&line.replace(char::is_control, " "));
        }
    }

    fn count(&mut self, request: &EgressRequest) {
        let host = (request.host.clone(), request.port);
        if self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&host) {
            self.hosts.entry(host).or_default().add(request);
        } else {
            self.elsewhere.add(request);
        }
    }

    /// Writes down the numbers.
    pub(crate) fn sum(self) {
        for ((host, port), count) in &self.hosts {
            self.log.line(&format!("command {} reached {host}:{port}: {}", self.command, count.told()));
        }
        let mut more = String::new();
        if self.elsewhere.requests > 0 {
            let _ = write!(more, "other hosts: {}", self.elsewhere.told());
        }
        if self.untold > 0 {
            let comma = if more.is_empty() { "" } else { "; " };
            let _ = write!(more, "{comma}{} more requests that are not listed", self.untold);
        }
        if !more.is_empty() {
            self.log.line(&format!("command {}: {more}", self.command));
        }
    }
}
