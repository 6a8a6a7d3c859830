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
//! A build that was cut off leaves a record that says so; whoever needs it next builds again. Absent:
//! what a build does (`sandbox::environment`), and tasks: a build knows repository and commit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use domain::effect::{FailureClass, FailureSource};
use domain::id::{CommitSha, Digest, SandboxId};
use forge::Project;
use sandbox::SnapshotRef;
use sandbox::environment::build::{BuildFailure, BuildSpec, DEFAULT_OUTPUT_CAP_BYTES, Step, build, build_box};
use sandbox::environment::forbidden::Forbidden;
use sandbox::environment::import::{ImportLimits, ImportReport, import};
use sandbox::environment::key::environment_key_at;
use sandbox::environment::registry::{Record, Registry, RegistryError, Subject};
use sandbox::environment::{Allow, Base, KeyParts};

use crate::boxes::{WORKSPACE, layer};
use crate::doors::{self, OpenDoor};
use crate::failure::Failure;
use crate::handle::Shared;
use crate::place::Place;

/// The name under which secrets are scoped to the building of an environment.
pub(crate) const SETUP: &str = "setup";

/// Takes the log of a build as it comes.
pub(crate) type Show<'a> = &'a (dyn Fn(&str) + Send + Sync);

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
    repo: String,
    commit: CommitSha,
    place: Arc<Place>,
    below: SnapshotRef,
    /// Variables that the imported image wants.
    env: Vec<(String, String)>,
    notes: Vec<String>,
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::infra(error.to_string())
    }
}

impl From<BuildFailure> for Failure {
    fn from(failure: BuildFailure) -> Self {
        let message = failure.to_string();
        match failure {
            BuildFailure::Sandbox { source, .. } => Self { message, ..Self::from(source) },
            _ => Self::new(FailureClass::Final, FailureSource::User, message),
        }
    }
}

/// The records.
pub(crate) fn registry(shared: &Shared) -> Result<Registry, Failure> {
    Ok(Registry::open(&shared.settings.environments.records)?)
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
    let key = environment_key_at(parts, ports.clock.now());
    let base_layers = imported.iter().flat_map(|imported| imported.snapshot.layers.iter().cloned());
    let below = SnapshotRef { layers: base_layers.chain(checkout.layers).collect() };
    let report = imported.as_ref().and_then(|imported| imported.report.as_ref());
    Ok(Wanted {
        key,
        repo: project.origin_text().to_owned(),
        commit: commit.clone(),
        place: place.clone(),
        below,
        env: imported.as_ref().map(|imported| imported.env.clone()).unwrap_or_default(),
        notes: report.map(remarks).unwrap_or_default(),
    })
}

/// The environment of a commit: found, the last good one while a newer is built behind, or built now.
pub(crate) async fn ensure(shared: &Arc<Shared>, wanted: Wanted, show: Show<'_>) -> Result<Ready, Failure> {
    let registry = registry(shared)?;
    if let Some(found) = found(shared, &registry, &wanted.key).await? {
        return Ok(Ready { env: wanted.env, ..found });
    }
    let good = registry.last_good(&wanted.repo, &wanted.place.choice.recipe_digest)?;
    if let Some(good) = good.filter(|good| good.key != wanted.key)
        && let Some(mut ready) = usable(shared, &registry, &good).await?
    {
        if !wanted.place.recipe().rebuild.when_branch_moves {
            ready.env.clone_from(&wanted.env);
            return Ok(ready);
        }
        registry.stale(&good.key)?;
        ready.env.clone_from(&wanted.env);
        ready.notes.push(format!(
            "the environment is the one that was built at {}; one for {} is being built",
            good.commit.short(),
            wanted.commit.short()
        ));
        let shared_behind = shared.clone();
        shared.works().spawn(async move {
            if let Err(failure) = run(&shared_behind, &wanted, &|_| ()).await {
                tracing::warn!(key = %wanted.key, why = failure.message, "an environment could not be built anew");
            }
        });
        return Ok(ready);
    }
    run(shared, &wanted, show).await
}

/// The environment of a key, if it is there whole.
async fn found(shared: &Shared, registry: &Registry, key: &Digest) -> Result<Option<Ready>, Failure> {
    match registry.get(key) {
        Some(record) => usable(shared, registry, &record).await,
        None => Ok(None),
    }
}

async fn usable(shared: &Shared, registry: &Registry, record: &Record) -> Result<Option<Ready>, Failure> {
    let Some(snapshot) = record.snapshot.clone().filter(|_| record.state.usable()) else { return Ok(None) };
    for layer in &snapshot.layers {
        if shared.ports.boxes.prepared(layer).await?.is_none() {
            return Ok(None);
        }
    }
    registry.used(&record.key, shared.ports.clock.now())?;
    Ok(Some(Ready { key: record.key.clone(), snapshot, env: Vec::new(), reused: true, notes: Vec::new() }))
}

