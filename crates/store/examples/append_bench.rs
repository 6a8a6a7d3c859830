//! How fast events are appended, durably, beside what this disk can do at all.
//!
//! Appends events of about 400 bytes at `synchronous=FULL` from 1, 16 and 64 producers, each with a
//! task of its own, and times `fdatasync` of small appends to a file on the same disk. Prints one
//! line of JSON. Takes the folder to work in as its argument (default: the system's temporary one)
//! and leaves nothing there. Absent: a memory disk, on which the figures would mean nothing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a measurement reads its arguments and the clock")]

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use domain::contract::Contract;
use domain::event::{EVENT_VERSION, Envelope, Event};
use domain::id::{CommitSha, TaskId};
use domain::principal::Principal;
use domain::task::{AgentSpec, RepoSpec, Task, TaskSpec, TaskSummary};
use jiff::Timestamp;
use store::{Append, Store, sqlite};

/// How long each number of producers is measured.
const MEASURED: Duration = Duration::from_secs(3);
const EVENT_BYTES: usize = 400;

fn main() {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).unwrap();
    let floor = fdatasync_ms(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut report = serde_json::Map::new();
    for producers in [1_u64, 16, 64] {
        let folder = dir.path().join(producers.to_string());
        let (per_s, p50_ms, p99_ms, bytes) = runtime.block_on(measure(&folder, producers));
        report.insert(format!("append_events_per_s_{producers}"), per_s.round().into());
        report.insert(format!("append_ms_p50_{producers}"), rounded(p50_ms).into());
        report.insert(format!("append_ms_p99_{producers}"), rounded(p99_ms).into());
        report.insert("event_bytes".to_owned(), bytes.into());
    }
    // Measured before and after: the same disk can be twenty times slower a while later.
    let floor_after = fdatasync_ms(dir.path());
    report.insert("fdatasync_floor_ms_p50".to_owned(), rounded(floor[0]).into());
    report.insert("fdatasync_floor_ms_p99".to_owned(), rounded(floor[1]).into());
    report.insert("fdatasync_floor_after_ms_p50".to_owned(), rounded(floor_after[0]).into());
    report.insert("optimized".to_owned(), (!cfg!(debug_assertions)).into());
    println!("{}", serde_json::Value::Object(report));
}

fn rounded(ms: f64) -> f64 {
    (ms * 1_000.0).round() / 1_000.0
}

/// The value below which `share` of the sorted values lie.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// p50 and p99 of `fdatasync` after a write of one page, in milliseconds.
fn fdatasync_ms(dir: &Path) -> [f64; 2] {
    let mut file = std::fs::File::create(dir.join("floor")).unwrap();
    let mut taken: Vec<f64> = (0..200)
        .map(|_| {
            file.write_all(&[7; 4096]).unwrap();
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    [quantile(&taken, 0.5), quantile(&taken, 0.99)]
}

/// Events per second, p50 and p99 of one append in milliseconds, and the size of an event.
async fn measure(dir: &Path, producers: u64) -> (f64, f64, f64, usize) {
    let store = sqlite::open(dir).await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    let began = Instant::now();
    for number in 0..producers {
        running.spawn(produce(store.clone(), number, began + MEASURED));
    }
    let done = running.join_all().await;
    let seconds = began.elapsed().as_secs_f64();
    store.close().await;
    let bytes = done.first().map_or(0, |(_, bytes)| *bytes);
    let mut taken: Vec<f64> = done.into_iter().flat_map(|(taken, _)| taken).collect();
    taken.sort_by(f64::total_cmp);
    (taken.len() as f64 / seconds, quantile(&taken, 0.5), quantile(&taken, 0.99), bytes)
}

/// Appends one event after the other; gives the milliseconds that each took, and their size.
async fn produce(store: Store, number: u64, until: Instant) -> (Vec<f64>, usize) {
    let id = TaskId::from_random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let first = envelope(&id, 1, Event::TaskSubmitted { spec: Box::new(spec()), notes: Vec::new() });
    let task: Task = domain::fold([&first]).unwrap();
    let mut summary = TaskSummary::from(&task);
    store.log.append(append(&id, 0, first, &summary)).await.unwrap();
    let mut taken = Vec::new();
    let mut bytes = 0;
    while Instant::now() < until {
        let seq = summary.seq + 1;
        let bare = envelope(&id, seq, Event::Noted { text: String::new() }).encode().unwrap().len();
        let text = "x".repeat(EVENT_BYTES.saturating_sub(bare));
        let event = envelope(&id, seq, Event::Noted { text });
        bytes = event.encode().unwrap().len();
        summary.seq = seq;
        let work = append(&id, seq - 1, event, &summary);
        let began = Instant::now();
        store.log.append(work).await.unwrap();
        taken.push(began.elapsed().as_secs_f64() * 1e3);
    }
    (taken, bytes)
}

fn append(id: &TaskId, expected_seq: u64, event: Envelope, summary: &TaskSummary) -> Append {
    Append {
        task: id.clone(),
        expected_seq,
        events: vec![event],
        summary: summary.clone(),
        wake_at: None,
        idempotency: None,
        lease: None,
    }
}

fn envelope(id: &TaskId, seq: u64, event: Event) -> Envelope {
    let at = Timestamp::from_second(1_790_000_000).unwrap();
    Envelope { v: EVENT_VERSION, task: id.clone(), seq, at, actor: Principal::platform(), event }
}

fn spec() -> TaskSpec {
    TaskSpec {
        goal: "mend the parser".to_owned(),
        repo: RepoSpec {
            origin: "/srv/origin".to_owned(),
            base_branch: "main".to_owned(),
            base: CommitSha::parse(&"a".repeat(40)).unwrap(),
        },
        agent: AgentSpec::Command { argv: vec!["fix".to_owned()] },
        contract: Contract::default(),
        fork: None,
    }
}
