//! Boxes for tasks: a commit becomes a layer, a layer becomes a running box.
//!
//! The layer of a commit is made once and shared; each box has its own writable view of it. Absent:
//! how a box works, and any knowledge of which provider makes it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use agent::native::FILES_LOST;
use agent::port::{FilesKept, Hands, NoHands};
use async_trait::async_trait;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::id::{CommitSha, Digest, SandboxId};
use forge::Project;
use sandbox::{Advice, Root, Sandbox, SandboxError, SnapshotRef, StartSpec, Started, StartedAs};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::journal::TaskJournal;
use crate::ports::{Ports, Settings};

/// Where a box has the repository.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Commits of history that a box gets, so that `git log` and `git blame` are of use.
const HISTORY_COMMITS: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);

/// The branch that is checked out in every box.
const BRANCH: &str = "work";

/// The key of the layer that holds a checkout of `commit`. The same for all tasks and gates.
pub(crate) fn layer_key(project: &Project, commit: &CommitSha) -> Digest {
    Digest::of(format!("checkout/1\n{}\n{commit}\n{BRANCH}\n{HISTORY_COMMITS}", project.key()).as_bytes())
}

/// The layer that holds a checkout of `commit`.
pub(crate) async fn layer(ports: &Ports, project: &Project, commit: &CommitSha) -> Result<SnapshotRef, Failure> {
    let key = layer_key(project, commit);
    if let Some(snapshot) = ports.boxes.prepared(&key).await? {
        return Ok(snapshot);
    }
    let staging = ports.boxes.stage(&key, &PathBuf::from(WORKSPACE)).await?;
    let checkout = forge::Checkout { branch_name: BRANCH.to_owned(), depth: Some(HISTORY_COMMITS) };
    ports.forge.checkout(project, commit, &staging.content, &checkout).await?;
    Ok(ports.boxes.prepare(&key, staging, sandbox::Owners::Root).await?)
}

/// Starts a box, or goes on with the one of this id.
pub(crate) async fn start(
    ports: &Ports,
    settings: &Settings,
    id: &SandboxId,
    snapshot: SnapshotRef,
) -> Result<Started, SandboxError> {
    ports
        .boxes
        .start(StartSpec {
            id: id.clone(),
            snapshot,
            root: Root::Host,
            door: None,
            limits: settings.limits,
            env: Vec::new(),
            binds: Vec::new(),
            workdir: PathBuf::from(WORKSPACE),
        })
        .await
}

type Ready = Option<Result<Arc<dyn Sandbox>, NoHands>>;

/// The box of an attempt, opened while the model already thinks.
pub(crate) struct BoxHands<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) settings: &'a Settings,
    pub(crate) project: &'a Project,
    pub(crate) id: SandboxId,
    pub(crate) attempt: u32,
    pub(crate) base: CommitSha,
    pub(crate) ready: watch::Sender<Ready>,
}

impl BoxHands<'_> {
    /// Opens the box, with intent and result in the journal, and tells those who wait for it.
    pub(crate) async fn open(&self, journal: &TaskJournal) {
        let opened = self.opened(journal).await.map_err(|failure| NoHands { message: failure.message });
        self.ready.send_replace(Some(opened));
    }

    async fn opened(&self, journal: &TaskJournal) -> Result<Arc<dyn Sandbox>, Failure> {
        use agent::port::Journal as _;
        let effect = Effect::OpenSandbox { sandbox: self.id.clone(), attempt: self.attempt };
        let id = journal.start(effect).await.map_err(Failure::journal)?;
        let begun = journal.now();
        let started = self.start().await;
        let duration_ms = u64::try_from(journal.now().duration_since(begun).as_millis()).unwrap_or(0);
        let (result, opened) = match started {
            Ok(started) => {
                let resumed = !matches!(started.found, StartedAs::Fresh);
                let lost = started.found == StartedAs::FilesLost;
                (EffectResult::SandboxOpened { resumed, duration_ms }, Ok((started.sandbox, lost)))
            }
            Err(failure) => (failure.result(), Err(failure)),
        };
        journal.end(&id, result).await.map_err(Failure::journal)?;
        let (sandbox, lost) = opened?;
        if lost {
            journal.tell_agent(FILES_LOST).await.map_err(Failure::journal)?;
        }
        Ok(sandbox)
    }

    async fn start(&self) -> Result<Started, Failure> {
        let snapshot = layer(self.ports, self.project, &self.base).await?;
        Ok(start(self.ports, self.settings, &self.id, snapshot).await?)
    }
}

#[async_trait]
impl Hands for BoxHands<'_> {
    async fn ready(&self) -> Result<Arc<dyn Sandbox>, NoHands> {
        let mut ready = self.ready.subscribe();
        let gone = || NoHands { message: "nobody opens the sandbox".to_owned() };
        let opened = ready.wait_for(Option::is_some).await.map_err(|_| gone())?;
        opened.clone().unwrap_or_else(|| Err(gone()))
    }

    async fn revive(&self) -> Result<FilesKept, NoHands> {
        let revived = self.start().await.map_err(|failure| NoHands { message: failure.message });
        let kept = revived.as_ref().map(|started| started.found != StartedAs::FilesLost).map_err(Clone::clone);
        self.ready.send_replace(Some(revived.map(|started| started.sandbox)));
        kept
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let class = match error.advice() {
            Advice::StartAgain | Advice::Retry => FailureClass::Retry,
            Advice::ChangeRequest => FailureClass::Final,
            Advice::FixMachine => FailureClass::NeedsPerson,
        };
        Self::new(class, FailureSource::Infra, error.to_string())
    }
}
