//! Builds of environments: once for everybody who needs the same, with a record and a log that outlast
//! them.
//!
//! ```text
//! recipe, base, checkout → key ─built?─→ found
//!                               ├─the same recipe was built at an earlier commit─→ that one now, and a
//!                               │                                                 build of this one behind
//!                               └─→ build, here and now
//! ```
//!
//! Each build is a piece of work of its own: it goes on when the task that asked is cancelled, and whoever
//! needs the same next finds it. A build that was cut off leaves a record that says so; whoever needs it
//! next builds again. Absent: what a build does (`sandbox::environment`), what is done once it has begun
//! (`building`), and tasks: a build knows repository and commit.

use std::sync::{Arc, OnceLock};

use domain::effect::{FailureClass, FailureSource};
use domain::id::{CommitSha, Digest};
use forge::Project;
use jiff::SignedDuration;
use sandbox::SnapshotRef;
use sandbox::environment::import::{ImportLimits, ImportReport, import};
use sandbox::environment::key::environment_key_at;
use sandbox::environment::registry::{Record, Registry, RegistryError, State};
use sandbox::environment::{Base, KeyParts};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::boxes::layer;
use crate::building;
use crate::failure::Failure;
use crate::handle::Shared;
use crate::place::Place;

pub(crate) use crate::build_log::Show;

/// Builds at once that nobody waits for.
const MAX_BEHIND: usize = 2;
/// How long a build that failed is not tried again behind a task.
const TRY_AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What all builds have in common.
#[derive(Debug)]
pub(crate) struct Builds {
    /// One for the program, since only one knows of its own changes.
    registry: OnceLock<Registry>,
    /// Places for builds that nobody waits for.
    behind: Semaphore,
    /// Counts builds that have begun.
    pub(crate) begun: watch::Sender<u64>,
}

impl Default for Builds {
    fn default() -> Self {
        let (registry, behind) = (OnceLock::new(), Semaphore::new(MAX_BEHIND));
        Self { registry, behind, begun: watch::Sender::new(0) }
    }
}

/// An environment that boxes can start in.
pub(crate) struct Ready {
    pub(crate) key: Digest,
    pub(crate) snapshot: SnapshotRef,
    /// Variables that its image wants.
    pub(crate) env: Vec<(String, String)>,
    /// Whether it was there.
    pub(crate) reused: bool,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// What is to be built, with everything below it in place.
pub(crate) struct Wanted {
    pub(crate) key: Digest,
    /// The key as it would be without the checkout.
    pub(crate) without_checkout: Digest,
    pub(crate) repo: String,
    pub(crate) commit: CommitSha,
    pub(crate) place: Arc<Place>,
    pub(crate) below: SnapshotRef,
    /// Variables that the imported image wants.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) notes: Vec<String>,
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::infra(error.to_string())
    }
}

/// The records, to be read. What changes one waits for the disk: [`change`].
pub(crate) fn registry(shared: &Shared) -> Result<&Registry, Failure> {
    if let Some(registry) = shared.builds.registry.get() {
        return Ok(registry);
    }
    let opened = Registry::open(&shared.settings.environments.records)?;
    Ok(shared.builds.registry.get_or_init(|| opened))
}

/// Changes records, where waiting for the disk keeps nobody up.
pub(crate) async fn change<T: Send + 'static>(
    shared: &Shared,
    change: impl FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, Failure> {
    let registry = registry(shared)?.clone();
    let changed = tokio::task::spawn_blocking(move || change(&registry)).await;
    Ok(changed
        .map_err(|error| Failure::infra(format!("a change to the list of environments broke off: {error}")))??)
}

