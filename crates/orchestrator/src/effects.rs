//! Performs the platform's own effects: collect, gates, publish, merge, land, close.
//!
//! Contract: each may be performed a second time after a crash and then finds what the first time
//! did. Absent: when they are due, which is `plan`'s, and the agent's own effects.

use std::sync::Arc;

use agent::port::FilesFound;
use agent::tools::run::{Finished, run_command};
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::evidence::{Evidence, GateSpec};
use domain::id::{CommitSha, Digest, EffectId, SandboxId};
use domain::task::Task;
use forge::{Merge, Preview, Project};
use policy::LandPermit;
use sandbox::Sandbox;

use crate::boxes;
use crate::builds;
use crate::collect::{Collecting, commit_message};
use crate::doors;
use crate::environment::Ground;
use crate::failure::Failure;
use crate::files;
use crate::handle::Shared;
use crate::live::Live;
use crate::log::TaskLog;
use crate::place::Place;
use crate::ports::Settings;

/// One effect of one task.
pub(crate) struct Performance<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) settings: &'a Settings,
    pub(crate) project: &'a Project,
    pub(crate) place: &'a Arc<Place>,
    pub(crate) log: &'a TaskLog,
    pub(crate) task: &'a Task,
    pub(crate) id: &'a EffectId,
    /// Names this try; a box that is made for it gets this name too.
    pub(crate) gate_box: SandboxId,
    /// For a landing.
    pub(crate) permit: Option<LandPermit>,
}

impl Performance<'_> {
    fn ground(&self) -> Ground<'_> {
        let shared = self.shared;
        Ground { ports: &shared.ports, project: self.project, place: self.place, shared }
    }
}

/// Performs it. The agent's own effects are none of this room's.
pub(crate) async fn perform(performance: &Performance<'_>, effect: &Effect) -> Result<EffectResult, Failure> {
    match effect {
        Effect::Collect { .. } => collect(performance).await,
        Effect::RunGate { gate, commit } => run_gate(performance, gate, commit).await,
        Effect::Publish { commit } => publish(performance, commit).await,
        Effect::MergeBase { commit, onto } => merge_base(performance, commit, onto).await,
        Effect::Land { update_worktree, .. } => land(performance, *update_worktree).await,
        Effect::CloseSandbox { sandbox } => {
            performance.shared.ports.boxes.destroy(sandbox).await?;
            doors::forget(&performance.shared.ports.outside, sandbox);
            Ok(EffectResult::SandboxClosed)
        }
        Effect::Snapshot { sandbox, turn, .. } => {
            files::finish_snapshot(&performance.ground(), performance.task, sandbox, *turn).await
        }
        Effect::BuildEnvironment { .. } => build_environment(performance).await,
        Effect::OpenSandbox { .. } | Effect::CallModel { .. } | Effect::RunTool { .. } | Effect::RunCommand { .. } => {
            Err(Failure::infra(format!("`{}` is not performed here", effect.name())))
        }
    }
}

async fn build_environment(performance: &Performance<'_>) -> Result<EffectResult, Failure> {
    let (shared, task) = (performance.shared, performance.task);
    let clock = &shared.ports.clock;
    let begun = clock.now();
    let show = |text: &str| {
        shared.live.tell(&task.id, Live::Output { source: "environment".to_owned(), text: text.to_owned() })
    };
    let wanted = builds::wanted(shared, performance.project, performance.place, &task.spec.repo.base).await?;
    let ready = builds::ensure(shared, wanted, &show).await?;
    let duration_ms = u64::try_from(clock.now().duration_since(begun).as_millis()).unwrap_or(0);
    let (key, reused) = (ready.key, ready.reused);
    let (layers, env, notes) = (ready.snapshot.layers, ready.env, ready.notes);
    Ok(EffectResult::EnvironmentBuilt { key, layers, env, notes, reused, duration_ms })
}

async fn collect(performance: &Performance<'_>) -> Result<EffectResult, Failure> {
    let (task, ports) = (performance.task, &performance.shared.ports);
    let lost = || Failure::new(FailureClass::Final, FailureSource::Infra, "the task has no sandbox to collect from");
    let sandbox_id = task.attempt_sandbox().ok_or_else(lost)?;
    let (hands, started) = attempt_box(performance, &sandbox_id).await?;
    let collecting = Collecting {
        ports,
        settings: performance.settings,
        project: performance.project,
        task,
        owner: &task.id,
        message: &commit_message(task),
        hands: &*hands,
        name: &format!("{}-{}", performance.id, performance.gate_box),
    };
    let collected = collecting.collect().await;
    if started {
        // It has no way out and nothing that the recipe starts: whoever works in it next starts it anew.
        ports.boxes.stop(&sandbox_id).await?;
    }
    Ok(match collected? {
        None => EffectResult::Collected { commit: None, notes: Vec::new() },
        Some(collected) => EffectResult::Collected { commit: Some(collected.head), notes: collected.notes },
    })
}

