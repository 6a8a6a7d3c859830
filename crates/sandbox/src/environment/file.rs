//! `.chargehand/environment.toml`: from text to a [`Recipe`].
//!
//! ```toml
//! version = 1
//! base = "host"                       # or { rootfs = "/srv/x" }, { tarball = "/srv/x.tar.gz" },
//!                                     # or { oci = "/srv/layout", tag = "3" }
//! read_only = ["/opt/sdk", { from = "/opt/data", at = "/data" }]
//! start = ["redis-server --daemonize yes"]
//! caches = ["/home/agent/.cache/pip"]
//! setup_secrets = ["NPM_TOKEN"]
//!
//! [[setup]]
//! run = "npm ci"
//! network = true                      # or a list out of setup_network
//! time_limit_s = 900
//!
//! [env]
//! NODE_ENV = "development"
//!
//! [limits]
//! memory_mb = 4096
//!
//! [network]
//! tasks = ["cargo"]
//! setup = ["npm", { host = "files.example.org", paths = ["/x/*"], secret = { name = "NPM_TOKEN", how = "bearer" } }]
//!
//! [rebuild]
//! every_h = 24
//! when_branch_moves = true
//! ```
//!
//! An unknown key is an error with its place and the key that was probably meant. Absent: whether a
//! host path is permitted ([`Recipe::binds`] judges that on the machine) and whether a host may be
//! reached (the way out does).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::recipe::{
    Allow, Base, DEFAULT_TIME_LIMIT_S, Host, Rebuild, Recipe, RecipeError, RecipeLimits, SecretUse, SetupCommand,
    SetupNetwork,
};
use super::values;
use crate::port::ReadOnlyBind;

/// Where the file lies in a repository.
pub const ENVIRONMENT_FILE: &str = ".chargehand/environment.toml";
/// The version of the file's grammar.
pub const FILE_VERSION: i64 = 1;

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Option<i64>,
    base: Option<WrittenBase>,
    #[serde(default)]
    read_only: Vec<WrittenBind>,
    #[serde(default)]
    setup: Vec<WrittenSetup>,
    #[serde(default)]
    start: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    caches: Vec<PathBuf>,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    network: WrittenNetwork,
    #[serde(default)]
    setup_secrets: Vec<String>,
    #[serde(default)]
    rebuild: WrittenRebuild,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "base is \"host\" or one of { rootfs = … }, { tarball = … }, { oci = …, tag = … }")]
