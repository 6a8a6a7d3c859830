//! The checks of `doctor`, each a function from the settings to what was found.
//!
//! Absent: public model providers are not asked, because that would send them the key; their
//! keys are only said to be there. An endpoint on this machine or network is asked for its models.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use sandbox::{Capabilities, CgroupSupport, Isolation, Provider as _, UidMap};

use super::{Check, Mark};
use crate::client::{CallError, Client, chain, root_cause};
use crate::compose;
use crate::render::words::{duration, open_tasks, plural};
use crate::settings::{KeySource, NO_MODEL, ProviderSettings, Settings, make_private_dir};

const MACHINE: &str = "This machine";
const TOOLCHAINS: &str = "Toolchains that sandboxes see";
const FOLDER: &str = "Data and settings";
const MODELS: &str = "Models";
const SERVER: &str = "Server";

/// Free space below which tasks are likely to fail, in bytes.
const LITTLE_SPACE_BYTES: u64 = 1 << 30;
/// How long a local endpoint may take to answer.
const ENDPOINT_LIMIT: Duration = Duration::from_secs(3);

/// How strong the wall is.
const fn wall(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::SharedKernel => "namespaces on this kernel",
        Isolation::UserKernel => "a kernel in user space",
        Isolation::Vm => "a virtual machine",
    }
}

/// What a box has and what it lacks, beyond its limits.
fn abilities(can: &Capabilities) -> Check {
    let yes_no = [
        (can.landlock, "Landlock as a second wall", "no Landlock"),
        (
            can.folder_rename,
            "folders of a snapshot are renamed in one step",
            "folders of a snapshot are renamed by copying",
        ),
        (can.disk_limit, "a limit on disk space", "no limit on disk space"),
        (can.network, "a network of its own", "no network but its door"),
    ];
    let told = yes_no.map(|(has, yes, no)| if has { yes } else { no });
    let mark = if can.landlock && can.disk_limit { Mark::Ok } else { Mark::Warn };
    Check::new(MACHINE, "a box has", mark, told.join(", "))
}

/// Git, the kernel, and what the sandbox finds out by trying.
pub(super) async fn machine(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![git(settings).await];
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    checks.push(Check::new(MACHINE, "kernel", Mark::Ok, release));
    let provider = match compose::sandboxes(settings) {
        Ok(provider) => provider,
        Err(error) => {
            checks.push(
                Check::new(MACHINE, "sandbox", Mark::Problem, format!("{error:#}"))
                    .fix("make the data folder writable, or choose another with --data-dir"),
            );
            return checks;
        }
    };
    let can = provider.probe().await;
    let users = match can.uid_map {
        UidMap::Range => "a range of users",
        UidMap::Single => "one user",
    };
    checks.push(if can.usable {
        Check::new(
            MACHINE,
            "sandbox",
            Mark::Ok,
            format!("{} starts, with {users}; {}", can.provider, wall(can.isolation)),
        )
    } else {
        Check::new(MACHINE, "sandbox", Mark::Problem, "no sandbox can be started; see below")
    });
    let limits = match can.cgroup {
        CgroupSupport::V2 => (Mark::Ok, "by cgroup v2: memory, processes, processor".to_owned()),
        CgroupSupport::V1 { memory, pids, cpu } => {
            let held: Vec<_> = [(memory, "memory"), (pids, "processes"), (cpu, "processor")]
                .iter()
                .filter(|(held, _)| *held)
                .map(|(_, name)| *name)
                .collect();
            (Mark::Ok, format!("by cgroup v1: {}", held.join(", ")))
        }
        CgroupSupport::None => (Mark::Warn, "none of memory and processor; time and output are limited".to_owned()),
    };
    checks.push(Check::new(MACHINE, "limits", limits.0, limits.1));
    if can.usable {
        checks.push(abilities(&can));
    }
    for problem in &can.problems {
        let mark = if problem.fatal { Mark::Problem } else { Mark::Warn };
        checks.push(
            Check::new(MACHINE, "lacking", mark, format!("{}: {}", problem.what, problem.why))
                .fix(problem.fix.as_str()),
        );
    }
    checks.push(Check::new(TOOLCHAINS, "system", Mark::Ok, "/usr, read-only"));
    let seen = &provider.toolchains().list;
    for found in seen {
        checks.push(Check::new(
            TOOLCHAINS,
            found.name.as_str(),
            Mark::Ok,
            format!("{} as {}", found.from.display(), found.at.display()),
        ));
    }
    for (variable, name) in [("PYENV_ROOT", "python"), ("NVM_BIN", "node"), ("GOROOT", "go"), ("JAVA_HOME", "java")] {
        if let Some(place) = settings.toolchain.get(variable)
            && !seen.iter().any(|found| found.name == name)
        {
            let place = place.to_string_lossy().into_owned();
            checks.push(
                Check::new(
                    TOOLCHAINS,
                    name,
                    Mark::Warn,
                    format!("{variable} names {place}, which sandboxes do not see"),
                )
                .fix("install it under /usr, or correct the variable"),
            );
        }
    }
    checks
}

