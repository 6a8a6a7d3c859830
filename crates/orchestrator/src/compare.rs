//! What happened between two steps: the files of both, compared.
//!
//! Each side's files come out of a box of their own as a commit, the way a result does, and the
//! host compares the commits. Absent: any look at the layers, which hold what the agent's tools
//! left behind outside the repository too.

use domain::id::{CommitSha, Digest, SandboxId, TaskId};
use domain::step::StepFiles;
use domain::task::Task;
use forge::Project;

use crate::collect::Collecting;
use crate::failure::Failure;
use crate::handle::{Handle, TaskDiff};
use crate::hub::project_of;
use crate::place::place_of;
use crate::request::ForkError;

impl Handle {
    /// What changed between two turns of a task's newest attempt; turn 0 is the beginning. As far as
    /// files were kept: a side is the newest that was kept up to its turn.
    ///
    /// # Errors
    /// [`ForkError`], also if the files of a side are no longer there.
    pub async fn diff_turns(&self, id: &TaskId, from: u32, to: u32) -> Result<TaskDiff, ForkError> {
        let task = self.task(id).await.map_err(|error| ForkError::Store(error.to_string()))?;
        let forge = &*self.shared.ports.forge;
        let project = project_of(forge, &task).await.map_err(|failure| ForkError::Store(failure.message))?;
        let (base, base_turn) = self.commit_of(&project, &task, from).await?;
        let (head, head_turn) = self.commit_of(&project, &task, to).await?;
        let compared = self.compared(&project, base, head).await;
        let compared = compared.map_err(|error| ForkError::Store(error.to_string()))?;
        let older = [(from, base_turn), (to, head_turn)].into_iter().filter(|(wanted, kept)| kept < wanted);
        let note = |(wanted, kept)| {
            format!(
                "for turn {wanted} the files kept after turn {kept} are shown: nothing was kept since, because nothing changed or a program was running"
            )
        };
        Ok(TaskDiff { notes: older.map(note).collect(), ..compared })
    }

    /// The files after a turn, as a commit in the hub, and after which turn they were kept.
    async fn commit_of(&self, project: &Project, task: &Task, turn: u32) -> Result<(CommitSha, u32), ForkError> {
        let (_, files) = self.files_after(&task.id, turn).await?;
        match files {
            None => Ok((task.spec.repo.base.clone(), 0)),
            Some(files) => {
                let kept = files.turn;
                let commit = self.brought_out(project, task, files).await.map_err(|failure| {
                    ForkError::Gone(format!("the files of turn {turn} can't be had: {}", failure.message))
                })?;
                Ok((commit, kept))
            }
        }
    }

    async fn brought_out(&self, project: &Project, task: &Task, files: StepFiles) -> Result<CommitSha, Failure> {
        let (ports, settings) = (&self.shared.ports, &self.shared.settings);
        // Two who look at once must not share a box that the first takes away.
        let name = format!("look-{:x}", ports.random.bits());
        let id = SandboxId::parse(&format!("{}-{name}", task.id)).map_err(|error| Failure::infra(error.to_string()))?;
        let snapshot = sandbox::SnapshotRef { layers: files.layers.clone() };
        let place = place_of(&self.shared, project, task).await?;
        let started = ports.boxes.start(place.spec(&id, snapshot)).await;
        let owner = TaskId::from_random(seed(&task.id));
        let collected = match &started {
            Ok(started) => {
                let hands = &*started.sandbox;
                // Another commit than the result's, which the hub may hold under the task's own name.
                let message = format!("The files of task {} after turn {}", task.id, files.turn);
                let owner = &owner;
                Collecting { ports, settings, project, task, owner, message: &message, hands, name: &name }
                    .collect()
                    .await
            }
            Err(error) => Err(Failure::infra(error.to_string())),
        };
        ports.boxes.destroy(&id).await?;
        Ok(collected?.map_or_else(|| task.spec.repo.base.clone(), |collected| collected.head))
    }
}

/// The name under which the hub keeps what was looked at of a task, beside its results.
fn seed(task: &TaskId) -> u64 {
    let digest = Digest::of(format!("looked at {task}").as_bytes());
    u64::from_str_radix(digest.as_str().get(..15).unwrap_or("0"), 16).unwrap_or(0)
}