enum WrittenBase {
    Word(String),
    Path(WrittenBasePath),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBasePath {
    rootfs: Option<PathBuf>,
    tarball: Option<PathBuf>,
    oci: Option<PathBuf>,
    tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a path, or { from = …, at = … }")]
enum WrittenBind {
    Same(PathBuf),
    Elsewhere(WrittenElsewhere),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenElsewhere {
    from: PathBuf,
    at: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSetup {
    run: String,
    #[serde(default)]
    network: WrittenReach,
    time_limit_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "network is true, false or a list of names out of setup_network")]
enum WrittenReach {
    All(bool),
    Only(Vec<String>),
}

impl Default for WrittenReach {
    fn default() -> Self {
        Self::All(false)
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenLimits {
    memory_mb: Option<u64>,
    pids: Option<u32>,
    cpu_millis: Option<u32>,
    open_files: Option<u32>,
    disk_mb: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenNetwork {
    tasks: Vec<WrittenAllow>,
    setup: Vec<WrittenAllow>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a name such as \"cargo\" or \"crates.example.org\", or { host = …, ports, methods, paths, secret }"
)]
enum WrittenAllow {
    Name(String),
    Host(WrittenHost),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHost {
    host: String,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    secret: Option<WrittenSecret>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "secret is a name, or { name = …, how = … }")]
enum WrittenSecret {
    Name(String),
    How(WrittenHow),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHow {
    name: String,
    how: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenRebuild {
    every_h: Option<u32>,
    when_branch_moves: Option<bool>,
}

/// Reads the file's bytes.
///
/// # Errors
/// [`RecipeError`] with the place of the first mistake. The caller must not go on as if there were
/// no file.
pub fn parse(bytes: &[u8]) -> Result<Recipe, RecipeError> {
    let text = values::text(ENVIRONMENT_FILE, bytes)?;
    let written: Written = toml::from_str(text).map_err(|error| not_understood(text, &error))?;
    meant(written).map_err(|problem| RecipeError::BadValue { file: ENVIRONMENT_FILE.into(), problem })
}

fn not_understood(text: &str, error: &toml::de::Error) -> RecipeError {
    let (line, column) = values::place(text, error.span().map_or(0, |span| span.start));
    let problem = error.message().trim().replace('\n', ", ");
    let instead = values::suggestion(&problem);
    RecipeError::NotUnderstood { file: ENVIRONMENT_FILE.into(), line, column, problem, instead }
}

fn meant(written: Written) -> Result<Recipe, String> {
    if let Some(version) = written.version.filter(|version| *version != FILE_VERSION) {
        return Err(format!("version {version} is not known to this Chargehand; write version = {FILE_VERSION}"));
    }
    let allow = |list: Vec<WrittenAllow>| list.into_iter().map(allow).collect::<Result<Vec<_>, _>>();
    let limits = written.limits;
    let recipe = Recipe {
        base: base(written.base)?,
        read_only: written.read_only.into_iter().map(bind).collect(),
        setup: written.setup.into_iter().map(setup).collect(),
        start: written.start,
        env: written.env,
        caches: written.caches,
        limits: RecipeLimits {
            memory_mb: limits.memory_mb,
            pids: limits.pids,
            cpu_millis: limits.cpu_millis,
            open_files: limits.open_files,
            disk_mb: limits.disk_mb,
        },
        task_network: allow(written.network.tasks)?,
        setup_network: allow(written.network.setup)?,
        setup_secrets: written.setup_secrets,
        rebuild: Rebuild {
            every_h: written.rebuild.every_h,
            when_branch_moves: written.rebuild.when_branch_moves.unwrap_or(true),
        },
    };
    values::check(&recipe)?;
    Ok(recipe)
}

fn base(written: Option<WrittenBase>) -> Result<Base, String> {
    let path = match written {
        None => return Ok(Base::Host),
        Some(WrittenBase::Word(word)) if word == "host" => return Ok(Base::Host),
        Some(WrittenBase::Word(word)) => {
            return Err(format!(
                "base = \"{word}\" is not known; write \"host\", {{ rootfs = … }}, {{ tarball = … }} or {{ oci = … }}"
            ));
        }
        Some(WrittenBase::Path(path)) => path,
    };
    match path {
        WrittenBasePath { rootfs: Some(folder), tarball: None, oci: None, tag: None } => Ok(Base::Rootfs { folder }),
        WrittenBasePath { rootfs: None, tarball: Some(file), oci: None, tag: None } => Ok(Base::Tarball { file }),
        WrittenBasePath { rootfs: None, tarball: None, oci: Some(layout), tag } => Ok(Base::Oci { layout, tag }),
        _ => Err("base takes exactly one of rootfs, tarball and oci; tag belongs to oci".into()),
    }
}

fn bind(written: WrittenBind) -> ReadOnlyBind {
    match written {
        WrittenBind::Same(path) => ReadOnlyBind { from: path.clone(), at: path },
        WrittenBind::Elsewhere(WrittenElsewhere { from, at }) => ReadOnlyBind { from, at },
    }
}

fn setup(written: WrittenSetup) -> SetupCommand {
    let network = match written.network {
        WrittenReach::All(false) => SetupNetwork::None,
        WrittenReach::All(true) => SetupNetwork::Listed,
        WrittenReach::Only(names) => SetupNetwork::Only(names),
    };
    SetupCommand { run: written.run, network, time_limit_s: written.time_limit_s.unwrap_or(DEFAULT_TIME_LIMIT_S) }
}

fn allow(written: WrittenAllow) -> Result<Allow, String> {
    Ok(match written {
        WrittenAllow::Name(name) => values::allow_named(&name),
        WrittenAllow::Host(written) => Allow::Host(Host {
            host: written.host,
            ports: written.ports,
            methods: written.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
            paths: written.paths,
            secret: written.secret.map(|secret| match secret {
                WrittenSecret::Name(name) => SecretUse { name, how: "bearer".into() },
                WrittenSecret::How(WrittenHow { name, how }) => SecretUse { name, how },
            }),
        }),
    })
}