async fn git(settings: &Settings) -> Check {
    match forge::BuiltIn::new(compose::forge_config(settings)).await {
        Ok(_) => Check::new(
            MACHINE,
            "git",
            Mark::Ok,
            format!("new enough (at least {}.{})", forge::MIN_GIT.0, forge::MIN_GIT.1),
        ),
        Err(error) => Check::new(MACHINE, "git", Mark::Problem, error.to_string()).fix(format!(
            "install git {}.{} or newer, and put it on PATH",
            forge::MIN_GIT.0,
            forge::MIN_GIT.1
        )),
    }
}

/// The data folder and the settings file.
pub(super) fn folder(settings: &Settings) -> Vec<Check> {
    let dir = &settings.data_dir;
    let shown = dir.display().to_string();
    let mut checks = Vec::new();
    if let Err(error) = make_private_dir(dir) {
        checks.push(
            Check::new(FOLDER, "data folder", Mark::Problem, format!("{shown}: {error}"))
                .fix("make it writable, or choose another with --data-dir or CHARGEHAND_DATA_DIR"),
        );
    } else {
        checks.push(permissions(dir));
        checks.extend(space(dir));
        checks.extend(filesystem(dir));
    }
    let file = &settings.config_file;
    let path = file.path.display();
    checks.push(match (file.exists, file.exposed) {
        (false, _) => Check::new(FOLDER, "settings file", Mark::Ok, format!("{path} (not there; defaults are used)")),
        (true, false) => Check::new(FOLDER, "settings file", Mark::Ok, path.to_string()),
        (true, true) => Check::new(
            FOLDER,
            "settings file",
            Mark::Warn,
            format!("{path} holds a key or a token and others may read it"),
        )
        .fix(format!("chmod 600 {path}")),
    });
    checks
}

fn permissions(dir: &Path) -> Check {
    let shown = dir.display();
    match std::fs::metadata(dir) {
        Ok(meta) if meta.mode() & 0o077 == 0 => {
            Check::new(FOLDER, "data folder", Mark::Ok, format!("{shown}, yours alone"))
        }
        Ok(_) => Check::new(FOLDER, "data folder", Mark::Warn, format!("{shown} can be read by others"))
            .fix(format!("chmod 700 {shown}")),
        Err(error) => Check::new(FOLDER, "data folder", Mark::Problem, format!("{shown}: {error}")),
    }
}

fn space(dir: &Path) -> Option<Check> {
    let found = rustix::fs::statvfs(dir).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!("{} MiB free", free >> 20);
    Some(if free < LITTLE_SPACE_BYTES {
        Check::new(FOLDER, "space", Mark::Warn, text)
            .fix("sandboxes and repositories need room: free some, or choose another --data-dir")
    } else {
        Check::new(FOLDER, "space", Mark::Ok, text)
    })
}

/// Numbers that the kernel gives file systems, and what they mean for a store and for sandboxes.
fn filesystem(dir: &Path) -> Option<Check> {
    let network = "the store needs locks and syncs that hold; put the data folder on a local disk with --data-dir";
    let (name, trouble) = match rustix::fs::statfs(dir).ok()?.f_type.cast_unsigned() & 0xffff_ffff {
        0xef53 => ("ext4", None),
        0x5846_5342 => ("xfs", None),
        0x9123_683e => ("btrfs", None),
        0x2fc1_2fc1 => ("zfs", None),
        0xf2f5_2010 => ("f2fs", None),
        0x0102_1994 => (
            "tmpfs",
            Some("it lives in memory: everything is lost at a restart of the machine; choose another --data-dir"),
        ),
        0x794c_7630 => {
            ("overlay", Some("sandboxes can't use one overlay on another; put the data folder on a volume or a disk"))
        }
        0x6969 => ("nfs", Some(network)),
        0xff53_4d42 | 0xfe53_4d42 => ("smb", Some(network)),
        0x0102_1997 => ("9p", Some(network)),
        0x6573_5546 => ("fuse", Some(network)),
        _ => return None,
    };
    let mark = if trouble.is_some() { Mark::Warn } else { Mark::Ok };
    Some(Check::new(FOLDER, "file system", mark, name).fix(trouble.unwrap_or_default()))
}

