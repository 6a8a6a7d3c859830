//! Puts the product together: the one place where adapters are chosen.
//!
//! Store, sandboxes, forge and models are opened, the engine is started on them, and the API is
//! served. Absent: any decision of the product, and the environment, which `settings` has read.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use jiff::Timestamp;
use orchestrator::{ChosenModel, Clock, Engine, Handle, Models, Ports, Random};
use sandbox::environment::key::ToolchainIdentity;
use sandbox::local::{LocalConfig, LocalProvider, Toolchains};
use server::{SecretKeeper, ServerConfig};
use store::secrets::{FileKeys, KeyProvider, VariableKeys};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::settings::{Settings, ToolchainInputs, env};

/// Beside the database and no part of it.
const SECRET_KEY_FILE: &str = "secrets.key";

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
    /// The engine at work.
    pub work: Work,
    store: store::Store,
    shutdown: CancellationToken,
}

impl Running {
    /// Stops everything and waits for it.
    ///
    /// # Errors
    /// If the engine could not work at all.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let ended = self.work.ended().await;
        self.bound.stopped().await;
        self.store.close().await;
        ended
    }
}

/// The engine at work. A server whose engine is gone would accept tasks that nobody works on, so
/// whoever has a [`Running`] waits for this too.
pub struct Work(JoinSet<Result<(), store::ReadError>>);

impl Work {
    /// Waits until the engine ends.
    ///
    /// # Errors
    /// Why it ended, unless it was asked to.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        match self.0.join_next().await {
            Some(Ok(Err(error))) => Err(error).context("the engine could not read what is unfinished"),
            Some(Err(error)) if error.is_panic() => Err(error).context("the engine broke off"),
            _ => Ok(()),
        }
    }

    /// Waits until the engine ends although nobody asked it to.
    pub async fn broke_off(&mut self) -> anyhow::Error {
        self.ended().await.err().unwrap_or_else(|| anyhow::anyhow!("the engine ended although nobody asked it to"))
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

/// The forge of the settings: where its folder is, and what of the person git gets.
#[must_use]
pub fn forge_config(settings: &Settings) -> forge::ForgeConfig {
    let mut config = forge::ForgeConfig::new(settings.data_dir.join("forge"));
    if let Some(search_path) = &settings.git.search_path {
        config.search_path.clone_from(search_path);
    }
    config.person_env.clone_from(&settings.git.person);
    config
}

/// Opens everything and starts it. [`Running::stop`] ends it.
///
/// # Errors
/// What can't be had and what to do, first cause last.
pub async fn start_engine(settings: &Settings) -> anyhow::Result<Running> {
    let shutdown = CancellationToken::new();
    model::install_crypto();
    let store = store::sqlite::open(&settings.data_dir).await?;
    let vault = Arc::new(store::Vault::new(store.secrets.clone(), secret_keys(settings)?));
    let scratch = settings.data_dir.join("scratch");
    let boxes = Arc::new(sandboxes(settings)?);
    let forge = Arc::new(forge::BuiltIn::new(forge_config(settings)).await?);
    let models = Arc::new(ConfiguredModels { settings: settings.clone(), built: Mutex::default() });
    let mut outside = orchestrator::Outside::new(
        settings.outside.resolver(),
        settings.outside.trust(),
        vault.clone(),
        settings.data_dir.join("doors"),
    );
    outside.never.extend(settings.listen);
    let mut engine_settings = orchestrator::Settings::new(scratch);
    settings.outside.sandbox.apply(&mut engine_settings);
    engine_settings.network = settings.outside.network.clone();
    engine_settings.environments = settings.outside.environments(&settings.data_dir);
    engine_settings.environments.toolchains = identities(boxes.toolchains());
    let ports = Ports {
        store: store.clone(),
        forge,
        boxes,
        outside: Arc::new(outside),
        models,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let (engine, handle) = Engine::new(ports, engine_settings).await;
    let (token, token_file) = token(settings)?;
    let config = ServerConfig {
        unix_socket: Some(settings.socket_path()),
        tcp: settings.listen,
        token,
        local_user: settings.user.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        secrets: SecretKeeper { vault, clock: Arc::new(SystemClock) },
    };
    let bound = server::serve(config, handle.clone(), shutdown.clone()).await?;
    let mut running = JoinSet::new();
    running.spawn(engine.run(shutdown.clone()));
    Ok(Running { handle, bound, token_file, work: Work(running), store, shutdown })
}

/// The host's toolchains as environments know them: another one makes another environment.
fn identities(toolchains: &Toolchains) -> Vec<ToolchainIdentity> {
    toolchains.list.iter().map(|toolchain| ToolchainIdentity::look(&toolchain.name, &toolchain.from)).collect()
}

/// What opens the stored secrets: the key that was set, or a file that is made when the first one is stored.
fn secret_keys(settings: &Settings) -> anyhow::Result<Arc<dyn KeyProvider>> {
    let file = FileKeys::at(settings.data_dir.join(SECRET_KEY_FILE));
    Ok(match &settings.secret_key {
        Some(text) => Arc::new(VariableKeys::parse(text, env::SECRET_KEY.name, file)?),
        None => Arc::new(file),
    })
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

/// The token in the file. One that is missing or empty is made under another name and moved into
/// place whole, so that a crash leaves the old file or the new one.
fn kept_token(path: &Path) -> std::io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(kept.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let folder = path.parent().unwrap_or(Path::new("."));
    // A temporary file of this kind can be read by its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(token.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_an_empty_file_is_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "\n").unwrap();
        let made = kept_token(&path).unwrap();
        assert!(made.len() >= server::MIN_TOKEN_CHARS);
        assert_eq!(kept_token(&path).unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    async fn work(engine: impl Future<Output = Result<(), store::ReadError>> + Send + 'static) -> Work {
        let mut running = JoinSet::new();
        running.spawn(engine);
        Work(running)
    }

    #[tokio::test]
    async fn an_engine_that_ends_unasked_is_noticed_with_its_reason() {
        let failed = store::ReadError::Corrupt { what: "the list".to_owned() };
        let error = work(async { Err(failed) }).await.broke_off().await;
        assert!(format!("{error:#}").contains("could not read what is unfinished"), "{error:#}");
        let error = work(async { panic!("on purpose") }).await.broke_off().await;
        assert!(format!("{error:#}").contains("broke off"), "{error:#}");
        assert!(work(async { Ok(()) }).await.ended().await.is_ok());
    }
}
