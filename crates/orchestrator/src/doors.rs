//! The way out of a task's boxes: a door while somebody is at work in them, and what passed it in the
//! task's log.
//!
//! A door lives as long as the agent's run (or the build) that opened it; while a task waits, nothing
//! passes and the box holds its requests back. A box without a list has no door at all. Absent: what
//! may pass (`network`), and how (`egress`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use domain::event::{EgressRequest, Event};
use domain::id::{Digest, SandboxId};
use domain::principal::Principal;
use egress::{
    Audit, BoxAuthority, Door, DoorConfig, EgressRecord, KnownValues, Resolver, Secret, SecretError, SecretSource,
    UpstreamTls,
};
use jiff::Timestamp;
use sandbox::StartSpec;
use sandbox::environment::Allow;
use store::Vault;
use store::secrets::SecretLine;
use tokio::sync::{mpsc, oneshot};

use crate::build_log::Passed;
use crate::failure::Failure;
use crate::handle::Shared;
use crate::log::{RecordError, TaskLog};
use crate::network;
use crate::ports::Clock;

/// Records are gathered this long, so that a build with a thousand downloads makes few events.
const GATHER: Duration = Duration::from_millis(500);
/// Where the forwarder listens in a box.
const BOX_PORT: u16 = 3128;
/// Where a box has the files of its way out; no change of the agent's.
const BOX_FOLDER: &str = "/run/chargehand";
/// Most records that wait to be written down.
const MAX_WAITING: usize = 4096;
/// How often, and with which pause, a full store is tried.
const STORE_TRIES: u32 = 60;
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long a closed door's last records may take.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The ending of a file that lies beside a door while it is open: who finds one was cut off.
const OPEN_MARK: &str = "open";
/// Most requests in one event.
const MAX_REQUESTS: usize = 256;
/// Most requests of one door that are listed; the rest is counted.
const MAX_LISTED: u64 = 20_000;

/// Who is trusted; read when the first door is opened, since most servers open none.
pub struct Trust {
    /// Whom doors trust as far side.
    pub upstream: Box<dyn Fn() -> Result<UpstreamTls, String> + Send + Sync>,
    /// The authorities that programs in boxes trust, as PEM.
    pub bundle: Box<dyn Fn() -> String + Send + Sync>,
}

/// The world outside of all boxes.
pub struct Outside {
    /// Finds addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Who is trusted.
    pub trust: Trust,
    /// Addresses that no list opens: those on which this server itself listens.
    pub never: Vec<SocketAddr>,
    /// Secrets.
    pub vault: Arc<Vault>,
    /// A private folder for the doors' sockets.
    pub folder: PathBuf,
    trusted: OnceLock<UpstreamTls>,
}

impl Outside {
    /// The world, with no address forbidden.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>, trust: Trust, vault: Arc<Vault>, folder: PathBuf) -> Self {
        Self { resolver, trust, never: Vec::new(), vault, folder, trusted: OnceLock::new() }
    }

    /// Where the door of a box is; a short name, because a socket's path has few bytes.
    fn folder_of(&self, sandbox: &SandboxId) -> PathBuf {
        let digest = Digest::of(sandbox.as_str().as_bytes());
        self.folder.join(digest.as_str().get(..12).unwrap_or_default())
    }

    /// Removes what is left of all doors but those of these boxes.
    pub(crate) fn forget_all_but<'a>(&self, boxes: impl Iterator<Item = &'a SandboxId>) {
        let kept: BTreeSet<PathBuf> = boxes.map(|sandbox| self.folder_of(sandbox)).collect();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| !kept.contains(&path.with_extension(""))) {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "a door's rest could not be removed");
            }
        }
    }

    fn trusted(&self) -> Result<UpstreamTls, Failure> {
        if let Some(trusted) = self.trusted.get() {
            return Ok(trusted.clone());
        }
        let trusted = (self.trust.upstream)().map_err(Failure::infra)?;
        Ok(self.trusted.get_or_init(|| trusted).clone())
    }
}

