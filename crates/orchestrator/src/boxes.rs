//! Boxes for tasks: a commit becomes a layer, a layer becomes a running box.
//!
//! The layer of a commit is made once and shared; each box has its own writable view of it. Absent:
//! how a box works, and any knowledge of which provider makes it.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::port::{FilesFound, Hands, NoHands, NotKept};
use async_trait::async_trait;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::id::{CommitSha, Digest, SandboxId};
use forge::Project;
use sandbox::{Advice, ExecRequest, Sandbox, SandboxError, SnapshotRef, StartSpec};
use tokio::sync::watch;

use crate::doors::OpenDoor;
use crate::environment::Ground;
use crate::failure::Failure;
use crate::files::{self, Attempted};
use crate::journal::TaskJournal;
use crate::log::TaskLog;
use crate::place::Place;
use crate::ports::Ports;

/// Where a box has the repository.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Commits of history that a box gets, so that `git log` and `git blame` are of use.
const HISTORY_COMMITS: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);

/// What the exec ids of start commands begin with.
const START: &str = "start-";
/// How long a start command may take to be on its way.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Layers of an attempt's own after which they are merged: lookups are still quick then.
const FLATTEN_AT: usize = 16;
/// Layers of an attempt's own that are too many even if merging fails.
const FLATTEN_BY: usize = 128;

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
    /// The way out, while this is at work.
    pub(crate) door: Option<&'a OpenDoor>,
    pub(crate) id: SandboxId,
    pub(crate) attempt: u32,
    /// Layers of the environment and the checkout, which are never merged with the agent's.
    pub(crate) keep_lowest: usize,
    pub(crate) ready: watch::Sender<Ready>,
}

impl BoxHands<'_> {
    /// Opens the box, with intent and result in the journal, and tells those who wait for it.
    pub(crate) async fn open(&self, journal: &TaskJournal) {
        let opened = self.opened(journal).await.map_err(without_hands);
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
        let started = files::start_attempt(&self.ground, self.log, &|snapshot| self.spec(snapshot)).await?;
        equip(&*started.sandbox, self.ground.place, self.door, started.adopted).await?;
        Ok(started)
    }

    fn spec(&self, snapshot: SnapshotRef) -> StartSpec {
        let spec = self.ground.place.spec(&self.id, snapshot);
        match self.door {
            Some(door) => door.added_to(spec),
            None => spec,
        }
    }

    /// The same files on fewer layers, once there are many: each makes every look at a missing file slower.
    async fn flattened(&self, snapshot: SnapshotRef, key: &Digest) -> Result<SnapshotRef, SandboxError> {
        let own = snapshot.layers.len().saturating_sub(self.keep_lowest);
        if own < FLATTEN_AT {
            return Ok(snapshot);
        }
        let name = Digest::of(format!("flat/1\n{key}").as_bytes());
        match self.ground.ports.boxes.flatten(&snapshot, self.keep_lowest, &name).await {
            Ok(flat) => {
                // The box has no changes of its own just now; it starts anew on the merged layer. Were
                // this the end of the program, the kept layers would be found.
                self.ground.ports.boxes.destroy(&self.id).await?;
                Ok(flat)
            }
            Err(error) if own < FLATTEN_BY => {
                tracing::warn!(sandbox = %self.id, %error, "layers could not be merged");
                Ok(snapshot)
            }
            Err(error) => Err(error),
        }
    }

    async fn kept(&self, key: &Digest) -> Result<(Vec<Digest>, Result<Arc<dyn Sandbox>, NoHands>), SandboxError> {
        let snapshot = self.ground.ports.boxes.snapshot(&self.id, key).await?;
        let snapshot = self.flattened(snapshot, key).await?;
        let layers = snapshot.layers.clone();
        let started = async {
            let sandbox = self.ground.ports.boxes.start(self.spec(snapshot)).await?.sandbox;
            equip(&*sandbox, self.ground.place, self.door, false).await?;
            Ok::<_, Failure>(sandbox)
        };
        let sandbox = started.await.map_err(without_hands);
        Ok((layers, sandbox))
    }
}

/// Puts into a started box what its way out needs, and starts what the recipe wants to be running. A
/// box that was alive has its programs.
pub(crate) async fn equip(
    sandbox: &dyn Sandbox,
    place: &Place,
    door: Option<&OpenDoor>,
    adopted: bool,
) -> Result<(), Failure> {
    for (path, bytes) in door.iter().flat_map(|door| &door.files) {
        sandbox.write(path, bytes, None).await?;
    }
    if adopted {
        return Ok(());
    }
    for (number, line) in place.recipe().start.iter().enumerate() {
        // The line goes on after the command that starts it; what it says can be read in the box.
        let log = format!("/run/chargehand/start-{number}.log");
        let script = format!("mkdir -p /run/chargehand; exec </dev/null >{log} 2>&1; setsid sh -c \"$1\" & ");
        let argv = ["sh", "-c", &script, "start", line].map(OsString::from);
        let request = ExecRequest { time_limit: START_LIMIT, ..ExecRequest::new(format!("{START}{number}"), argv) };
        sandbox.exec(request, &mut |_| {}).await?;
    }
    Ok(())
}

fn without_hands(failure: Failure) -> NoHands {
    let hopeless = matches!(failure.class, FailureClass::Final | FailureClass::NeedsPerson);
    NoHands { message: failure.message, hopeless }
}

#[async_trait]
impl Hands for BoxHands<'_> {
    async fn ready(&self) -> Result<Arc<dyn Sandbox>, NoHands> {
        let mut ready = self.ready.subscribe();
        let gone = || NoHands { message: "nobody opens the sandbox".to_owned(), hopeless: false };
        let opened = ready.wait_for(Option::is_some).await.map_err(|_| gone())?;
        opened.clone().unwrap_or_else(|| Err(gone()))
    }

    async fn revive(&self) -> Result<FilesFound, NoHands> {
        let revived = self.start().await.map_err(without_hands);
        let found = revived.as_ref().map(|started| started.files).map_err(Clone::clone);
        self.ready.send_replace(Some(revived.map(|started| started.sandbox)));
        found
    }

    async fn can_keep(&self) -> bool {
        let boxes = &self.ground.ports.boxes;
        // What the recipe starts is started again afterwards.
        let (changed, busy) = (boxes.changed(&self.id).await, boxes.busy(&self.id, START).await);
        matches!((changed, busy), (Ok(true), Ok(false)))
    }

    async fn keep(&self, key: &Digest) -> Result<Vec<Digest>, NotKept> {
        self.ready.send_replace(None);
        match self.kept(key).await {
            Ok((layers, sandbox)) => {
                self.ready.send_replace(Some(sandbox));
                Ok(layers)
            }
            Err(error) => {
                // The files are where they were; the box goes on from them if it can.
                let revived = self.start().await.map_err(without_hands);
                let found = revived.as_ref().ok().map(|started| started.files);
                self.ready.send_replace(Some(revived.map(|started| started.sandbox)));
                Err(NotKept { why: without_hands(error.into()), found })
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
