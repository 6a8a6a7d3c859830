//! The snapshot in which boxes of a commit start: the environment that was built, with that commit
//! checked out in it.
//!
//! A build is made at one commit and serves many: for another, its checkout is moved on in a box of
//! its own, once, and kept as one more layer. Without anything to build, the checkout's own layer is
//! all there is. Absent: setup commands and imports (`sandbox::environment`), and which recipe a
//! commit has (`place`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use agent::tools::run::{Wanted, run_command};
use domain::effect::{FailureClass, FailureSource};
use domain::evidence::CommandEnd;
use domain::id::{CommitSha, Digest, SandboxId};
use forge::Project;
use sandbox::{Provider, Sandbox, SnapshotRef, StartSpec};
use tokio::sync::oneshot;

use crate::boxes::{self, layer};
use crate::collect::NO_GIT;
use crate::failure::Failure;
use crate::handle::Shared;
use crate::place::Place;
use crate::ports::Ports;

/// How long git may take to check a commit out in a box.
const MOVE_MS: u64 = 10 * 60 * 1000;

/// Makes the work tree that of a commit, whose repository lies in a folder of the box. What setup
/// made and git does not know stays.
const MOVE: &str = r#"
set -eu
commit=$1 source=$2
cd /workspace
g() { git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 "$@"; }
if [ -n "$source" ]; then
  g fetch -q --no-tags --update-shallow "$source" +HEAD:refs/chargehand/source
  g update-ref -d refs/chargehand/source
fi
g checkout -q -f -B work "$commit" --
[ -z "$source" ] || rm -rf "$source"
g update-index -q --refresh || true
"#;

/// Where the other commit's repository lies in the box that moves.
const SOURCE: &str = "/.chargehand-source";

/// What it takes to have a snapshot.
pub(crate) struct Ground<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) project: &'a Project,
    pub(crate) place: &'a Place,
    pub(crate) shared: &'a Arc<Shared>,
}

impl Ground<'_> {
    /// The snapshot for boxes of `commit`: in the environment that was built, if one was.
    pub(crate) async fn at(&self, built: Option<&SnapshotRef>, commit: &CommitSha) -> Result<SnapshotRef, Failure> {
        match built {
            None => layer(self.ports, self.project, commit).await,
            Some(built) => self.moved(built, commit).await,
        }
    }

    /// `below` with `commit` checked out in it.
    async fn moved(&self, below: &SnapshotRef, commit: &CommitSha) -> Result<SnapshotRef, Failure> {
        let key = Digest::of(format!("moved/1\n{}\n{commit}\n{:?}", self.project.key(), below.layers).as_bytes());
        let with = |key: Digest| SnapshotRef { layers: below.layers.iter().cloned().chain([key]).collect() };
        let turn = self.shared.turns.of(&key).await;
        if self.ports.boxes.prepared(&key).await?.is_some() {
            return Ok(with(key));
        }
        let source = self.source(commit).await?;
        let id = SandboxId::parse(&format!("move-{}", key.as_str().get(..16).unwrap_or_default()))
            .map_err(|error| Failure::infra(error.to_string()))?;
        let layers = below.layers.iter().cloned().chain(source.layers).collect();
        let spec = self.place.spec(&id, SnapshotRef { layers });
        let (boxes, commit, name) = (self.ports.boxes.clone(), commit.clone(), key.clone());
        let (tell, told) = oneshot::channel();
        // Work of its own: whoever waits may be cancelled, and the box has to go all the same.
        self.shared.works().spawn(async move {
            let _turn = turn;
            let _ = tell.send(move_in_box(&*boxes, spec, &commit, &name).await);
        });
        told.await.unwrap_or_else(|_| Err(Failure::infra("the server ended during a checkout")))?;
        Ok(with(key))
    }

    /// The layer with a repository of the commit, beside the workspace.
    async fn source(&self, commit: &CommitSha) -> Result<SnapshotRef, Failure> {
        let key = Digest::of(format!("source/1\n{}\n{commit}", self.project.key()).as_bytes());
        if let Some(snapshot) = self.ports.boxes.prepared(&key).await? {
            return Ok(snapshot);
        }
        let staging = self.ports.boxes.stage(&key, &PathBuf::from(SOURCE)).await?;
        self.ports.forge.checkout(self.project, commit, &staging.content, &boxes::how()).await?;
        Ok(self.ports.boxes.prepare(&key, staging, sandbox::Owners::Root).await?)
    }
}

/// Checks a commit out in a box of its own, and keeps that as the layer `key`.
async fn move_in_box(boxes: &dyn Provider, spec: StartSpec, commit: &CommitSha, key: &Digest) -> Result<(), Failure> {
    let id = spec.id.clone();
    boxes.destroy(&id).await?;
    let done = async {
        let started = boxes.start(spec).await?;
        checked_out(&*started.sandbox, commit, SOURCE).await?;
        // The source's layer is not part of it: the move has taken the folder away.
        boxes.snapshot(&id, key).await?;
        Ok(())
    };
    let done = done.await;
    boxes.destroy(&id).await?;
    done
}

/// Checks a commit out in a box, from a repository in it or, without one, from its own.
pub(crate) async fn checked_out(hands: &dyn Sandbox, commit: &CommitSha, source: &str) -> Result<(), Failure> {
    let argv = ["sh", "-c", MOVE, "move", commit.as_str(), source].map(OsString::from).to_vec();
    let wanted = Wanted { argv, time_limit_ms: MOVE_MS, max_output_bytes: 1 << 20 };
    let finished = run_command(hands, &format!("move-{}", commit.short()), wanted, &|_| ()).await?;
    if finished.end.succeeded() {
        return Ok(());
    }
    let tail = finished.tail();
    let why = if matches!(finished.end, CommandEnd::Exited { code: 127 } | CommandEnd::NotStarted { .. }) {
        NO_GIT.to_owned()
    } else {
        format!("{commit} could not be checked out in the environment ({}): {}", finished.end, tail.trim())
    };
    Err(Failure::new(FailureClass::Final, FailureSource::User, why))
}

/// One at a time for each name: two tasks that need the same environment wait for one build.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    held: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for the turn of `name`; it lasts until the guard is dropped.
    pub(crate) async fn of(&self, name: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(held.entry(name.clone()).or_default())
        };
        lock.lock_owned().await
    }
}
