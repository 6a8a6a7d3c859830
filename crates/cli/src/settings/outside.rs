//! `[network]` and `[environments]` of the settings file: what boxes may reach and be made of.
//!
//! Absent: what a repository asks for; it asks in its own files, and gets at most what stands here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use egress::{AllowEntry, Resolver, SystemResolver, UpstreamTls};
use orchestrator::{EnvironmentSettings, NetworkSettings, Trust};
use sandbox::environment::Allow;
use sandbox::environment::recipe::Permitted;
use serde::Deserialize;

/// Where systems keep the authorities that they trust, the first that is there.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Section `[network]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkFile {
    /// The hosts of groups such as `cargo` or `npm`.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Hosts that may have addresses which are not public, exact or as `*.suffix`.
    pub private_hosts: Vec<String>,
    /// Hosts that are spoken to without TLS.
    pub plain_http_hosts: Vec<String>,
    /// Addresses of hosts that no resolver knows, as in `/etc/hosts`.
    pub hosts: BTreeMap<String, IpAddr>,
    /// What boxes may reach at most; left out, repositories decide alone.
    pub allow: Option<Vec<AllowEntry>>,
    /// A PEM file with the only authorities that are trusted, by doors and by programs in boxes, instead
    /// of the machine's.
    pub certificate_authorities: Option<PathBuf>,
}

/// Section `[environments]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvironmentsFile {
    /// Host paths that repositories may name, as bases and to be read.
    pub host_paths: Vec<PathBuf>,
    /// Groups or hosts that setup may reach where a repository has no file of its own.
    pub setup_network: Vec<String>,
    /// Image names, and the folders or archives on this machine that hold them.
    pub images: BTreeMap<String, PathBuf>,
}

/// Section `[sandbox]`: what each box may use, and all together.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxFile {
    /// Memory of one box, in mebibytes.
    pub memory_mb: Option<u64>,
    /// Files that one box writes, in mebibytes.
    pub disk_mb: Option<u64>,
    /// Processes and threads of one box.
    pub pids: Option<u32>,
    /// Processor time of one box, in thousandths of one processor.
    pub cpu_millis: Option<u32>,
    /// What environments and kept steps may take on disk together, in mebibytes.
    pub layers_mb: Option<u64>,
    /// Tasks at work at once.
    pub tasks: Option<usize>,
}

impl SandboxFile {
    /// Puts what is set into the engine's settings.
    pub fn apply(&self, settings: &mut orchestrator::Settings) {
        let bytes = |mb: u64| mb.saturating_mul(1 << 20);
        let limits = &mut settings.limits;
        limits.memory_bytes = self.memory_mb.map_or(limits.memory_bytes, bytes);
        limits.disk_bytes = self.disk_mb.map(bytes).or(limits.disk_bytes);
        limits.pids = self.pids.unwrap_or(limits.pids);
        limits.cpu_millis = self.cpu_millis.or(limits.cpu_millis);
        settings.layers_budget_bytes = self.layers_mb.map_or(settings.layers_budget_bytes, bytes);
        settings.max_working = self.tasks.unwrap_or(settings.max_working);
    }
}

/// All three, as meant.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// What boxes may use.
    pub sandbox: SandboxFile,
    /// What the engine knows of the network.
    pub network: NetworkSettings,
    /// Addresses of hosts that no resolver knows.
    pub hosts: BTreeMap<String, IpAddr>,
    /// The only authorities that are trusted, if not the machine's.
    pub certificate_authorities: Option<PathBuf>,
    host_paths: Vec<PathBuf>,
    setup_network: Vec<Allow>,
    images: BTreeMap<String, PathBuf>,
}

impl Outside {
    /// From the file's sections; limits of nothing are no limits.
    ///
    /// # Errors
    /// What is wrong with the list of what may be reached, for a person.
    pub fn of(network: &NetworkFile, environments: &EnvironmentsFile, sandbox: SandboxFile) -> Result<Self, String> {
        let sizes = [sandbox.memory_mb, sandbox.disk_mb, sandbox.layers_mb];
        let counts = [sandbox.pids.map(u64::from), sandbox.cpu_millis.map(u64::from), sandbox.tasks.map(|n| n as u64)];
        if sizes.into_iter().chain(counts).any(|limit| limit == Some(0)) {
            return Err("[sandbox]: a limit of 0 lets nothing run; leave it out for the default".to_owned());
        }
        let ceiling = network.allow.as_deref().map(NetworkSettings::ceiling).transpose();
        let ceiling = ceiling.map_err(|error| format!("[[network.allow]]: {error}"))?;
        let setup = environments.setup_network.iter().map(|name| sandbox::environment::values::allow_named(name));
        Ok(Self {
            sandbox,
            network: NetworkSettings {
                groups: network.groups.clone(),
                private_hosts: network.private_hosts.clone(),
                plain_http_hosts: network.plain_http_hosts.clone(),
                ceiling,
            },
            hosts: network.hosts.clone(),
            certificate_authorities: network.certificate_authorities.clone(),
            host_paths: environments.host_paths.clone(),
            setup_network: setup.collect(),
            images: environments.images.clone(),
        })
    }

    /// What environments may be made of, for a server with this data folder.
    #[must_use]
    pub fn environments(&self, data_dir: &Path) -> EnvironmentSettings {
        EnvironmentSettings {
            permitted: Permitted { below: self.host_paths.clone(), never: vec![data_dir.to_owned()] },
            default_setup_network: self.setup_network.clone(),
            images: self.images.clone(),
            toolchains: Vec::new(),
            provider: "local/1".to_owned(),
            records: data_dir.join("environments"),
        }
    }

    /// Finds addresses: the settings' own first.
    #[must_use]
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        let own = self.hosts.iter().map(|(name, address)| (name.to_ascii_lowercase(), *address)).collect();
        Arc::new(OwnHosts { own })
    }

    /// Whom doors trust.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let file = self.certificate_authorities.clone();
        let only = self.certificate_authorities.clone();
        // A file that can't be read is said by `upstream`, without which no door opens.
        let bundle = Box::new(move || match &only {
            Some(path) => std::fs::read_to_string(path).unwrap_or_default(),
            None => SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default(),
        });
        let upstream = Box::new(move || match &file {
            None => UpstreamTls::system().map_err(|error| error.to_string()),
            Some(path) => {
                let pem = std::fs::read_to_string(path)
                    .map_err(|error| format!("`certificate_authorities` {}: {error}", path.display()))?;
                UpstreamTls::trusting(&pem).map_err(|error| format!("{}: {error}", path.display()))
            }
        });
        Trust { upstream, bundle }
    }
}

struct OwnHosts {
    own: HashMap<String, IpAddr>,
}

#[async_trait]
impl Resolver for OwnHosts {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self.own.get(name) {
            Some(address) => Ok(vec![*address]),
            None => SystemResolver.resolve(name).await,
        }
    }
}
