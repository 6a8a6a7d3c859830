//! The rows of the measurement: what each is, and its value or the reason why there is none.
//!
//! Absent: measuring.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// What a step of the measurement ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Part of the measurement, key (ends in the unit), and what it is.
type Row = (&'static str, &'static str, &'static str);

/// Every row that is reported, in this order.
const ROWS: &[Row] = &[
    ("start", "start_p50_ms", "start a box, to the first output"),
    ("start", "start_p95_ms", "  p95"),
    ("start", "bwrap_overlay_p50_ms", "peer: `mount` an overlay and start bubblewrap"),
    ("start", "bwrap_overlay_p95_ms", "  p95"),
    ("start", "bwrap_overlay_syscall_p50_ms", "peer: the same, mounted by one system call"),
    ("start", "bwrap_overlay_syscall_p95_ms", "  p95"),
    ("start", "spawn_floor_p50_ms", "floor: a bare `echo`, to its end"),
    ("start", "spawn_floor_p95_ms", "  p95"),
    ("start", "destroy_p50_ms", "destroy a box"),
    ("exec", "exec_p50_ms", "a command in a running box, to its end"),
    ("exec", "exec_p95_ms", "  p95"),
    ("exec", "exec_floor_p50_ms", "floor: a bare `echo` between them"),
    ("exec", "file_request_p50_ms", "a file request"),
    ("fork", "fork100_ms", "100 boxes on one snapshot, all answered"),
    ("fork", "fork100_alive", "  of them alive afterwards"),
    ("fork", "fork100_floor_ms", "floor: 100 bare `echo` at once"),
    ("fork", "idle_rss_mb", "a box at rest: PSS of its processes"),
    ("fork", "idle_available_mb", "  and of the machine's available memory"),
    ("snapshot", "snapshot_p50_ms", "stop, snapshot of 10 x 1 KB, start, answer"),
    ("snapshot", "snapshot_p95_ms", "  p95"),
    ("snapshot", "snapshot_stop_p50_ms", "  of that: stop"),
    ("snapshot", "snapshot_layer_p50_ms", "  of that: make the layer"),
    ("snapshot", "snapshot_start_p50_ms", "  of that: start and answer"),
    ("snapshot", "snapshot_1000x10kb_p50_ms", "the same with 1,000 x 10 KB"),
    ("snapshot", "snapshot_1000x10kb_layer_p50_ms", "  of that: make the layer"),
    ("git", "git_status_first_p50_ms", "first `git status` in a fresh fork, 5,000 files"),
    ("git", "git_status_second_p50_ms", "  the second one"),
    ("git", "git_status_floor_p50_ms", "floor: in the raw folder, index fresh"),
    ("git", "git_status_unrefreshed_p50_ms", "first one where no index was refreshed in a box"),
    ("size", "start_p50_ms_100mb", "start on 100 MB in 2,000 files"),
    ("size", "start_p50_ms_5gb", "start on 5 GB in 100,000 files"),
    ("size", "prepare_100mb_ms", "prepare the layer of 100 MB, once"),
    ("size", "prepare_5gb_ms", "prepare the layer of 5 GB, once"),
    ("rest", "rest_400", "boxes at rest at once, all answered"),
    ("rest", "rest_400_start_ms", "  to start them all"),
    ("rest", "rest_400_answer_ms", "  to ask them all once more"),
    ("rest", "rest_400_pss_mb", "  PSS of each"),
    ("rest", "rest_400_available_mb", "  the machine's available memory for each"),
    ("rest", "rest_400_destroy_ms", "  to destroy them all"),
];

/// What was found so far.
#[derive(Debug, Default)]
pub struct Figures {
    found: BTreeMap<&'static str, Result<f64, String>>,
    beside: BTreeMap<&'static str, String>,
}

impl Figures {
    /// A figure, in the unit with which its key ends.
    pub fn put(&mut self, key: &'static str, value: f64) {
        debug_assert!(ROWS.iter().any(|(_, known, _)| *known == key), "{key} has no row");
        eprintln!("measure: {key} {value:.2}");
        self.found.insert(key, Ok((value * 1000.0).round() / 1000.0));
    }

    /// A figure that can't be measured here, and why.
    pub fn missing(&mut self, key: &'static str, why: impl Into<String>) {
        self.found.insert(key, Err(why.into()));
    }

    /// What a reader of this figure has to know.
    pub fn beside(&mut self, key: &'static str, what: impl Into<String>) {
        self.beside.insert(key, what.into());
    }

    /// The middle of many figures; nothing if there are none.
    pub fn middle_of(&mut self, key: &'static str, mut figures: Vec<f64>) {
        figures.sort_by(f64::total_cmp);
        if let Some(value) = figures.get(figures.len() / 2) {
            self.put(key, *value);
        }
    }

    /// The middle of many times; nothing if there are none.
    pub fn middle(&mut self, key: &'static str, times: &[Duration]) {
        if let Some(value) = percentile(times, 50) {
            self.put(key, value);
        }
    }

    /// The middle and the 95th of a hundred.
    pub fn spread(&mut self, (p50, p95): (&'static str, &'static str), times: &[Duration]) {
        self.middle(p50, times);
        if let Some(value) = percentile(times, 95) {
            self.put(p95, value);
        }
        self.beside(p50, format!("{} rounds", times.len()));
    }

    /// A part is over: its rows without a value get the reason.
    pub fn close(&mut self, part: &str, outcome: Outcome) {
        if let Err(error) = &outcome {
            eprintln!("measure: {part}: {error}");
        }
        for (_, key, _) in ROWS.iter().filter(|(of, _, _)| *of == part) {
            let why = || outcome.as_ref().err().map_or_else(|| "not measured".to_owned(), ToString::to_string);
            self.found.entry(key).or_insert_with(|| Err(why()));
        }
    }

    /// All is over.
    pub fn close_all(&mut self, outcome: &Outcome) {
        for (part, _, _) in ROWS {
            let outcome = outcome.as_ref().copied().map_err(|error| error.to_string().into());
            self.close(part, outcome);
        }
    }

    /// All rows, for machines.
    pub fn document(&self) -> Value {
        let row = |(_, key, what): &Row| {
            let (value, why) = match self.found.get(key) {
                Some(Ok(value)) => (Some(*value), None),
                Some(Err(why)) => (None, Some(why.as_str())),
                None => (None, Some("not measured")),
            };
            json!({ "key": key, "what": what, "value": value, "why": why, "beside": self.beside.get(key) })
        };
        json!({ "optimized": !cfg!(debug_assertions), "rows": ROWS.iter().map(row).collect::<Vec<_>>() })
    }
}

/// By nearest rank, in milliseconds.
fn percentile(times: &[Duration], percent: usize) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map(|time| time.as_secs_f64() * 1000.0)
}

/// A time in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