/// For whom a door is.
pub(crate) struct Wish<'a> {
    pub(crate) sandbox: &'a SandboxId,
    /// In whose name certificates for the box are made; a box with several doors has one authority.
    pub(crate) issuer: &'a SandboxId,
    /// What the recipe lists.
    pub(crate) allow: &'a [Allow],
    /// What the box's programs are told of: what is listed here or at another of its doors.
    pub(crate) told: &'a [Allow],
    /// The repository, as secrets are scoped to it.
    pub(crate) repo: &'a str,
    /// The environment, as secrets are scoped to it: `setup` while one is built.
    pub(crate) environment: Option<&'a str>,
}

/// A door that is open.
pub(crate) struct OpenDoor {
    /// The folder that is mounted into the box.
    pub(crate) folder: PathBuf,
    /// Variables for the box.
    pub(crate) env: Vec<(String, String)>,
    /// Files for the box.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// Values that must not be stored.
    pub(crate) known: KnownValues,
    door: Door,
    /// Tells when everything is written down.
    written: oneshot::Receiver<()>,
}

impl OpenDoor {
    /// Closes the door and waits until what passed it is written down.
    pub(crate) async fn close(self) {
        drop(self.door);
        if tokio::time::timeout(LAST_WORDS, self.written).await.is_ok() {
            let _ = std::fs::remove_file(self.folder.with_extension(OPEN_MARK));
        }
    }

    /// A start with this door.
    pub(crate) fn added_to(&self, mut spec: StartSpec) -> StartSpec {
        spec.door = Some(self.folder.clone());
        spec.env.extend(self.env.iter().cloned());
        spec
    }
}

/// Remarks for people on what a task's boxes may reach. A list that no door could be opened with is an
/// error here already.
pub(crate) async fn remarks(shared: &Shared, allow: &[Allow], repo: &str) -> Result<Vec<String>, Failure> {
    use domain::effect::{FailureClass, FailureSource};
    if allow.is_empty() {
        return Ok(Vec::new());
    }
    let lines = shared.ports.outside.vault.for_box(repo, None).await;
    let lines = lines.map_err(|error| Failure::infra(error.to_string()))?;
    let listed = network::list(allow, &lines, &shared.settings.network);
    listed.map(|listed| listed.notes).map_err(|why| Failure::new(FailureClass::Final, FailureSource::User, why))
}

/// Where what passes a door is written down.
pub(crate) enum Report {
    /// Into the log of a task, request by request.
    Task(Arc<TaskLog>),
    /// Into the log of a build, as lines.
    Build(Passed),
}