/// Builds, unless somebody else has meanwhile.
pub(crate) async fn run(shared: &Arc<Shared>, wanted: &Wanted, show: Show<'_>) -> Result<Ready, Failure> {
    let _turn = shared.turns.of(&wanted.key).await;
    let registry = registry(shared)?;
    if let Some(found) = found(shared, &registry, &wanted.key).await? {
        return Ok(found);
    }
    let ports = &shared.ports;
    let subject = Subject {
        key: wanted.key.clone(),
        repo: wanted.repo.clone(),
        commit: wanted.commit.clone(),
        recipe: wanted.place.choice.recipe_digest.clone(),
    };
    let mut log = registry.begin(subject, ports.clock.now())?;
    let doors = open_doors(shared, wanted).await?;
    let known = doors.values().next().map(|door| door.known.clone()).unwrap_or_default();
    let spec = build_spec(shared, wanted, &doors).await?;
    let mut redactor = egress::Redactor::new(known, egress::Mask::Named);
    let mut sink = |bytes: &[u8]| {
        let clean = redactor.push(bytes);
        log.write(&clean);
        show(&String::from_utf8_lossy(&clean));
    };
    let done = build(&*ports.boxes, &spec, &mut sink).await;
    log.write(&redactor.finish());
    for (step, door) in doors {
        door.close().await;
        doors::forget(&ports.outside, &door_name(&wanted.key, step)?);
    }
    if let Err(error) = log.finish() {
        tracing::warn!(key = %wanted.key, %error, "the log of a build is not whole");
    }
    let record = registry.finish(&wanted.key, &done, ports.clock.now())?;
    let built = done?;
    let notes = wanted.notes.iter().cloned().chain(record.map(|record| record.notes).unwrap_or_default()).collect();
    Ok(Ready { key: wanted.key.clone(), snapshot: built.snapshot, env: wanted.env.clone(), reused: false, notes })
}

/// The name of the way out of one setup command; a box has a process for each.
fn door_name(key: &Digest, step: usize) -> Result<SandboxId, Failure> {
    let id = build_box(key)?;
    SandboxId::parse(&format!("{id}-{step}")).map_err(|error| Failure::infra(error.to_string()))
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

/// A door for each setup command that may reach something.
async fn open_doors(shared: &Arc<Shared>, wanted: &Wanted) -> Result<BTreeMap<usize, OpenDoor>, Failure> {
    let recipe = wanted.place.recipe();
    let mut doors = BTreeMap::new();
    for (number, command) in recipe.setup.iter().enumerate() {
        let allow: Vec<Allow> = recipe.reach(command);
        let (name, issuer) = (door_name(&wanted.key, number)?, door_name(&wanted.key, 0)?);
        let wish = doors::Wish {
            sandbox: &name,
            issuer: &issuer,
            allow: &allow,
            told: &recipe.setup_network,
            repo: &wanted.repo,
            environment: Some(SETUP),
        };
        if let Some(door) = doors::open(shared, &wish, None).await? {
            doors.insert(number, door);
        }
    }
    Ok(doors)
}

async fn build_spec(shared: &Shared, wanted: &Wanted, doors: &BTreeMap<usize, OpenDoor>) -> Result<BuildSpec, Failure> {
    let (place, recipe) = (&wanted.place, wanted.place.recipe());
    let step = |(number, command): (usize, &sandbox::environment::SetupCommand)| Step {
        command: command.clone(),
        door: doors.get(&number).map(|door| door.folder.clone()),
    };
    let first = doors.values().next();
    let own = recipe.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let of_door = first.map(|door| door.env.clone()).unwrap_or_default();
    let placeholders = recipe.setup_secrets.iter().map(|name| (name.clone(), egress::placeholder(name)));
    Ok(BuildSpec {
        key: wanted.key.clone(),
        below: wanted.below.clone(),
        root: place.root(),
        steps: recipe.setup.iter().enumerate().map(step).collect(),
        env: wanted.env.iter().cloned().chain(own).chain(placeholders).chain(of_door).collect(),
        files: first.map(|door| door.files.clone()).unwrap_or_default(),
        binds: place.binds.clone(),
        limits: place.limits,
        workdir: PathBuf::from(WORKSPACE),
        caches: recipe.caches.clone(),
        output_cap_bytes: DEFAULT_OUTPUT_CAP_BYTES,
        forbidden: forbidden(shared, &wanted.repo).await?,
    })
}

/// Every value that setup may use, to be looked for in what it left.
async fn forbidden(shared: &Shared, origin: &str) -> Result<Vec<Forbidden>, Failure> {
    let vault = &shared.ports.outside.vault;
    let lines = vault.for_box(origin, Some(SETUP)).await.map_err(|error| Failure::infra(error.to_string()))?;
    let mut values = Vec::new();
    for line in lines {
        let value = vault.reveal(&line.scope, &line.name).await;
        let value = value.map_err(|error| Failure::infra(error.to_string()))?;
        values.push(Forbidden { name: line.name.as_str().to_owned(), value: value.expose().as_bytes().to_vec() });
    }
    Ok(values)
}
