//! What the rest of the program may ask of the engine: submit, command, look.
//!
//! Absent: HTTP, and any way to change a task but through these.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::command::{Command, decide};
use domain::contract::Contract;
use domain::event::{EVENT_VERSION, Envelope, Event};
use domain::id::{CommitSha, Digest, TaskId};
use domain::principal::Principal;
use domain::task::{AgentSpec, RepoSpec, Task, TaskSpec, TaskSummary};
use forge::Origin;
use serde::{Deserialize, Serialize};
use store::{AppendError, Idempotency, Store};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

use crate::builds::Builds;
use crate::environment::Turns;
use crate::hub::project_of;
use crate::live::{Live, LiveHub};
use crate::log::{Logs, RecordError};
use crate::place::Places;
use crate::ports::{Ports, Settings};
use crate::request::{CommandError, ForkError, MAX_GOAL_CHARS, Submission, SubmitError, Submitted};

/// Most bytes of a patch that is shown.
const MAX_PATCH_BYTES: usize = 8 << 20;

/// What differs between the base and the proposed change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDiff {
    /// From this commit.
    pub base: CommitSha,
    /// To this one.
    pub head: CommitSha,
    /// File by file.
    pub files: Vec<DiffFile>,
    /// The patch, as text; bytes that are not UTF-8 are replaced.
    pub patch: String,
    /// Whether the patch was cut because it is too long.
    pub truncated: bool,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffFile {
    /// Its path, as text.
    pub path: String,
    /// Its path before, if it was renamed.
    pub old_path: Option<String>,
    /// `added`, `modified`, `deleted`, `renamed` or `type_changed`.
    pub status: String,
    /// Lines that came.
    pub added_lines: u64,
    /// Lines that went.
    pub removed_lines: u64,
    /// Whether it is no text.
    pub binary: bool,
}

impl From<forge::FileChange> for DiffFile {
    fn from(file: forge::FileChange) -> Self {
        let status = match file.kind {
            forge::ChangeKind::Added => "added",
            forge::ChangeKind::Deleted => "deleted",
            forge::ChangeKind::Modified => "modified",
            forge::ChangeKind::Renamed => "renamed",
            forge::ChangeKind::TypeChanged => "type_changed",
        };
        Self {
            path: file.path.to_string(),
            old_path: file.old_path.map(|path| path.to_string()),
            status: status.to_owned(),
            added_lines: file.added_lines,
            removed_lines: file.removed_lines,
            binary: file.binary,
        }
    }
}

/// The engine, as the server sees it. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// Finds out by trying whether boxes can be had here, and if not, why.
pub(crate) async fn no_boxes(boxes: &dyn sandbox::Provider) -> Option<String> {
    let capabilities = boxes.probe().await;
    let fatal = capabilities.problems.iter().filter(|problem| problem.fatal);
    let problems: Vec<String> = fatal.map(ToString::to_string).collect();
    (!capabilities.usable)
        .then(|| format!("this machine can't run sandboxes: {}. `chargehand doctor` tells more", problems.join("; ")))
}

/// What handle and engine share.
pub(crate) struct Shared {
    pub(crate) ports: Ports,
    pub(crate) logs: Logs,
    pub(crate) live: LiveHub,
    pub(crate) settings: Settings,
    pub(crate) places: Places,
    /// Taken for each environment that is made.
    pub(crate) turns: Turns,
    /// What builds of environments share.
    pub(crate) builds: Builds,
    /// What writes down what passes doors; each ends with its door.
    pub(crate) reporters: Mutex<JoinSet<()>>,
    /// Work that goes on when nobody waits for it any more: builds, and moves to other commits.
    pub(crate) works: Mutex<JoinSet<()>>,
    pub(crate) wake: mpsc::UnboundedSender<TaskId>,
    /// Why this machine can't run boxes, as far as is known.
    pub(crate) no_boxes: Mutex<Option<String>>,
}

impl Shared {
    /// Why this machine can't run boxes. What was lacking may have been mended since it was found.
    pub(crate) async fn without_boxes(&self) -> Option<String> {
        let known = self.no_boxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.as_ref()?;
        let found = no_boxes(&*self.ports.boxes).await;
        self.no_boxes.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        found
    }

