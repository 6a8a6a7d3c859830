//! Boxes for tasks: a commit becomes a layer, a layer becomes a running box.
//!
//! The layer of a commit is made once and shared; each box has its own writable view of it. Absent:
//! how a box works, and any knowledge of which provider makes it.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use agent::port::{FilesFound, Hands, NoHands};
use async_trait::async_trait;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::id::{CommitSha, Digest, SandboxId};
use forge::Project;
use sandbox::{Advice, Sandbox, SandboxError, SnapshotRef, StartSpec};
use tokio::sync::watch;

use crate::environment::Ground;
use crate::failure::Failure;
use crate::files::{self, Attempted};
use crate::journal::TaskJournal;
use crate::log::TaskLog;
use crate::ports::Ports;

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
    ports.forge.checkout(project, commit, &staging.content, &how()).await?;
    Ok(ports.boxes.prepare(&key, staging, sandbox::Owners::Root).await?)
}

/// How a repository is checked out for a box.
pub(crate) fn how() -> forge::Checkout {
    forge::Checkout { branch_name: BRANCH.to_owned(), depth: Some(HISTORY_COMMITS) }
}

type Ready = Option<Result<Arc<dyn Sandbox>, NoHands>>;

/// The box of an attempt, opened while the model already thinks.
pub(crate) struct BoxHands<'a> {
    pub(crate) ground: Ground<'a>,
    pub(crate) log: &'a TaskLog,
    pub(crate) id: SandboxId,
    pub(crate) attempt: u32,
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
        let result = match &started {
            Ok(started) => EffectResult::SandboxOpened { resumed: started.resumed, duration_ms },
            Err(failure) => failure.result(),
        };
        journal.end(&id, result).await.map_err(Failure::journal)?;
        let started = started?;
        if let Some(lost) = started.files.told() {
            journal.tell_agent(&lost).await.map_err(Failure::journal)?;
        }
        Ok(started.sandbox)
    }

    async fn start(&self) -> Result<Attempted, Failure> {
        files::start_attempt(&self.ground, self.log, &|snapshot| self.spec(snapshot)).await
    }

    fn spec(&self, snapshot: SnapshotRef) -> StartSpec {
        self.ground.place.spec(&self.id, snapshot)
    }

    async fn kept(&self, key: &Digest) -> Result<(Vec<Digest>, Result<Arc<dyn Sandbox>, NoHands>), SandboxError> {
        let snapshot = self.ground.ports.boxes.snapshot(&self.id, key).await?;
        let layers = snapshot.layers.clone();
        let started = self.ground.ports.boxes.start(self.spec(snapshot)).await;
        let sandbox = started.map(|started| started.sandbox).map_err(|error| no_hands(&error));
        Ok((layers, sandbox))
    }
}

fn no_hands(error: &SandboxError) -> NoHands {
    NoHands { message: error.to_string() }
}

#[async_trait]
impl Hands for BoxHands<'_> {
    async fn ready(&self) -> Result<Arc<dyn Sandbox>, NoHands> {
        let mut ready = self.ready.subscribe();
        let gone = || NoHands { message: "nobody opens the sandbox".to_owned() };
        let opened = ready.wait_for(Option::is_some).await.map_err(|_| gone())?;
        opened.clone().unwrap_or_else(|| Err(gone()))
    }

    async fn revive(&self) -> Result<FilesFound, NoHands> {
        let revived = self.start().await.map_err(|failure| NoHands { message: failure.message });
        let found = revived.as_ref().map(|started| started.files).map_err(Clone::clone);
        self.ready.send_replace(Some(revived.map(|started| started.sandbox)));
        found
    }

    async fn can_keep(&self) -> bool {
        let (changed, busy) = (self.ground.ports.boxes.changed(&self.id).await, self.ground.ports.boxes.busy(&self.id).await);
        matches!((changed, busy), (Ok(true), Ok(false)))
    }

    async fn keep(&self, key: &Digest) -> Result<Vec<Digest>, NoHands> {
        self.ready.send_replace(None);
        match self.kept(key).await {
            Ok((layers, sandbox)) => {
                self.ready.send_replace(Some(sandbox));
                Ok(layers)
            }
            Err(error) => {
                // The files are where they were; the box goes on from them if it can.
                let revived = self.start().await.map_err(|failure| NoHands { message: failure.message });
                self.ready.send_replace(Some(revived.map(|started| started.sandbox)));
                Err(no_hands(&error))
            }
        }
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
