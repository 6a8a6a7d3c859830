//! A build from the moment at which it is on record: whatever happens, the record says how it ended, and
//! nothing of its doors is left.
//!
//! Absent: whether to build, and who waits for it (`builds`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use domain::effect::{FailureClass, FailureSource};
use domain::id::{Digest, SandboxId};
use egress::{KnownValues, Secret};
use sandbox::environment::Allow;
use sandbox::environment::build::{BuildFailure, BuildSpec, Built, DEFAULT_OUTPUT_CAP_BYTES, Step, build, build_box};
use sandbox::environment::forbidden::Forbidden;
use sandbox::environment::registry::Subject;

use crate::boxes::WORKSPACE;
use crate::build_log::{Passed, Show, Written};
use crate::builds::{Ready, Wanted, change, registry};
use crate::doors::{self, OpenDoor, Report};
use crate::failure::Failure;
use crate::handle::Shared;

/// The name under which secrets are scoped to the building of an environment.
const SETUP: &str = "setup";

/// Builds, with a record from its beginning to its end. The caller has the turn of the key.
pub(crate) async fn recorded(shared: &Arc<Shared>, wanted: &Wanted, show: Show) -> Result<Ready, Failure> {
    let clock = &shared.ports.clock;
    let secrets = secrets(shared, &wanted.repo).await?;
    let subject = Subject {
        key: wanted.key.clone(),
        repo: wanted.repo.clone(),
        commit: wanted.commit.clone(),
        recipe: wanted.place.choice.recipe_digest.clone(),
        without_checkout: wanted.without_checkout.clone(),
        env: wanted.env.clone(),
    };
    let now = clock.now();
    let log = change(shared, move |registry| registry.begin(subject, now)).await?;
    let mut open = Open { shared, wanted, ended: false };
    shared.builds.begun.send_modify(|begun| *begun += 1);
    let log = Arc::new(Written::new(log, secrets.known, show));

    let done = with_doors(shared, wanted, secrets.forbidden, &log).await;
    // What the platform keeps of a build is told without the values, wherever they came from.
    let clean = |texts: Vec<String>| texts.iter().map(|text| log.clean(text)).collect();
    let done = match done {
        Ok(built) => Ok(Built { leftovers: clean(built.leftovers), notes: clean(built.notes), ..built }),
        Err(failure) => Err(Failure { message: log.clean(&failure.message), ..failure }),
    };
    if let Err(error) = log.finish() {
        tracing::warn!(key = %wanted.key, %error, "the log of a build is not whole");
    }
    let (key, now, ended) = (wanted.key.clone(), clock.now(), done.clone().map_err(|failure| failure.message));
    let record = change(shared, move |registry| registry.finish(&key, ended.as_ref().map_err(Clone::clone), now));
    let record = record.await;
    open.ended = record.is_ok();
    drop(open);
    let built = done?;
    let notes = record?.map(|record| record.notes).unwrap_or_default();
    let notes = wanted.notes.iter().cloned().chain(notes).collect();
    Ok(Ready { key: wanted.key.clone(), snapshot: built.snapshot, env: wanted.env.clone(), reused: false, notes })
}

/// A build that is on record as under way. Dropped, it is so no more, even if it was cut off.
struct Open<'a> {
    shared: &'a Shared,
    wanted: &'a Wanted,
    ended: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        for step in 0..self.wanted.place.recipe().setup.len().max(1) {
            forget_door(self.shared, &self.wanted.key, step);
        }
        if self.ended {
            return;
        }
        let why = "the build was cut off; build it again".to_owned();
        let now = self.shared.ports.clock.now();
        let ended = registry(self.shared).and_then(|registry| Ok(registry.finish(&self.wanted.key, Err(why), now)?));
        if let Err(failure) = ended {
            tracing::warn!(key = %self.wanted.key, why = failure.message, "a build's end could not be recorded");
        }
    }
}

fn forget_door(shared: &Shared, key: &Digest, step: usize) {
    if let Ok(name) = door_name(key, step) {
        doors::forget(&shared.ports.outside, &name);
    }
}