/// Which providers are configured, and where each key was found.
pub(super) async fn models(settings: &Settings) -> Vec<Check> {
    let mut checks = Vec::new();
    for provider in &settings.providers {
        checks.push(key(provider));
        if provider.is_local() {
            checks.push(endpoint(provider).await);
        }
    }
    checks.push(match settings.select_model(None) {
        Ok(selected) => Check::new(MODELS, "default model", Mark::Ok, selected.selection),
        Err(_) if settings.providers.iter().any(ProviderSettings::is_usable) => {
            Check::new(MODELS, "default model", Mark::Warn, "none; each `run` must name one with --model")
                .fix("set `model` in the settings file, or CHARGEHAND_MODEL")
        }
        Err(_) => {
            let ways = NO_MODEL.split_once('\n').map_or(NO_MODEL, |(_, ways)| ways);
            Check::new(MODELS, "default model", Mark::Warn, "none, and no provider can be used")
                .fix(format!("three ways out:\n{ways}"))
        }
    });
    checks
}

fn key(provider: &ProviderSettings) -> Check {
    let name = provider.name.as_str();
    let at = if provider.base_url == provider.kind.default_base_url() {
        String::new()
    } else {
        format!(", at {}", provider.base_url)
    };
    match &provider.key_source {
        KeySource::Env(variable) => Check::new(MODELS, name, Mark::Ok, format!("key from {variable}{at}")),
        KeySource::File => Check::new(MODELS, name, Mark::Ok, format!("key from the settings file{at}")),
        KeySource::None if provider.is_usable() => Check::new(MODELS, name, Mark::Ok, format!("no key{at}")),
        KeySource::None => Check::new(MODELS, name, Mark::Warn, "no key").fix(provider.key_advice()),
        KeySource::EnvUnset(variable) => {
            Check::new(MODELS, name, Mark::Warn, format!("no key: {variable} is not set")).fix(provider.key_advice())
        }
    }
}

/// Asks an endpoint on this machine or network for its models.
async fn endpoint(provider: &ProviderSettings) -> Check {
    let what = format!("{} endpoint", provider.name);
    let url = format!("{}/models", provider.base_url.trim_end_matches('/'));
    let client =
        reqwest::Client::builder().no_proxy().timeout(ENDPOINT_LIMIT).redirect(reqwest::redirect::Policy::none());
    let client = if url.starts_with("https://") { client } else { client.tls_certs_only([]) };
    let answer = async {
        let mut request = client.build()?.get(&url);
        if let Some(key) = &provider.key {
            request = request.bearer_auth(key.expose());
        }
        request.send().await?.error_for_status()?.json::<serde_json::Value>().await
    };
    match answer.await {
        Ok(body) => {
            let models = body.get("data").and_then(|data| data.as_array()).map_or(0, Vec::len);
            Check::new(MODELS, what, Mark::Ok, format!("answers, with {}", plural(models, "model")))
        }
        Err(error) => {
            let error = error.without_url();
            let why = if error.is_request() { root_cause(&error) } else { chain(&error) };
            Check::new(MODELS, what, Mark::Problem, format!("{url} does not answer as it should: {why}"))
                .fix("start it, or correct the URL (Ollama: http://127.0.0.1:11434/v1)")
        }
    }
}

/// Whether a server runs, and whether it is this version.
pub(super) async fn server(settings: &Settings) -> Vec<Check> {
    let health = match Client::new(settings) {
        Ok(client) => client.health().await,
        Err(failure) => Err(CallError::Broken(failure.problem.detail)),
    };
    let own = env!("CARGO_PKG_VERSION");
    vec![match health {
        Ok(health) if health.version != own => {
            Check::new(SERVER, "running", Mark::Warn, format!("version {}, but this command is {own}", health.version))
                .fix("chargehand stop; the next command starts the new one")
        }
        Ok(health) => {
            let open = health.tasks_open.map_or(String::new(), |open| format!(", {} not ended", open_tasks(open)));
            Check::new(SERVER, "running", Mark::Ok, format!("for {}{open}", duration(health.uptime_ms)))
        }
        Err(CallError::NoServer) => {
            Check::new(SERVER, "running", Mark::Ok, "no; the next command that needs one starts it")
        }
        Err(error) => Check::new(SERVER, "running", Mark::Problem, crate::failure::Failure::from(error).problem.detail)
            .fix(format!("look into {}; `chargehand stop` ends it", settings.log_path().display())),
    }]
}
