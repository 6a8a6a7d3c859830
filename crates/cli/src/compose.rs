//! Puts the product together: the one place where adapters are chosen.
//!
//! Store, sandboxes, forge and models are opened, the engine is started on them, and the API is
//! served. Absent: any decision of the product, and the environment, which `settings` has read.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use jiff::Timestamp;
use orchestrator::{ChosenModel, Clock, Engine, Handle, Models, Ports, Random};
use sandbox::local::{LocalConfig, LocalProvider, Toolchains};
use server::ServerConfig;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::settings::{Settings, ToolchainInputs};

struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one real clock; everyone else is handed it")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The operating system's generator.
struct SystemRandom;

impl Random for SystemRandom {
    fn bits(&self) -> u64 {
        // A version 4 UUID has six fixed bits in its upper half and two in its lower; the lower
        // half's 62 random bits cover the 60 that an id uses.
        uuid::Uuid::new_v4().as_u64_pair().1
    }
}

/// The models of the settings, each provider built once, because building one costs milliseconds.
struct ConfiguredModels {
    settings: Settings,
    built: Mutex<HashMap<String, Arc<dyn model::Provider>>>,
}

impl Models for ConfiguredModels {
    fn choose(&self, selection: Option<&str>) -> Result<ChosenModel, String> {
        let selected = self.settings.select_model(selection)?;
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let provider = match built.get(&selected.selection) {
            Some(provider) => provider.clone(),
            None => {
                let provider = model::build(selected.config).map_err(|error| error.to_string())?;
                built.insert(selected.selection.clone(), provider.clone());
                provider
            }
        };
        Ok(ChosenModel { provider, model: selected.model, selection: selected.selection })
    }
}

/// A product that runs.
pub struct Running {
    /// The engine, for callers in this process.
    pub handle: Handle,
    /// Where the API is served.
    pub bound: server::Bound,
    /// The file with the bearer token, if there is TCP and no token was set.
    pub token_file: Option<PathBuf>,
    engine: JoinSet<Result<(), store::ReadError>>,
    store: store::Store,
}

impl Running {
    /// Waits until everything has stopped after `shutdown` was cancelled.
    ///
    /// # Errors
    /// If the engine could not work at all.
    pub async fn stopped(mut self) -> anyhow::Result<()> {
        let ended = self.engine.join_next().await;
        self.bound.stopped().await;
        self.store.close().await;
        match ended {
            Some(Ok(Err(error))) => Err(error).context("the engine could not read what is unfinished"),
            Some(Err(error)) if error.is_panic() => Err(error).context("the engine broke off"),
            _ => Ok(()),
        }
    }
}

/// The sandboxes of this machine, as the settings want them.
///
/// # Errors
/// If the folder can't be used or the program can't find itself.
pub fn sandboxes(settings: &Settings) -> anyhow::Result<LocalProvider> {
    let program = std::env::current_exe().context("the program can't find its own file")?;
    let toolchains = toolchains(&settings.toolchain);
    let config = LocalConfig::of_program(&program, &settings.data_dir.join("sandboxes"), toolchains);
    LocalProvider::open(config).context("the folder for sandboxes can't be used")
}

/// The toolchains that boxes see.
#[must_use]
pub fn toolchains(inputs: &ToolchainInputs) -> Toolchains {
    Toolchains::detect(&|name: &str| inputs.get(name))
}

/// Opens everything and starts it. Ends when `shutdown` is cancelled.
///
/// # Errors
/// What can't be had and what to do, first cause last.
pub async fn start_engine(settings: &Settings, shutdown: CancellationToken) -> anyhow::Result<Running> {
    model::install_crypto();
    let store = store::sqlite::open(&settings.data_dir).await?;
    let scratch = settings.data_dir.join("scratch");
    let boxes = Arc::new(sandboxes(settings)?);
    let forge = Arc::new(forge::BuiltIn::new(forge::ForgeConfig::new(settings.data_dir.join("forge"))).await?);
    let models = Arc::new(ConfiguredModels { settings: settings.clone(), built: Mutex::default() });
    let ports = Ports {
        store: store.clone(),
        forge,
        boxes,
        models,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let (engine, handle) = Engine::new(ports, orchestrator::Settings::new(scratch)).await;
    let (token, token_file) = token(settings)?;
    let config = ServerConfig {
        unix_socket: Some(settings.socket_path()),
        tcp: settings.listen,
        token,
        allowed_hosts: Vec::new(),
        local_user: settings.user.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let bound = server::serve(config, handle.clone(), shutdown.clone()).await?;
    let mut running = JoinSet::new();
    running.spawn(engine.run(shutdown));
    Ok(Running { handle, bound, token_file, engine: running, store })
}

/// The token for TCP: the one that was set, or one that is made once and kept in the data folder.
fn token(settings: &Settings) -> anyhow::Result<(server::Secret, Option<PathBuf>)> {
    if let Some(token) = &settings.token {
        return Ok((server::Secret::new(token.expose()), None));
    }
    if settings.listen.is_none() {
        return Ok((server::Secret::new(String::new()), None));
    }
    let path = settings.data_dir.join("token");
    let token = kept_token(&path).with_context(|| format!("the token file {} can't be used", path.display()))?;
    Ok((server::Secret::new(token), Some(path)))
}

fn kept_token(path: &Path) -> std::io::Result<String> {
    let fresh = || format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let token = fresh();
            file.write_all(token.as_bytes())?;
            file.sync_all()?;
            Ok(token)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(std::fs::read_to_string(path)?.trim().to_owned())
        }
        Err(error) => Err(error),
    }
}