/// Removes what a build that was cut off may have left of the authority of its box.
pub(crate) fn forget_authority(shared: &Shared, key: &Digest) {
    forget_door(shared, key, 0);
}

/// Builds with a door for each command that may reach something, and closes them.
async fn with_doors(
    shared: &Arc<Shared>,
    wanted: &Wanted,
    forbidden: Vec<Forbidden>,
    log: &Arc<Written>,
) -> Result<Built, Failure> {
    let doors = open_doors(shared, wanted, log).await.inspect_err(|failure| log.line(&failure.message))?;
    let spec = build_spec(wanted, &doors, forbidden);
    let mut sink = |bytes: &[u8]| log.said(bytes);
    let done = build(&*shared.ports.boxes, &spec, &mut sink).await;
    for door in doors.into_values() {
        door.close().await;
    }
    done.map_err(|failure| {
        let message = failure.to_string();
        // A command's end stands there already.
        if !matches!(failure, BuildFailure::Command(_)) {
            log.line(&message);
        }
        match failure {
            BuildFailure::Sandbox { source, .. } => Failure { message, ..Failure::from(source) },
            BuildFailure::Command(_) | BuildFailure::SecretInSnapshot { .. } | BuildFailure::NotCleaned { .. } => {
                Failure::new(FailureClass::Final, FailureSource::User, message)
            }
        }
    })
}

/// The name of the way out of one setup command; a box has a process for each.
fn door_name(key: &Digest, step: usize) -> Result<SandboxId, Failure> {
    let id = build_box(key)?;
    SandboxId::parse(&format!("{id}-{step}")).map_err(|error| Failure::infra(error.to_string()))
}

/// A door for each setup command that may reach something.
async fn open_doors(
    shared: &Arc<Shared>,
    wanted: &Wanted,
    log: &Arc<Written>,
) -> Result<BTreeMap<usize, OpenDoor>, Failure> {
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
        let report = Report::Build(Passed::new(log.clone(), number + 1));
        if let Some(door) = doors::open(shared, &wish, report).await? {
            doors.insert(number, door);
        }
    }
    Ok(doors)
}

fn build_spec(wanted: &Wanted, doors: &BTreeMap<usize, OpenDoor>, forbidden: Vec<Forbidden>) -> BuildSpec {
    let (place, recipe) = (&wanted.place, wanted.place.recipe());
    let step = |(number, command): (usize, &sandbox::environment::SetupCommand)| Step {
        command: command.clone(),
        door: doors.get(&number).map(|door| door.folder.clone()),
    };
    let first = doors.values().next();
    let own = recipe.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let of_door = first.map(|door| door.env.clone()).unwrap_or_default();
    let placeholders = recipe.setup_secrets.iter().map(|name| (name.clone(), egress::placeholder(name)));
    BuildSpec {
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
        forbidden,
    }
}

/// Every value that setup may use.
struct Secrets {
    /// To be looked for in what it left.
    forbidden: Vec<Forbidden>,
    /// To be taken out of all that it says, whichever of its commands may use which.
    known: KnownValues,
}

async fn secrets(shared: &Shared, origin: &str) -> Result<Secrets, Failure> {
    let vault = &shared.ports.outside.vault;
    let lines = vault.for_box(origin, Some(SETUP)).await.map_err(|error| Failure::infra(error.to_string()))?;
    let (mut forbidden, mut values) = (Vec::new(), Vec::new());
    for line in lines {
        let value = vault.reveal(&line.scope, &line.name).await;
        let value = value.map_err(|error| Failure::infra(error.to_string()))?;
        let name = line.name.as_str().to_owned();
        forbidden.push(Forbidden { name: name.clone(), value: value.expose().as_bytes().to_vec() });
        values.push((name, Secret::new(value.expose())));
    }
    let by_user =
        |error: egress::RedactError| Failure::new(FailureClass::Final, FailureSource::User, error.to_string());
    Ok(Secrets { forbidden, known: KnownValues::new(values).map_err(by_user)? })
}
