//! What the user set: as written (flags, environment, file) → as meant ([`Settings`]).
//!
//! The environment and the settings file are read here, once, and nowhere else; every other module
//! and every other crate takes what it needs as a value. A flag wins over a variable, a variable
//! over the file, the file over the default. Absent: settings of a repository, which are read
//! from its base commit by the engine.

pub mod env;
pub mod file;
pub mod models;
pub mod outside;
pub mod providers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use domain::contract::Budget;

pub use env::Env;
use file::{BudgetFile, File};
pub use outside::Outside;
pub use providers::{KeySource, ProviderKind, ProviderSettings, Secret};

/// Longest path of a unix socket, in bytes, without the closing zero.
const MAX_SOCKET_PATH_BYTES: usize = server::MAX_SOCKET_PATH_BYTES;
/// What the three ways to a model are; for everyone who has to say that there is none.
pub const NO_MODEL: &str = "no model is configured. Three ways out:
  1. a key: set ANTHROPIC_API_KEY or OPENAI_API_KEY (or put `api_key_env` under [providers.NAME] in the settings file)
  2. a model on your own machine: set OPENAI_BASE_URL to its URL (Ollama: http://127.0.0.1:11434/v1) and give --model openai/NAME
  3. no model at all: --agent command -- PROGRAM ARGS, with any program that edits files
To look around first, run `chargehand demo`; it needs none of them.";

/// What the user said on the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
}

/// Variables that say where the host's toolchains are, for the sandbox's allow-list of paths.
const TOOLCHAIN_VARIABLES: &[env::Variable] = &[
    env::HOME,
    env::RUSTUP_HOME,
    env::RUSTUP_TOOLCHAIN,
    env::CARGO_HOME,
    env::PYENV_ROOT,
    env::PYENV_VERSION,
    env::NVM_BIN,
    env::GOROOT,
    env::JAVA_HOME,
];

/// Variables of the person that git and ssh get when they reach a repository's origin.
const PERSON_VARIABLES: &[env::Variable] = &[
    env::HOME,
    env::XDG_CONFIG_HOME,
    env::SSH_AUTH_SOCK,
    env::HTTP_PROXY,
    env::HTTPS_PROXY,
    env::HTTPS_PROXY_UPPER,
    env::ALL_PROXY,
    env::ALL_PROXY_UPPER,
    env::NO_PROXY,
    env::NO_PROXY_UPPER,
];

/// What the environment says to git and to what git starts, and nothing else of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitInputs {
    /// `PATH` without its relative folders, which would depend on where the server was started;
    /// nothing if no folder is left.
    pub search_path: Option<OsString>,
    /// The person's variables for calls that reach an origin.
    pub person: Vec<(OsString, OsString)>,
}

impl GitInputs {
    fn of(env: &Env) -> Self {
        let folders = env.os(env::PATH).into_iter().flat_map(std::env::split_paths).filter(|path| path.is_absolute());
        let search_path = std::env::join_paths(folders).ok().filter(|path| !path.is_empty());
        let person =
            PERSON_VARIABLES.iter().filter_map(|variable| Some((variable.name.into(), env.os(*variable)?.clone())));
        Self { search_path, person: person.collect() }
    }
}

/// What the environment says about toolchains, and nothing else of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolchainInputs(BTreeMap<&'static str, OsString>);

impl ToolchainInputs {
    fn of(env: &Env) -> Self {
        let known = TOOLCHAIN_VARIABLES.iter();
        Self(known.filter_map(|variable| Some((variable.name, env.os(*variable)?.clone()))).collect())
    }

    /// One of the variables that say where a toolchain is, as `sandbox` asks for them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}

/// The settings file, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is or would be.
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Whether it holds a key or a token and others may read it.
    pub exposed: bool,
}

/// What the terminal's user wants of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputWishes {
    /// Whether `NO_COLOR` or `TERM=dumb` forbids colour.
    pub no_color: bool,
    /// `COLUMNS`.
    pub columns: Option<u16>,
}

