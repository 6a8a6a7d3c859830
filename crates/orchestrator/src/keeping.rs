//! Which layers outlast their use: those of environments and of tasks that have not ended, always; all
//! others as long as there is room, so that ended tasks can still be forked and compared.
//!
//! Absent: removing, and which of the others were used last; the provider knows.

use std::collections::HashSet;

use domain::id::Digest;

use crate::builds;
use crate::failure::Failure;
use crate::files::steps;
use crate::handle::Shared;

/// With less of the disk free than one part in so many, nothing is kept that nobody needs.
const NEARLY_FULL: u64 = 20;

/// Removes layers that nobody needs, if there is no room for them; gives how many.
pub(crate) async fn tidy(shared: &Shared) -> Result<usize, Failure> {
    let removed = shared.collect_environments(false).await?.records.len();
    if removed > 0 {
        tracing::info!(removed, "removed environments that nobody used lately");
    }
    let keep = needed(shared).await?;
    let budget_bytes = if nearly_full(shared) { 0 } else { shared.settings.layers_budget_bytes };
    Ok(shared.ports.boxes.retain_layers_within(&keep, budget_bytes).await?)
}

/// Layers of environments, and of every step of tasks that have not ended.
async fn needed(shared: &Shared) -> Result<HashSet<Digest>, Failure> {
    let mut needed = builds::registry(shared)?.layers()?;
    let unfinished = shared.ports.store.index.unfinished().await;
    for id in unfinished.map_err(|error| Failure::infra(error.to_string()))? {
        let read = async {
            let log = shared.logs.open(&id).await?;
            Ok::<_, crate::log::RecordError>((log.task().await, log.events_after(0).await?))
        };
        let (task, events) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(task = %id, %error, "nothing is known of the files that it needs");
                continue;
            }
        };
        needed.extend(task.environment.into_iter().flat_map(|environment| environment.layers.unwrap_or_default()));
        needed.extend(task.spec.fork.and_then(|fork| fork.files).into_iter().flat_map(|files| files.layers));
        if let Some(attempt) = task.attempt {
            let kept = steps(events.iter().map(|envelope| &envelope.event), attempt.number);
            needed.extend(kept.into_iter().flat_map(|files| files.layers));
        }
    }
    Ok(needed)
}

fn nearly_full(shared: &Shared) -> bool {
    let folder = &shared.settings.scratch;
    let full = rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail < disk.f_blocks / NEARLY_FULL);
    if full {
        tracing::warn!("the disk is nearly full: files of ended tasks are not kept for forks");
    }
    full
}