/// The attempt's box, and whether it had to be started again on its files. If the files are gone, so is the
/// result, and the agent has to go on.
async fn attempt_box(performance: &Performance<'_>, id: &SandboxId) -> Result<(Arc<dyn Sandbox>, bool), Failure> {
    let ports = &performance.shared.ports;
    if let Some(alive) = ports.boxes.attach(id).await? {
        return Ok((alive, false));
    }
    let spec = |snapshot| performance.place.spec(id, snapshot);
    let started = files::start_attempt(&performance.ground(), performance.log, &spec).await?;
    if started.files != FilesFound::Kept {
        let failure = Failure::new(FailureClass::Unknown, FailureSource::Infra, "the sandbox's files were lost");
        return Err(Failure { tell_agent: started.files.told(), ..failure });
    }
    Ok((started.sandbox, true))
}

async fn run_gate(performance: &Performance<'_>, gate: &GateSpec, commit: &CommitSha) -> Result<EffectResult, Failure> {
    let (shared, settings) = (performance.shared, performance.settings);
    let ports = &shared.ports;
    let snapshot = files::beginning(&performance.ground(), performance.task, commit).await?;
    // A box of this name is what a crash left of the same gate: it is not clean.
    ports.boxes.destroy(&performance.gate_box).await?;
    let hands = ports.boxes.start(performance.place.spec(&performance.gate_box, snapshot)).await?.sandbox;
    boxes::equip(&*hands, performance.place, None, false).await?;
    let wanted = Finished::wanted(&gate.command, gate.time_limit_ms, settings.max_gate_output_bytes);
    let show = |text: &str| {
        shared.live.tell(&performance.task.id, Live::Output { source: gate.name.clone(), text: text.to_owned() })
    };
    let ran = run_command(&*hands, performance.id.as_str(), wanted, &show).await;
    ports.boxes.destroy(&performance.gate_box).await?;
    let finished = ran?;
    let output_tail = finished.tail();
    let output_bytes = finished.output.len() as u64;
    let output_digest = keep(performance, finished.output).await?;
    let evidence = Evidence {
        gate: gate.clone(),
        gate_digest: gate.digest(),
        commit: commit.clone(),
        passed: finished.end.succeeded(),
        end: finished.end,
        duration_ms: finished.duration_ms,
        output_digest,
        output_bytes,
        output_tail,
        sandbox: performance.gate_box.clone(),
        at: ports.clock.now(),
    };
    Ok(EffectResult::GateRan { evidence: Box::new(evidence) })
}

async fn keep(performance: &Performance<'_>, bytes: Vec<u8>) -> Result<Digest, Failure> {
    performance.shared.ports.store.blobs.put(bytes).await.map_err(|error| Failure::infra(error.to_string()))
}

async fn publish(performance: &Performance<'_>, commit: &CommitSha) -> Result<EffectResult, Failure> {
    let published = performance.shared.ports.forge.publish(performance.project, &performance.task.id, commit).await?;
    Ok(EffectResult::Published { branch: published.branch })
}

async fn merge_base(
    performance: &Performance<'_>,
    commit: &CommitSha,
    onto: &CommitSha,
) -> Result<EffectResult, Failure> {
    let task = performance.task;
    let branch = &task.spec.repo.base_branch;
    let message = format!("Merge chargehand/{} into {branch}\n\n{}", task.id.short(), commit_message(task));
    let merge = Merge { task: &task.id, head: commit, onto, message: &message };
    // A base that no longer holds the commit that the work started from was rewritten: merging would
    // bring back what somebody took out, and no diff of the change would show it.
    let start = Merge { head: &task.spec.repo.base, ..merge };
    let forge = &performance.shared.ports.forge;
    if !matches!(forge.merge_preview(performance.project, &start).await?, Preview::Contained) {
        let why = format!(
            "the history of {branch} was rewritten while the task ran: it no longer holds {}, from which the work started; cancel this task and submit it again",
            task.spec.repo.base.short(),
        );
        return Err(Failure::new(FailureClass::NeedsPerson, FailureSource::User, why));
    }
    match forge.merge_preview(performance.project, &merge).await? {
        Preview::Merged(commit) | Preview::UpToDate(commit) => Ok(EffectResult::BaseMerged { commit }),
        // Somebody landed it by hand: landing finds that and says so.
        Preview::Contained => Ok(EffectResult::BaseMerged { commit: commit.clone() }),
        Preview::Conflict { files } => {
            let files: Vec<String> = files.iter().map(ToString::to_string).collect();
            let why = format!(
                "{branch} moved while the task ran and conflicts with the change in {}; cancel this task and submit it again to start from the new {branch}",
                files.join(", "),
            );
            Err(Failure::new(FailureClass::NeedsPerson, FailureSource::User, why))
        }
    }
}

async fn land(performance: &Performance<'_>, update_worktree: bool) -> Result<EffectResult, Failure> {
    let Some(permit) = &performance.permit else {
        return Err(Failure::new(FailureClass::NeedsPerson, FailureSource::User, "there is no permit to land"));
    };
    let options = forge::LandOptions { update_worktree };
    let landed = performance.shared.ports.forge.land(performance.project, permit, options).await?;
    Ok(EffectResult::Landed {
        commit: landed.sha,
        previous: landed.previous,
        worktree_updated: landed.worktree.is_some(),
    })
}
