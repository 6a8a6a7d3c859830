//! What is written down: one record for each request and each denial, whatever becomes of it.
//!
//! An [`OpenRecord`] goes along with a request and is recorded when it is dropped, so that a
//! request whose box, door or far side dies in the middle is on record too. Absent: values of
//! secrets (known ones are taken out of paths), bodies, and other headers than none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::denial::Denial;
use crate::meter::Meter;
use crate::redact::KnownValues;

/// Longest host and path in a record, in characters.
const MAX_TEXT_CHARS: usize = 2000;

/// One request or denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// When it began.
    pub at: Timestamp,
    /// Which box asked.
    pub box_id: String,
    /// The method; `CONNECT` for a blind tunnel.
    pub method: String,
    /// How the box asked: `connect`, `http` or `https`.
    pub scheme: String,
    /// The canonical host, or the beginning of what could not be read.
    pub host: String,
    /// The port; 0 if it could not be read.
    pub port: u16,
    /// Path and query as sent, without known secret values; empty for a tunnel.
    pub path: String,
    /// The entry that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    /// What went wrong although it was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The address that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<SocketAddr>,
    /// The name of the secret that was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The status that the far side answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes sent to the far side, TLS included.
    pub up_bytes: u64,
    /// Bytes received from it, TLS included.
    pub down_bytes: u64,
    /// From the first byte to the last, in milliseconds.
    pub duration_ms: u64,
}

/// Takes records.
pub trait Audit: Send + Sync {
    /// Takes one. **Contract:** returns at once and does not panic; a slow place to keep records needs
    /// a queue of its own.
    fn record(&self, record: EgressRecord);
}

/// Tells the time for records.
pub trait Clock: Send + Sync {
    /// What time it is.
    fn now(&self) -> Timestamp;
}

/// What all records of one door share.
pub(crate) struct Book {
    pub box_id: String,
    pub audit: Arc<dyn Audit>,
    pub clock: Arc<dyn Clock>,
    pub known: KnownValues,
}

/// A record that is being written; dropped, it is recorded.
pub(crate) struct OpenRecord {
    book: Arc<Book>,
    record: EgressRecord,
    began: Instant,
    /// The meter, and what it showed at the beginning.
    meter: Option<(Arc<Meter>, u64, u64)>,
    /// Whether it is recorded at all.
    silent: bool,
}

impl OpenRecord {
    pub(crate) fn new(book: &Arc<Book>, method: &str, scheme: &str) -> Self {
        let record = EgressRecord {
            at: book.clock.now(),
            box_id: book.box_id.clone(),
            method: cut(method, 40),
            scheme: scheme.to_owned(),
            host: String::new(),
            port: 0,
            path: String::new(),
            entry: None,
            denial: None,
            failure: None,
            dialled: None,
            secret: None,
            status: None,
            up_bytes: 0,
            down_bytes: 0,
            duration_ms: 0,
        };
        Self { book: Arc::clone(book), record, began: Instant::now(), meter: None, silent: false }
    }

    pub(crate) fn to(&mut self, host: &str, port: u16) {
        self.record.host = self.clean(host);
        self.record.port = port;
    }

    pub(crate) fn path(&mut self, path: &str) {
        self.record.path = self.clean(path);
    }

    pub(crate) fn allowed_by(&mut self, entry: &str) {
        self.record.entry = Some(cut(entry, 300));
    }

    pub(crate) fn secret(&mut self, name: &str) {
        self.record.secret = Some(name.to_owned());
    }

    pub(crate) fn dialled(&mut self, address: SocketAddr, meter: &Arc<Meter>) {
        self.record.dialled = Some(address);
        self.meter = Some((Arc::clone(meter), meter.up_bytes(), meter.down_bytes()));
    }

    pub(crate) fn status(&mut self, status: u16) {
        self.record.status = Some(status);
    }

    pub(crate) fn denied(&mut self, denial: &Denial) {
        self.silent = false;
        self.record.denial = Some(denial.clone());
    }

    pub(crate) fn failed(&mut self, failure: &str) {
        self.silent = false;
        self.record.failure = Some(self.clean(failure));
    }

    /// Not recorded unless it is denied or fails: others record what happens inside it.
    pub(crate) fn silent(&mut self) {
        self.silent = true;
    }

    /// Control characters would forge lines in what people read.
    fn clean(&self, text: &str) -> String {
        let text = self.book.known.redact(text);
        cut(&text.replace(|c: char| c.is_control(), "\u{fffd}"), MAX_TEXT_CHARS)
    }
}

fn cut(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).collect()
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        if self.silent {
            return;
        }
        if let Some((meter, up, down)) = &self.meter {
            self.record.up_bytes = meter.up_bytes().saturating_sub(*up);
            self.record.down_bytes = meter.down_bytes().saturating_sub(*down);
        }
        self.record.duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.book.audit.record(self.record.clone());
    }
}
