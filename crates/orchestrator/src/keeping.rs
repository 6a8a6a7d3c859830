//! Which layers outlast their use: those of environments, and those of tasks that ended lately, so
//! that they can still be forked and compared.
//!
//! Absent: removing; the provider is told what stays.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use domain::id::{Digest, TaskId};
use domain::task::TaskState;
use jiff::SignedDuration;
use store::Filter;

use crate::builds;
use crate::failure::Failure;
use crate::handle::Shared;

/// How long the files of an ended task stay.
const STEPS_KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Tasks looked at, at most, the newest first.
const MAX_TASKS: usize = 5_000;
/// Lines read at once.
const PAGE: u32 = 500;
/// With less of the disk free than one part in so many, the files of ended tasks go at once.
const NEARLY_FULL: u64 = 20;

/// Remembers the layers of ended tasks, which never change again.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    ended: HashMap<TaskId, Vec<Digest>>,
}

impl Keeper {
    /// The layers to keep now.
    pub(crate) async fn layers(&mut self, shared: &Shared) -> Result<HashSet<Digest>, Failure> {
        let mut keep = builds::registry(shared)?.layers()?;
        if nearly_full(shared) || over_budget(shared).await? {
            tracing::warn!("disk space is short: files of ended tasks are not kept for forks");
            self.ended.clear();
            return Ok(keep);
        }
        let lately = self.ended_lately(shared).await?;
        self.ended.retain(|id, _| lately.contains(id));
        for id in lately {
            if let Entry::Vacant(unknown) = self.ended.entry(id) {
                let layers = layers_of(shared, unknown.key()).await?;
                unknown.insert(layers);
            }
        }
        keep.extend(self.ended.values().flatten().cloned());
        Ok(keep)
    }

    async fn ended_lately(&self, shared: &Shared) -> Result<HashSet<TaskId>, Failure> {
        let since = shared.ports.clock.now().checked_sub(STEPS_KEPT_FOR).unwrap_or(jiff::Timestamp::MIN);
        let states: Vec<TaskState> = TaskState::ALL.into_iter().filter(|state| state.is_terminal()).collect();
        let mut found = HashSet::new();
        let mut before = None;
        while found.len() < MAX_TASKS {
            let filter = Filter { states: states.clone(), limit: PAGE, before, ..Filter::default() };
            let page = shared.ports.store.index.list(filter).await;
            let page = page.map_err(|error| Failure::infra(error.to_string()))?;
            before = page.last().map(|task| task.id.clone());
            let fresh = page.iter().filter(|task| task.updated_at >= since);
            let (seen, count) = (found.len(), page.len());
            found.extend(fresh.map(|task| task.id.clone()));
            // Older tasks may have ended later than newer ones, but hardly a whole page of them.
            if count < PAGE as usize || found.len() == seen {
                break;
            }
        }
        Ok(found)
    }
}

async fn layers_of(shared: &Shared, id: &TaskId) -> Result<Vec<Digest>, Failure> {
    let log = shared.logs.open(id).await.map_err(|error| Failure::infra(error.to_string()))?;
    let task = log.task().await;
    let own = task.attempt.and_then(|attempt| attempt.files);
    Ok(own.or_else(|| task.spec.fork?.files).map(|files| files.layers).unwrap_or_default())
}

/// Whether all layers together take more than they may.
async fn over_budget(shared: &Shared) -> Result<bool, Failure> {
    Ok(shared.ports.boxes.usage().await?.layers_bytes > shared.settings.layers_budget_bytes)
}

fn nearly_full(shared: &Shared) -> bool {
    let folder = &shared.settings.scratch;
    rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail < disk.f_blocks / NEARLY_FULL)
}
