//! With which files a box of a task starts: as its last step left them, as an earlier one did, as
//! the environment is, or as the base commit is.
//!
//! The log knows the kept files of every step, the provider knows which of their layers are still
//! there and what a living box stands on. A box that was lost goes on from the newest files that
//! can be had, and whoever starts it is told after which turn those were. Absent: keeping them;
//! the agent's driver says when.

use std::sync::Arc;

use agent::port::FilesFound;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::event::Event;
use domain::id::{CommitSha, SandboxId};
use domain::step::StepFiles;
use domain::task::Task;
use sandbox::{Sandbox, SandboxError, SnapshotRef, StartSpec, Started, StartedAs};

use crate::environment::Ground;
use crate::failure::Failure;
use crate::log::TaskLog;

/// A box of an attempt that was started, and what it found.
pub(crate) struct Attempted {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// Whether it was alive.
    pub(crate) adopted: bool,
    /// Whether it goes on with anything from before.
    pub(crate) resumed: bool,
    pub(crate) files: FilesFound,
}

/// Starts the box of the current attempt, or goes on with it. `spec` makes the start from its id
/// and a snapshot.
pub(crate) async fn start_attempt(
    ground: &Ground<'_>,
    log: &TaskLog,
    spec: &(dyn Fn(SnapshotRef) -> StartSpec + Sync),
) -> Result<Attempted, Failure> {
    let ports = ground.ports;
    let task = log.task().await;
    let id = spec(SnapshotRef { layers: Vec::new() }).id;
    if let Some(stack) = ports.boxes.stack(&id).await? {
        // Its own changes lie on this, whatever the log has heard of the last snapshot.
        match ports.boxes.start(spec(stack)).await {
            Ok(started) if started.found != StartedAs::FilesLost => return Ok(kept(started)),
            Ok(_) | Err(SandboxError::LayerMissing { .. }) => ports.boxes.destroy(&id).await?,
            Err(error) => return Err(error.into()),
        }
    }
    for files in kept_files(&task, log).await? {
        match ports.boxes.start(spec(SnapshotRef { layers: files.layers })).await {
            Ok(started) => return Ok(begun(&task, started, files.turn)),
            Err(SandboxError::LayerMissing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(fork) = &task.spec.fork
        && fork.files.is_some()
    {
        let why = format!(
            "the files of turn {} of task {} are no longer kept; fork a later turn, or delegate the task anew",
            fork.turn, fork.task
        );
        return Err(Failure::new(FailureClass::Final, FailureSource::User, why));
    }
    let base = beginning(ground, &task, &task.spec.repo.base).await?;
    Ok(begun(&task, ports.boxes.start(spec(base)).await?, 0))
}

/// The snapshot for clean boxes of a task at a commit.
pub(crate) async fn beginning(ground: &Ground<'_>, task: &Task, commit: &CommitSha) -> Result<SnapshotRef, Failure> {
    let built = task.environment.as_ref().and_then(|environment| environment.layers.clone());
    ground.at(built.map(|layers| SnapshotRef { layers }).as_ref(), commit).await
}

fn kept(started: Started) -> Attempted {
    let adopted = started.found == StartedAs::Adopted;
    Attempted { sandbox: started.sandbox, adopted, resumed: true, files: FilesFound::Kept }
}

/// A box that is new although its attempt has worked before lost what came after `turn`.
fn begun(task: &Task, started: Started, turn: u32) -> Attempted {
    let worked = task.attempt.as_ref().is_some_and(|attempt| attempt.turns > 0 || attempt.end.is_some());
    let files = if worked { FilesFound::AsOfTurn(turn) } else { FilesFound::Kept };
    Attempted { sandbox: started.sandbox, adopted: false, resumed: worked, files }
}

/// The kept files that the current attempt may start from, newest first.
async fn kept_files(task: &Task, log: &TaskLog) -> Result<Vec<StepFiles>, Failure> {
    let of_fork = task.spec.fork.as_ref().and_then(|fork| fork.files.clone());
    let Some(attempt) = task.attempt.as_ref().filter(|attempt| attempt.files.is_some()) else {
        return Ok(of_fork.into_iter().collect());
    };
    let events = log.events_after(0).await.map_err(|error| Failure::infra(error.to_string()))?;
    let mut steps = steps(events.iter().map(|envelope| &envelope.event), attempt.number);
    steps.reverse();
    steps.extend(of_fork);
    Ok(steps)
}

/// The kept files of an attempt, oldest first.
pub(crate) fn steps<'a>(events: impl Iterator<Item = &'a Event>, attempt: u32) -> Vec<StepFiles> {
    let mut open = std::collections::BTreeMap::new();
    let mut steps = Vec::new();
    for event in events {
        match event {
            Event::EffectStarted { id, effect: Effect::Snapshot { attempt: of, turn, .. } } if *of == attempt => {
                open.insert(id, *turn);
            }
            Event::EffectEnded { id, result: EffectResult::SnapshotTaken { layers, .. } } => {
                if let Some(turn) = open.remove(id) {
                    steps.push(StepFiles { turn, layers: layers.clone() });
                }
            }
            _ => {}
        }
    }
    steps
}

/// Layers below the agent's own: the environment's, if one was built, and the checkout's.
pub(crate) fn keep_lowest(task: &Task) -> usize {
    task.environment.as_ref().and_then(|environment| environment.layers.as_ref()).map_or(1, |built| built.len() + 1)
}

/// Finishes a snapshot whose result was never stored.
pub(crate) async fn finish_snapshot(
    ground: &Ground<'_>,
    task: &Task,
    sandbox: &SandboxId,
    turn: u32,
) -> Result<EffectResult, Failure> {
    let key = agent::native::snapshot_key(sandbox, turn);
    let taken = |layers| EffectResult::SnapshotTaken { layers, duration_ms: 0 };
    match ground.ports.boxes.snapshot(sandbox, &key).await {
        Ok(snapshot) => Ok(taken(snapshot.layers)),
        // The box went after its layer was kept, on its way to a merged stack.
        Err(SandboxError::Gone { .. }) if ground.ports.boxes.prepared(&key).await?.is_some() => {
            let own = task.attempt.as_ref().and_then(|attempt| attempt.files.clone());
            let below = match own.or_else(|| task.spec.fork.as_ref()?.files.clone()) {
                Some(files) => files.layers,
                None => beginning(ground, task, &task.spec.repo.base).await?.layers,
            };
            Ok(taken(below.into_iter().chain([key]).collect()))
        }
        Err(error) => Ok(Failure::from(error).result()),
    }
}