    /// Work that nobody waits for.
    pub(crate) fn works(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        while works.try_join_next().is_some() {}
        works
    }

    /// What writes down what passes doors, without those that are done.
    pub(crate) fn reporters(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut reporters = self.reporters.lock().unwrap_or_else(PoisonError::into_inner);
        while reporters.try_join_next().is_some() {}
        reporters
    }
}

impl Handle {
    /// Accepts a task: when it returns `Ok`, the task is on disk and will be worked on.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    pub async fn submit(
        &self,
        submission: Submission,
        who: &Principal,
        idempotency_key: Option<String>,
    ) -> Result<Submitted, SubmitError> {
        let idempotency = idempotency_key.map(|key| Idempotency {
            scope: format!("submit {who}"),
            key,
            body_digest: Digest::of(&serde_json::to_vec(&submission).unwrap_or_default()),
        });
        if let Some(earlier) = self.earlier(idempotency.as_ref()).await? {
            return Ok(earlier);
        }
        let goal = submission.goal.trim();
        let chars = goal.chars().count();
        if goal.is_empty() {
            return Err(SubmitError::EmptyGoal);
        }
        if chars > MAX_GOAL_CHARS {
            return Err(SubmitError::LongGoal { chars });
        }
        submission.contract.check()?;
        let agent = self.agent(&submission)?;
        if let Some(why) = self.shared.without_boxes().await {
            return Err(SubmitError::NoSandbox(why));
        }
        let forge = &self.shared.ports.forge;
        let origin = Origin::parse(&submission.repo).map_err(|error| SubmitError::Repo(error.to_string()))?;
        if origin.has_secret() {
            return Err(SubmitError::OriginSecret);
        }
        let project = forge.open(&origin).await.map_err(|error| SubmitError::Repo(error.to_string()))?;
        let base = forge
            .resolve_base(&project, submission.base.as_deref())
            .await
            .map_err(|error| SubmitError::Repo(error.to_string()))?;
        let mut notes: Vec<String> = base.notes.iter().map(ToString::to_string).collect();
        notes.extend(self.unpriced(&agent, &submission.contract));
        let spec = TaskSpec {
            goal: goal.to_owned(),
            repo: RepoSpec { origin: project.origin_text().to_owned(), base_branch: base.branch, base: base.sha },
            agent,
            contract: submission.contract,
            fork: None,
        };
        self.accept(spec, (notes, Vec::new()), who, idempotency).await
    }

    fn agent(&self, submission: &Submission) -> Result<AgentSpec, SubmitError> {
        match submission.agent.as_str() {
            "native" => {
                let chosen =
                    self.shared.ports.models.choose(submission.model.as_deref()).map_err(SubmitError::Model)?;
                Ok(AgentSpec::Native { model: chosen.selection })
            }
            "command" if submission.argv.is_empty() => Err(SubmitError::NoCommand),
            "command" => Ok(AgentSpec::Command { argv: submission.argv.clone() }),
            other => Err(SubmitError::UnknownAgent { given: other.to_owned() }),
        }
    }

    /// A limit on money can't be kept where nobody knows the price.
    fn unpriced(&self, agent: &AgentSpec, contract: &Contract) -> Option<String> {
        let AgentSpec::Native { model } = agent else { return None };
        let chosen = self.shared.ports.models.choose(Some(model)).ok()?;
        let unknown = contract.budget.money_micro_usd.is_some() && chosen.provider.price(&chosen.model).is_none();
        unknown.then(|| {
            format!(
                "no price is known for {model}, so the limit on money is not kept; those on turns, tokens and time are"
            )
        })
    }

    /// The task that an earlier request under the same key made, before any work is done.
    pub(crate) async fn earlier(&self, idempotency: Option<&Idempotency>) -> Result<Option<Submitted>, SubmitError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let stored = self.shared.ports.store.index.by_key(&idempotency.scope, &idempotency.key).await;
        match stored.map_err(|error| SubmitError::Store(error.to_string()))? {
            None => Ok(None),
            Some(stored) if stored.body_digest == idempotency.body_digest => self.found(&stored.task).await.map(Some),
            Some(stored) => Err(SubmitError::KeyReused { task: stored.task }),
        }
    }

    async fn found(&self, id: &TaskId) -> Result<Submitted, SubmitError> {
        let log = self.shared.logs.open(id).await.map_err(|error| SubmitError::Store(error.to_string()))?;
        let task = log.task().await;
        Ok(Submitted { task: TaskSummary::from(&task), created: false, notes: task.notes })
    }

    /// Stores a new task with remarks for people and what is said to its agent at once.
    pub(crate) async fn accept(
        &self,
        spec: TaskSpec,
        (notes, said): (Vec<String>, Vec<Event>),
        who: &Principal,
        idempotency: Option<Idempotency>,
    ) -> Result<Submitted, SubmitError> {
        let id = TaskId::from_random(self.shared.ports.random.bits());
        let first = Envelope {
            v: EVENT_VERSION,
            task: id.clone(),
            seq: 1,
            at: self.shared.ports.clock.now(),
            actor: who.clone(),
            event: Event::TaskSubmitted { spec: Box::new(spec), notes: notes.clone() },
        };
        match self.shared.logs.create(first, said, idempotency).await {
            Ok(log) => {
                let task = log.task().await;
                let _ = self.shared.wake.send(id);
                Ok(Submitted { task: TaskSummary::from(&task), created: true, notes })
            }
            Err(RecordError::Store(AppendError::Duplicate { task })) => self.found(&task).await,
            Err(RecordError::Store(AppendError::KeyReused { task })) => Err(SubmitError::KeyReused { task }),
            Err(RecordError::Store(AppendError::DiskFull)) => Err(SubmitError::DiskFull),
            Err(error) => Err(SubmitError::Store(error.to_string())),
        }
    }

    /// Carries out what a person asks of a task: when it returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// [`CommandError`]; nothing is changed then.
    pub async fn command(&self, id: &TaskId, command: &Command, who: &Principal) -> Result<Task, CommandError> {
        let log = self.shared.logs.open(id).await?;
        let (task, ()) =
            log.record(who, |task| -> Result<_, CommandError> { Ok((decide(task, command, who)?, ())) }).await?;
        let _ = self.shared.wake.send(id.clone());
        Ok(task)
    }

    /// A task as it stands.
    ///
    /// # Errors
    /// [`CommandError::NotFound`], or that it can't be read.
    pub async fn task(&self, id: &TaskId) -> Result<Task, CommandError> {
        Ok(self.shared.logs.open(id).await?.task().await)
    }

    /// What the proposed change changes.
    ///
    /// # Errors
    /// [`CommandError::NoChange`] before there is one.
    pub async fn diff(&self, id: &TaskId) -> Result<TaskDiff, CommandError> {
        let task = self.task(id).await?;
        let change = task.change.as_ref().ok_or_else(|| CommandError::NoChange { state: task.state.name() })?;
        let forge = &self.shared.ports.forge;
        let project = project_of(&**forge, &task).await.map_err(|failure| CommandError::Store(failure.message))?;
        let (base, head) = (task.spec.repo.base.clone(), change.head.clone());
        self.compared(&project, base, head).await
    }

    /// Two commits of the hub, compared.
    pub(crate) async fn compared(
        &self,
        project: &forge::Project,
        base: CommitSha,
        head: CommitSha,
    ) -> Result<TaskDiff, CommandError> {
        let diff = self.shared.ports.forge.diff(project, &base, &head, MAX_PATCH_BYTES).await;
        let diff = diff.map_err(|error| CommandError::Store(error.to_string()))?;
        let patch = String::from_utf8_lossy(&diff.patch).into_owned();
        let files = diff.files.into_iter().map(DiffFile::from).collect();
        Ok(TaskDiff { base, head, files, patch, truncated: diff.truncated, notes: Vec::new() })
    }

    /// Watches a task from now on.
    #[must_use]
    pub fn watch(&self, id: &TaskId) -> broadcast::Receiver<Live> {
        self.shared.live.watch(id)
    }

    /// The store, to read from.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.ports.store
    }
}

impl From<RecordError> for ForkError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::NotFound(id) => Self::NotFound(id.to_string()),
            other => Self::Store(other.to_string()),
        }
    }
}

impl From<RecordError> for CommandError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::NotFound(id) => Self::NotFound(id.to_string()),
            RecordError::Store(AppendError::DiskFull) => Self::DiskFull,
            other => Self::Store(other.to_string()),
        }
    }
}