/// Opens the door of a box; nothing if nothing is listed. What passes is written into `report`.
pub(crate) async fn open(shared: &Shared, wish: &Wish<'_>, report: Report) -> Result<Option<OpenDoor>, Failure> {
    if wish.allow.is_empty() {
        return Ok(None);
    }
    let (outside, clock, settings) = (&shared.ports.outside, &shared.ports.clock, &shared.settings.network);
    let by_user = |why: String| {
        use domain::effect::{FailureClass, FailureSource};
        Failure::new(FailureClass::Final, FailureSource::User, why)
    };
    let lines = outside.vault.for_box(wish.repo, wish.environment).await;
    let lines = lines.map_err(|error| Failure::infra(error.to_string()))?;
    let listed = network::list(wish.allow, &lines, settings).map_err(by_user)?;
    let told_lines = lines.clone();
    let names: Vec<String> = listed.list.secret_names().map(str::to_owned).collect();
    let lines: BTreeMap<String, SecretLine> = lines
        .into_iter()
        .filter(|line| names.iter().any(|name| name == line.name.as_str()))
        .map(|line| (line.name.as_str().to_owned(), line))
        .collect();
    let mut values = Vec::new();
    for (name, line) in &lines {
        let value = outside.vault.reveal(&line.scope, &line.name).await;
        let value = value.map_err(|error| by_user(format!("the secret {name} can't be used: {error}")))?;
        values.push((name.clone(), Secret::new(value.expose())));
    }
    let known = KnownValues::new(values).map_err(|error| by_user(error.to_string()))?;
    let now = clock.now();
    let folder = outside.folder_of(wish.sandbox);
    let authority = Arc::new(authority(&outside.folder_of(wish.issuer), wish.issuer, now)?);
    let told = network::list(wish.told, &told_lines, settings).map_err(by_user)?;
    let (system, proxy) = ((outside.trust.bundle)(), SocketAddr::from(([127, 0, 0, 1], BOX_PORT)));
    let box_settings = egress::box_settings(&egress::BoxSettingsFor {
        list: &told.list,
        proxy,
        folder: BOX_FOLDER,
        authority_pem: Some(authority.certificate_pem()),
        system_bundle_pem: &system,
    });
    let mark = folder.with_extension(OPEN_MARK);
    if mark.exists()
        && let Report::Task(log) = &report
    {
        // Nobody knows what passed and was not yet written down.
        let text = "the server was cut off while a sandbox could reach out: requests of that moment may not be listed";
        let event = Event::Noted { text: text.to_owned() };
        let noted = log.record(&Principal::platform(), |_| Ok::<_, RecordError>((vec![event.clone()], ()))).await;
        noted.map_err(|error| Failure::infra(error.to_string()))?;
    }
    let marked = std::fs::write(&mark, []);
    marked.map_err(|error| Failure::infra(format!("{} can't be written: {error}", mark.display())))?;
    let (sender, reports) = mpsc::channel(MAX_WAITING);
    let missed = Arc::new(AtomicU64::new(0));
    let door = Door::open(DoorConfig {
        box_id: wish.sandbox.to_string(),
        folder: folder.clone(),
        list: listed.list,
        resolver: outside.resolver.clone(),
        secrets: Arc::new(BoxSecrets { vault: outside.vault.clone(), lines }),
        audit: Arc::new(Sender { to: sender, missed: missed.clone() }),
        clock: Arc::new(DoorClock(clock.clone())),
        upstream: outside.trusted()?,
        authority: Some(authority),
        never: outside.never.clone(),
        known: known.clone(),
        limits: egress::Limits::default(),
    })
    .map_err(|error| Failure::infra(chain(&error)))?;
    let files = box_settings.files.into_iter().map(|(path, bytes)| (PathBuf::from(path), bytes)).collect();
    let env = box_settings.env;
    let (written, is_written) = oneshot::channel();
    let sandbox = wish.sandbox.clone();
    shared.reporters().spawn(async move {
        write_down(report, sandbox, (reports, missed)).await;
        let _ = written.send(());
    });
    Ok(Some(OpenDoor { folder, env, files, known, door, written: is_written }))
}

/// The authority of a box, kept beside its door and never in it, so that programs which outlive the
/// control plane go on trusting the door that is opened again.
fn authority(folder: &Path, sandbox: &SandboxId, now: Timestamp) -> Result<BoxAuthority, Failure> {
    let file = folder.with_extension("pem");
    if let Ok(kept) = std::fs::read_to_string(&file)
        && let Ok(authority) = BoxAuthority::from_private_pem(sandbox.as_str(), &kept)
    {
        return Ok(authority);
    }
    let authority = BoxAuthority::generate(sandbox.as_str(), now).map_err(|error| Failure::infra(chain(&error)))?;
    let write = || {
        use std::io::Write as _;
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let above = folder.parent().unwrap_or(folder);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
        file.write_all(authority.private_pem().as_bytes())
    };
    write().map_err(|error| Failure::infra(format!("{} can't be written: {error}", file.display())))?;
    Ok(authority)
}