/// Settings as meant.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder, absolute.
    pub data_dir: PathBuf,
    /// The settings file.
    pub config_file: ConfigFile,
    /// The model for tasks that name none, as `provider/model`.
    pub model: Option<String>,
    /// The providers that are configured, whether usable or not.
    pub providers: Vec<ProviderSettings>,
    /// Where to listen by TCP.
    pub listen: Option<SocketAddr>,
    /// The bearer token for TCP.
    pub token: Option<Secret>,
    /// The key, or the keys, of the stored secrets, where they come from a variable.
    pub secret_key: Option<Secret>,
    /// Budget of tasks whose contract says nothing of it.
    pub budget: Budget,
    /// The local user's name: the principal of whoever calls over the unix socket.
    pub user: String,
    /// What boxes may reach and be made of.
    pub outside: Outside,
    /// Where toolchains are looked for.
    pub toolchain: ToolchainInputs,
    /// What git gets of the environment.
    pub git: GitInputs,
    /// The server's tracing filter.
    pub log_filter: String,
    /// Colour and width.
    pub output: OutputWishes,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can't be read.
    #[error("the settings file {path} can't be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file's text is wrong.
    #[error("{path}, line {line}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What.
        why: String,
    },
    /// A variable or flag is wrong.
    #[error("{name} is wrong: {why}")]
    Value {
        /// Which.
        name: String,
        /// What.
        why: String,
    },
    /// There is no place for the data.
    #[error("there is no home folder, so the data folder must be named: give --data-dir or set CHARGEHAND_DATA_DIR")]
    NoHome,
    /// The socket's path would be too long.
    #[error(
        "the data folder's path is too long for a unix socket ({bytes} bytes with /chargehand.sock, at most {MAX_SOCKET_PATH_BYTES}): choose a shorter one with --data-dir"
    )]
    LongPath {
        /// How long.
        bytes: usize,
    },
}

impl Settings {
    /// Reads environment and file, and makes them mean something.
    ///
    /// # Errors
    /// [`SettingsError`], in words for the user.
    pub fn load(flags: &Flags) -> Result<Self, SettingsError> {
        let env = Env::of_process();
        let (path, asked_for) = config_path(flags, &env)?;
        let (file, config_file) = read_file(path, asked_for)?;
        Self::mean(flags, &env, file, config_file)
    }

    /// As written → as meant. Reads nothing but the list of users.
    ///
    /// # Errors
    /// [`SettingsError`], in words for the user.
    pub fn mean(flags: &Flags, env: &Env, file: File, config_file: ConfigFile) -> Result<Self, SettingsError> {
        let data_dir =
            match flags.data_dir.clone().or_else(|| env.os(env::DATA_DIR).map(PathBuf::from)).or(file.data_dir) {
                Some(dir) => dir,
                None => xdg(env, env::XDG_DATA_HOME, ".local/share").ok_or(SettingsError::NoHome)?,
            };
        let data_dir = std::path::absolute(&data_dir)
            .map_err(|error| SettingsError::Value { name: "the data folder".to_owned(), why: error.to_string() })?;
        let bytes = data_dir.join(server::SOCKET_NAME).as_os_str().as_bytes().len();
        if bytes > MAX_SOCKET_PATH_BYTES {
            return Err(SettingsError::LongPath { bytes });
        }
        let listen = match (flags.listen, env.text(env::LISTEN)) {
            (Some(address), _) => Some(address),
            (None, Some(text)) => Some(text.parse().map_err(|_| SettingsError::Value {
                name: env::LISTEN.name.to_owned(),
                why: format!("`{text}` is not an address with a port; write for example 127.0.0.1:7878"),
            })?),
            (None, None) => file.listen,
        };
        let providers = providers::gather(env, file.providers);
        let model = env.text(env::MODEL).or(file.model).or_else(|| providers::default_model(&providers));
        Ok(Self {
            data_dir,
            config_file,
            model,
            providers,
            listen,
            token: env.text(env::TOKEN).map(|token| providers::pasted(&token)).or(file.token),
            secret_key: env.text(env::SECRET_KEY).map(|key| providers::pasted(&key)),
            outside: Outside::of(&file.network, &file.environments, file.sandbox)
                .map_err(|why| SettingsError::Value { name: "the settings file".to_owned(), why })?,
            budget: budget(&file.budget)?,
            user: user_name(env),
            toolchain: ToolchainInputs::of(env),
            git: GitInputs::of(env),
            log_filter: env.text(env::LOG).unwrap_or_else(|| "info".to_owned()),
            output: OutputWishes {
                no_color: env.os(env::NO_COLOR).is_some() || env.text(env::TERM).as_deref() == Some("dumb"),
                columns: env.text(env::COLUMNS).and_then(|columns| columns.parse().ok()),
            },
        })
    }