/// Finds out what the environment of a commit is made of, and puts what lies below it in place.
pub(crate) async fn wanted(
    shared: &Shared,
    project: &Project,
    place: &Arc<Place>,
    commit: &CommitSha,
) -> Result<Wanted, Failure> {
    let (ports, offered) = (&shared.ports, &shared.settings.environments);
    let recipe = place.recipe();
    let by_user = |message: String| Failure::new(FailureClass::Final, FailureSource::User, message);
    let mut base = recipe.base.clone();
    if let (Some(path), Base::Rootfs { folder: to } | Base::Tarball { file: to } | Base::Oci { layout: to, .. }) =
        (recipe.base_path(&offered.permitted).map_err(|error| by_user(error.to_string()))?, &mut base)
    {
        *to = path;
    }
    let imported = import(&*ports.boxes, &base, ImportLimits::default()).await;
    let imported = imported.map_err(|error| by_user(format!("the environment's base can't be used: {error}")))?;
    let checkout = layer(ports, project, commit).await?;
    let checkout_key = crate::boxes::layer_key(project, commit);
    let toolchains = if recipe.base == Base::Host { offered.toolchains.as_slice() } else { &[] };
    let parts = KeyParts {
        recipe,
        base: imported.as_ref().map(|imported| &imported.key),
        toolchains,
        checkout: &checkout_key,
        provider: &offered.provider,
    };
    let now = ports.clock.now();
    let key = environment_key_at(parts, now);
    let without_checkout = environment_key_at(KeyParts { checkout: &Digest::of(b"no checkout"), ..parts }, now);
    let base_layers = imported.iter().flat_map(|imported| imported.snapshot.layers.iter().cloned());
    let below = SnapshotRef { layers: base_layers.chain(checkout.layers).collect() };
    let report = imported.as_ref().and_then(|imported| imported.report.as_ref());
    Ok(Wanted {
        key,
        without_checkout,
        repo: project.origin_text().to_owned(),
        commit: commit.clone(),
        place: place.clone(),
        below,
        env: imported.as_ref().map(|imported| imported.env.clone()).unwrap_or_default(),
        notes: report.map(remarks).unwrap_or_default(),
    })
}

/// The environment of a commit: found, the last good one while a newer is built behind, or built now.
pub(crate) async fn ensure(
    shared: &Arc<Shared>,
    wanted: Wanted,
    show: &(dyn Fn(&str) + Send + Sync),
) -> Result<Ready, Failure> {
    if let Some(found) = found(shared, &wanted).await? {
        return Ok(found);
    }
    let good = registry(shared)?.last_good(&wanted.repo, &wanted.place.choice.recipe_digest)?;
    if let Some(good) = good.filter(|good| good.key != wanted.key)
        && let Some(mut ready) = usable(shared, &good, &wanted).await?
    {
        let moved_only = good.without_checkout.as_ref() == Some(&wanted.without_checkout);
        if moved_only && !wanted.place.recipe().rebuild.when_branch_moves {
            return Ok(ready);
        }
        if good.state == State::Ready {
            let key = good.key.clone();
            change(shared, move |registry| registry.stale(&key)).await?;
        }
        let (old, new) = (good.commit.short().to_owned(), wanted.commit.short().to_owned());
        ready.notes.push(match due(shared, &wanted.key)? {
            Due::FailedLately => format!(
                "the environment is the one that was built at {old}; one for {new} could not be built and is tried \
                 again later: `chargehand env show {}` says why",
                wanted.key
            ),
            Due::Now | Due::UnderWay => {
                format!("the environment is the one that was built at {old}; one for {new} is being built")
            }
        });
        build_behind(shared, wanted);
        return Ok(ready);
    }
    run(shared, wanted, show).await
}

/// The environment of a key, if it is there whole.
pub(crate) async fn found(shared: &Shared, wanted: &Wanted) -> Result<Option<Ready>, Failure> {
    match registry(shared)?.get(&wanted.key) {
        Some(record) => usable(shared, &record, wanted).await,
        None => Ok(None),
    }
}

async fn usable(shared: &Shared, record: &Record, wanted: &Wanted) -> Result<Option<Ready>, Failure> {
    let Some(snapshot) = record.snapshot.clone().filter(|_| record.state.usable()) else { return Ok(None) };
    for layer in &snapshot.layers {
        if shared.ports.boxes.prepared(layer).await?.is_none() {
            return Ok(None);
        }
    }
    let (key, now) = (record.key.clone(), shared.ports.clock.now());
    if change(shared, move |registry| registry.used(&key, now)).await?.is_none() {
        return Ok(None);
    }
    // The variables belong to the image that lies below these layers.
    let env = record.env.clone().unwrap_or_else(|| wanted.env.clone());
    Ok(Some(Ready { key: record.key.clone(), snapshot, env, reused: true, notes: Vec::new() }))
}

/// Whether a build that nobody waits for should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Now,
    UnderWay,
    FailedLately,
}

fn due(shared: &Shared, key: &Digest) -> Result<Due, Failure> {
    let Some(record) = registry(shared)?.get(key) else { return Ok(Due::Now) };
    let ended = record.ended_at.unwrap_or(record.began_at);
    let lately = shared.ports.clock.now().duration_since(ended) < TRY_AGAIN_AFTER;
    Ok(match record.state {
        State::Building => Due::UnderWay,
        State::Failed if lately => Due::FailedLately,
        State::Failed | State::Ready | State::Stale => Due::Now,
    })
}