/// Removes what is left of a box's door.
pub(crate) fn forget(outside: &Outside, sandbox: &SandboxId) {
    let folder = outside.folder_of(sandbox);
    let _ = std::fs::remove_dir_all(&folder);
    for kept in ["pem", OPEN_MARK] {
        let _ = std::fs::remove_file(folder.with_extension(kept));
    }
}

/// An error with its causes, since an effect's failure is one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Writes down what passes a door, until it is closed and everything is written.
async fn write_down(
    mut report: Report,
    sandbox: SandboxId,
    (mut reports, missed): (mpsc::Receiver<EgressRecord>, Arc<AtomicU64>),
) {
    let mut listed = 0_u64;
    let mut batch = Vec::new();
    while reports.recv_many(&mut batch, MAX_REQUESTS).await > 0 {
        // More may come soon. A denial waits for nothing, and nothing comes when the door is closed.
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < MAX_REQUESTS && batch.iter().all(|record| record.denial.is_none()) {
            match tokio::time::timeout_at(until, reports.recv()).await {
                Ok(Some(record)) => batch.push(record),
                Ok(None) | Err(_) => break,
            }
        }
        let room = usize::try_from(MAX_LISTED.saturating_sub(listed)).unwrap_or(usize::MAX);
        let unlisted = batch.len().saturating_sub(room) as u64 + missed.swap(0, Ordering::Relaxed);
        let requests: Vec<EgressRequest> = batch.drain(..).take(room).map(request).collect();
        listed += requests.len() as u64;
        let log = match &mut report {
            Report::Build(passed) => {
                passed.note(&requests, unlisted);
                continue;
            }
            Report::Task(log) => log,
        };
        let event = Event::EgressReported { sandbox: sandbox.clone(), requests, unlisted };
        for _ in 0..STORE_TRIES {
            let platform = Principal::platform();
            let recorded = log.record(&platform, |_| Ok::<_, RecordError>((vec![event.clone()], ()))).await;
            let Err(error) = recorded else { break };
            tracing::error!(%sandbox, %error, "what left the box could not be written down; tried again");
            tokio::time::sleep(STORE_RETRY).await;
        }
    }
    if let Report::Build(passed) = report {
        passed.sum();
    }
}

fn request(record: EgressRecord) -> EgressRequest {
    EgressRequest {
        at: record.at,
        method: record.method,
        host: record.host,
        port: record.port,
        path: record.path,
        rule: record.entry,
        denied: record.denial.map(|denial| denial.to_string()),
        failure: record.failure,
        status: record.status,
        secret: record.secret,
        up_bytes: record.up_bytes,
        down_bytes: record.down_bytes,
        duration_ms: record.duration_ms,
    }
}

struct Sender {
    to: mpsc::Sender<EgressRecord>,
    /// Requests that came while too many were waiting to be written down.
    missed: Arc<AtomicU64>,
}

impl Audit for Sender {
    fn record(&self, record: EgressRecord) {
        if self.to.try_send(record).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct DoorClock(Arc<dyn Clock>);

impl egress::Clock for DoorClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

/// The secrets in one box's scope, as they were bound when the door was opened.
struct BoxSecrets {
    vault: Arc<Vault>,
    lines: BTreeMap<String, SecretLine>,
}

#[async_trait]
impl SecretSource for BoxSecrets {
    async fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        let line = self.lines.get(name).ok_or(SecretError::Missing)?;
        let unreadable = |error: store::VaultError| SecretError::Unreadable { detail: error.to_string() };
        let mut value = None;
        // Every host that the door's list was made from has to be one still.
        for host in &line.hosts {
            let revealed = self.vault.value_for(&line.scope, &line.name, host.host(), host.port()).await;
            value = Some(revealed.map_err(unreadable)?.value);
        }
        value.map(|value| Secret::new(value.expose())).ok_or(SecretError::Missing)
    }
}