    /// The unix socket of the local command line.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.data_dir.join(server::SOCKET_NAME)
    }

    /// Where a server in the background writes its log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.join("server.log")
    }
}

fn home(env: &Env) -> Option<PathBuf> {
    env.os(env::HOME).map(PathBuf::from).filter(|home| home.is_absolute())
}

/// A folder of the XDG kind; relative ones are ignored, as its specification says.
fn xdg(env: &Env, variable: env::Variable, under_home: &str) -> Option<PathBuf> {
    env.os(variable)
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| home(env).map(|home| home.join(under_home)))
        .map(|folder| folder.join("chargehand"))
}

/// The settings file's path, and whether the user named it, so that it must be there.
fn config_path(flags: &Flags, env: &Env) -> Result<(PathBuf, bool), SettingsError> {
    if let Some(path) = flags.config.clone().or_else(|| env.os(env::CONFIG).map(PathBuf::from)) {
        return Ok((path, true));
    }
    match xdg(env, env::XDG_CONFIG_HOME, ".config") {
        Some(folder) => Ok((folder.join("config.toml"), false)),
        None if flags.data_dir.is_some() || env.os(env::DATA_DIR).is_some() => {
            Ok((PathBuf::from("/etc/chargehand/config.toml"), false))
        }
        None => Err(SettingsError::NoHome),
    }
}

fn read_file(path: PathBuf, asked_for: bool) -> Result<(File, ConfigFile), SettingsError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let file = file::parse(&path, &text)?;
            let others_read = std::fs::metadata(&path).is_ok_and(|meta| meta.mode() & 0o077 != 0);
            let exposed = others_read && file.holds_secret();
            Ok((file, ConfigFile { path, exists: true, exposed }))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !asked_for => {
            Ok((File::default(), ConfigFile { path, exists: false, exposed: false }))
        }
        Err(source) => Err(SettingsError::Read { path, source }),
    }
}

/// Dollars as whole micro-dollars.
///
/// # Errors
/// A sentence, if that is not an amount from 0 to a million.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
pub fn micro_usd(dollars: f64) -> Result<u64, String> {
    if (0.0..=1_000_000.0).contains(&dollars) {
        Ok((dollars * 1e6).round() as u64)
    } else {
        Err(format!("{dollars} is not an amount of dollars from 0 to 1000000"))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn budget(written: &BudgetFile) -> Result<Budget, SettingsError> {
    let wrong =
        |name: &str, why: String| SettingsError::Value { name: format!("budget.{name} of the settings file"), why };
    let mut budget = Budget::default();
    if let Some(usd) = written.usd {
        budget.money_micro_usd = Some(micro_usd(usd).map_err(|why| wrong("usd", why))?);
    }
    if let Some(tokens) = written.tokens {
        budget.tokens = Some(tokens);
    }
    if let Some(turns) = written.turns {
        if turns == 0 {
            return Err(wrong("turns", "a task needs at least one".to_owned()));
        }
        budget.turns = turns;
    }
    if let Some(hours) = written.hours {
        if !(0.001..=10_000.0).contains(&hours) {
            return Err(wrong("hours", format!("{hours} is not from 0.001 to 10000")));
        }
        budget.wall_ms = (hours * 3_600_000.0).round() as u64;
    }
    Ok(budget)
}

/// The name that belongs to the user id, else the one in the environment, else the number.
fn user_name(env: &Env) -> String {
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    user_of(&users, uid)
        .or_else(|| env.text(env::USER))
        .or_else(|| env.text(env::LOGNAME))
        .unwrap_or_else(|| format!("uid-{uid}"))
}

fn user_of(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?;
        (id == uid.to_string() && !name.is_empty()).then(|| name.to_owned())
    })
}

/// Makes the data folder, readable by its owner alone.
///
/// # Errors
/// What the system said.
pub fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests;