/// Begins a build that nobody waits for, if it is due. Few of these run at once.
fn build_behind(shared: &Arc<Shared>, wanted: Wanted) {
    if due(shared, &wanted.key) != Ok(Due::Now) {
        return;
    }
    let own = shared.clone();
    shared.works().spawn(async move {
        let Ok(_place) = own.builds.behind.acquire().await else { return };
        let _turn = own.turns.of(&wanted.key).await;
        // Others had their turn before.
        if due(&own, &wanted.key) != Ok(Due::Now) {
            return;
        }
        if let Err(failure) = in_turn(&own, &wanted, Arc::new(|_| ())).await {
            tracing::warn!(key = %wanted.key, why = failure.message, "an environment could not be built anew");
        }
    });
}

/// Builds, unless somebody else has meanwhile. When the caller goes, a build that has begun goes on.
async fn run(shared: &Arc<Shared>, wanted: Wanted, show: &(dyn Fn(&str) + Send + Sync)) -> Result<Ready, Failure> {
    let (say, mut said) = mpsc::unbounded_channel::<String>();
    let mut done = spawn(shared, wanted, Arc::new(move |text| drop(say.send(text.to_owned()))));
    loop {
        tokio::select! {
            biased;
            Some(text) = said.recv() => show(&text),
            done = &mut done => return done.unwrap_or_else(|_| Err(broken_off())),
        }
    }
}

/// A build, or the wait for one of the same key, as work of its own.
fn spawn(shared: &Arc<Shared>, wanted: Wanted, show: Show) -> oneshot::Receiver<Result<Ready, Failure>> {
    let (mut tell, told) = oneshot::channel();
    let own = shared.clone();
    shared.works().spawn(async move {
        let _turn = tokio::select! {
            turn = own.turns.of(&wanted.key) => turn,
            // Nobody wants it any more.
            () = tell.closed() => return,
        };
        let done = in_turn(&own, &wanted, show).await;
        if let Err(Err(failure)) = tell.send(done) {
            tracing::info!(key = %wanted.key, why = failure.message, "an environment could not be built");
        }
    });
    told
}

async fn in_turn(shared: &Arc<Shared>, wanted: &Wanted, show: Show) -> Result<Ready, Failure> {
    if let Some(found) = found(shared, wanted).await? {
        return Ok(found);
    }
    building::recorded(shared, wanted, show).await
}

/// Sees to it that an environment is there or being built; the build goes on when the caller is gone.
///
/// # Errors
/// What kept it from being begun. Why a build that began came to nothing is in its record.
pub(crate) async fn begin(shared: &Arc<Shared>, wanted: Wanted) -> Result<(), Failure> {
    if found(shared, &wanted).await?.is_some() {
        return Ok(());
    }
    let (key, asked_at) = (wanted.key.clone(), shared.ports.clock.now());
    let mut begun = shared.builds.begun.subscribe();
    let record = || registry(shared).map(|registry| registry.get(&key));
    let building = |record: &Record| record.state == State::Building;
    if record()?.as_ref().is_some_and(building) {
        return Ok(());
    }
    let mut done = spawn(shared, wanted, Arc::new(|_| ()));
    loop {
        tokio::select! {
            _ = begun.changed() => {
                if record()?.as_ref().is_some_and(building) {
                    return Ok(());
                }
            }
            done = &mut done => {
                let failure = match done {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(failure)) => failure,
                    Err(_) => broken_off(),
                };
                let tried = record()?.is_some_and(|record| record.began_at >= asked_at);
                return if tried { Ok(()) } else { Err(failure) };
            }
        }
    }
}

fn broken_off() -> Failure {
    Failure::infra("the server ended while the environment was being built")
}

/// After a restart: builds that were under way when the program ended.
pub(crate) fn recover(shared: &Shared) -> Result<(), Failure> {
    for record in registry(shared)?.recover(shared.ports.clock.now())? {
        building::forget_authority(shared, &record.key);
    }
    Ok(())
}

/// What of a base was not taken over.
fn remarks(report: &ImportReport) -> Vec<String> {
    let counted = [
        (report.devices_dropped, "device nodes of the base were left out"),
        (report.pipes_dropped, "pipes and sockets of the base were left out"),
        (report.rights_dropped, "set-user-id and set-group-id bits of the base were taken away"),
        (report.attributes_dropped, "extended attributes of the base were not taken over"),
        (report.foreign_owners, "entries of the base belong to users that a box does not have, and became nobody's"),
    ];
    let counted = counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    counted.chain(report.notes.iter().cloned()).collect()
}
