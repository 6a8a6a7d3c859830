//! The limit on a box's disk space, and the floor under the free space that others need.
//!
//! A thread looks four times a second, first at the filesystem's free space alone: that is one call
//! for all boxes. A box's files are walked when so much space has gone since they were last walked
//! that it may have passed its limit, when the floor is reached, and now and then; walks together
//! take at most a small part of one processor. A box over its limit whose files still grow has its
//! commands ended; what does not grow may run, or nothing could tidy up. Absent: a quota of the
//! filesystem: so a box passes its limit by what it writes between two looks, and space of files that
//! were deleted and are still open counts for nobody.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use domain::id::SandboxId;
use rustix::process::{Signal, kill_process};

use crate::local::boxes::Boxes;
use crate::local::process::{self, Identity};
use crate::local::usage::measure;

/// The time between two looks.
const TICK: Duration = Duration::from_millis(250);
/// A box is walked again after this time at the latest, while commands run in it.
const AT_LATEST: Duration = Duration::from_secs(5);
/// Walks take at most this part of the time: one in so many.
const SHARE: u32 = 10;
/// How often processes are looked for where they cannot be made to hold still.
const PASSES: u32 = 10;
/// Counts how often commands of a box were ended for its disk space.
const COUNT: &str = "full";

/// The boxes that are looked after, with their limits in bytes.
#[derive(Debug, Default)]
pub struct Watched(Mutex<HashMap<SandboxId, Option<u64>>>);

impl Watched {
    /// Looks after a box from now on.
    pub fn add(&self, id: &SandboxId, limit_bytes: Option<u64>) {
        self.boxes().insert(id.clone(), limit_bytes);
    }

    /// No longer.
    pub fn remove(&self, id: &SandboxId) {
        self.boxes().remove(id);
    }

    fn boxes(&self) -> MutexGuard<'_, HashMap<SandboxId, Option<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often commands of the box in this folder were ended for its disk space.
pub fn endings(run: &Path) -> u64 {
    fs::read_to_string(run.join(COUNT)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Looks after boxes until they are let go. Without a thread there is no limit, and it is told.
pub fn spawn(boxes: &Arc<Boxes>) -> bool {
    let weak = Arc::downgrade(boxes);
    thread::Builder::new().name("disk watch".into()).spawn(move || watch(&weak)).is_ok()
}

fn watch(boxes: &Weak<Boxes>) {
    let mut seen = HashMap::new();
    if let Some(boxes) = boxes.upgrade() {
        for id in boxes.layout.boxes() {
            if let Ok(Some(record)) = boxes.layout.record(&id) {
                boxes.watched.add(&id, record.limits.disk_bytes);
            }
        }
    }
    while let Some(boxes) = boxes.upgrade() {
        look(&boxes, &mut seen);
        drop(boxes);
        thread::sleep(TICK);
    }
}

/// A box's files when they were last walked.
#[derive(Debug, Clone, Copy)]
struct Seen {
    bytes: u64,
    free_bytes: u64,
    at: Instant,
    took: Duration,
}

fn look(boxes: &Boxes, seen: &mut HashMap<SandboxId, Seen>) {
    let Ok(free_bytes) = boxes.free_bytes() else { return };
    let low = free_bytes < boxes.config.min_free_bytes;
    let watched: Vec<_> = boxes.watched.boxes().iter().map(|(id, limit)| (id.clone(), *limit)).collect();
    seen.retain(|id, _| watched.iter().any(|(other, _)| other == id));
    let all_took: Duration = seen.values().map(|seen| seen.took).sum();
    for (id, limit) in watched {
        let before = seen.get(&id).copied();
        if !due(before, limit, free_bytes, low, all_took) || boxes.is_suspended(&id) {
            continue;
        }
        let Some(first) = boxes.layout.living(&id).filter(|first| first.has_children_but("")) else { continue };
        let at = Instant::now();
        let mut bytes = measure(&boxes.layout.run(&id).join("u"));
        let took = at.elapsed();
        let over = limit.is_some_and(|limit| bytes > limit);
        let grew = before.map_or(over, |before| bytes > before.bytes);
        if grew && (over || low) {
            tracing::warn!(%id, bytes, ?limit, free_bytes, "the commands of a box are ended for its disk space");
            end(boxes, &id, first);
            // What was written until the end is no growth of what runs next.
            bytes = measure(&boxes.layout.run(&id).join("u"));
        }
        seen.insert(id, Seen { bytes, free_bytes, at, took });
    }
}

/// Whether a box's files are walked at this look.
fn due(before: Option<Seen>, limit: Option<u64>, free_bytes: u64, low: bool, all_took: Duration) -> bool {
    let Some(before) = before else { return low || limit.is_some() };
    let rested = before.at.elapsed();
    if rested < AT_LATEST.min(before.took * SHARE) {
        return false;
    }
    let gone = before.free_bytes.saturating_sub(free_bytes);
    let may_be_over = limit.is_some_and(|limit| before.bytes.saturating_add(gone) > limit);
    let long_ago = limit.is_some() && rested > AT_LATEST.max(all_took * SHARE);
    low || may_be_over || long_ago
}

/// Ends everything in a box but its first process. Counted before and after, so that whatever is
/// ended finds another count than it began with.
fn end(boxes: &Boxes, id: &SandboxId, first: Identity) {
    let run = boxes.layout.run(id);
    let count = || {
        if fs::write(run.join(COUNT), (endings(&run) + 1).to_string()).is_err() {
            tracing::warn!(%id, "why its commands end is not written down");
        }
    };
    count();
    // Who holds still has no children and is given no commands meanwhile.
    let passes = if boxes.suspend(id).is_ok() { 1 } else { PASSES };
    for _ in 0..passes {
        let others = process::in_namespace_of(first).into_iter().filter(|pid| pid.as_raw_nonzero().get() != first.pid);
        for pid in others {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    count();
    if let Err(error) = boxes.resume(id) {
        tracing::debug!(%error, %id, "it ended by itself");
    }
}
