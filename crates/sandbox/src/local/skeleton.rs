//! The lowest layer of every box: `/etc` as the platform writes it, an empty home, mount points.
//!
//! There are two. Under a box with a root of its own lie only the files and mount points that every
//! box has, seen where the root lacks them. For one with the host's programs, small system files that programs need (the linker's cache, alternatives, certificates) are
//! copied from the host, and only those that everybody may read; so a box's `/etc` is its own and a
//! start mounts less. The layer is named by its content and made again when the host's change.
//! Absent: the host's users, hosts, resolver and every other file of its `/etc`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use domain::id::Digest;

use crate::error::StorageContext as _;
use crate::local::layers;
use crate::local::layout::Layout;
use crate::local::toolchains::{SYSTEM, Toolchains};
use crate::port::{Root, SandboxError};

/// Copied from the host's `/etc` where they are there; folders whole.
const COPIED: [&str; 22] = [
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "networks",
    "os-release",
    "perl",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
];
/// Copied too if their names begin so: one folder per installed version.
const COPIED_PREFIXES: [&str; 4] = ["java-", "python3", "php", "maven"];
/// A larger file is not copied.
const COPIED_BYTES: u64 = 4 << 20;

/// Folders that every box has.
const FOLDERS: [&str; 9] = ["dev", "etc", "mnt", "proc", "root", "run", "tmp", "var/tmp", "workspace"];
/// Folders of a box with the host's programs.
const HOST_FOLDERS: [&str; 6] =
    ["home/agent/.cache", "home/agent/.config", "opt/toolchains", "srv", "var/cache", "var/lib"];

/// Where root lives in a box with the host's programs.
pub const HOST_HOME: &str = "/home/agent";
/// Where root lives in a box with a root of its own.
pub const OWN_HOME: &str = "/root";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost box\n::1 localhost box\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files\nprotocols: files\nservices: files\n";
/// `trustctime` is off because a layer's files get another owner, and with it another ctime, after
/// git looked at them; without this the first `git status` of every box reads every file.
const GITCONFIG: &str = "[user]\n\tname = Chargehand agent\n\temail = agent@chargehand.invalid\n\
    [safe]\n\tdirectory = *\n[core]\n\ttrustctime = false\n[init]\n\tdefaultBranch = main\n\
    [advice]\n\tdetachedHead = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";

/// One entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Folder(u32),
    File(Vec<u8>),
    Link(PathBuf),
}

/// The lowest layers.
#[derive(Debug, Clone)]
pub struct Skeletons {
    /// Under a box with the host's programs.
    pub host: Digest,
    /// Under a box with a root of its own.
    pub own: Digest,
}

impl Skeletons {
    /// The one for a box.
    pub const fn of(&self, root: Root) -> &Digest {
        match root {
            Root::Host => &self.host,
            Root::Own => &self.own,
        }
    }
}

/// Makes the layers if they are not there.
pub fn ensure(layout: &Layout, toolchains: &Toolchains, owner: Option<u32>) -> Result<Skeletons, SandboxError> {
    let host = ensure_layer(layout, &host_plan(toolchains), owner)?;
    Ok(Skeletons { host, own: ensure_layer(layout, &plan(OWN_HOME), owner)? })
}

fn ensure_layer(layout: &Layout, items: &BTreeMap<PathBuf, Item>, owner: Option<u32>) -> Result<Digest, SandboxError> {
    let key = digest(items, owner);
    if layout.layer(&key).exists() {
        return Ok(key);
    }
    let holder = layout.new_holder()?;
    let root = holder.join("root");
    for (path, item) in items {
        let target = root.join(path);
        match item {
            Item::Folder(mode) => {
                fs::create_dir_all(&target).doing("create", &target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(*mode)).doing("open", &target)?;
            }
            Item::File(bytes) => {
                fs::write(&target, bytes).doing("write", &target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).doing("open", &target)?;
            }
            Item::Link(to) => symlink(to, &target).doing("link", &target)?,
        }
    }
    layers::adopt(&root, owner)?;
    layout.publish(&holder, &key)?;
    Ok(key)
}

/// What every box has; parents sort before what is in them.
fn plan(home: &str) -> BTreeMap<PathBuf, Item> {
    let mut items = BTreeMap::new();
    for folder in FOLDERS {
        add_folder(&mut items, Path::new(folder));
    }
    for open in ["tmp", "var/tmp"] {
        items.insert(open.into(), Item::Folder(0o1777));
    }
    let passwd =
        format!("root:x:0:0:root:{home}:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    let written = [
        ("passwd", passwd.as_str()),
        ("group", GROUP),
        ("hosts", HOSTS),
        ("hostname", "box\n"),
        ("resolv.conf", ""),
        ("nsswitch.conf", NSSWITCH),
        ("gitconfig", GITCONFIG),
        ("shells", "/bin/sh\n/bin/bash\n"),
        ("machine-id", ""),
    ];
    for (name, text) in written {
        items.insert(Path::new("etc").join(name), Item::File(text.into()));
    }
    items.insert("etc/mtab".into(), Item::Link("/proc/mounts".into()));
    items
}

/// The same with what programs of the host need.
fn host_plan(toolchains: &Toolchains) -> BTreeMap<PathBuf, Item> {
    let mut items = plan(HOST_HOME);
    for folder in HOST_FOLDERS {
        add_folder(&mut items, Path::new(folder));
    }
    for system in SYSTEM {
        let inside = Path::new(system.trim_start_matches('/')).to_owned();
        match (fs::read_link(system), Path::new(system).is_dir()) {
            (Ok(to), _) => drop(items.insert(inside, Item::Link(to))),
            (Err(_), true) => add_folder(&mut items, &inside),
            (Err(_), false) => {}
        }
    }
    for toolchain in &toolchains.list {
        add_folder(&mut items, toolchain.at.strip_prefix("/").unwrap_or(&toolchain.at));
    }
    let mut names: Vec<String> = COPIED.iter().map(|name| (*name).to_owned()).collect();
    for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if COPIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            names.push(name);
        }
    }
    for name in names {
        copy(&mut items, &Path::new("etc").join(name));
    }
    items
}

fn add_folder(items: &mut BTreeMap<PathBuf, Item>, path: &Path) {
    for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        items.entry(ancestor.to_owned()).or_insert(Item::Folder(0o755));
    }
}

/// Copies a host path (without its leading slash) as far as everybody may read it.
fn copy(items: &mut BTreeMap<PathBuf, Item>, path: &Path) {
    let host = Path::new("/").join(path);
    let Ok(about) = fs::symlink_metadata(&host) else { return };
    let item = if about.is_symlink() {
        fs::read_link(&host).ok().map(Item::Link)
    } else if about.is_dir() {
        add_folder(items, path);
        for entry in fs::read_dir(&host).into_iter().flatten().flatten() {
            copy(items, &path.join(entry.file_name()));
        }
        None
    } else if about.is_file() && about.mode() & 0o004 != 0 && about.len() <= COPIED_BYTES {
        fs::read(&host).ok().map(Item::File)
    } else {
        None
    };
    if let Some(item) = item {
        path.parent().inspect(|parent| add_folder(items, parent));
        items.insert(path.to_owned(), item);
    }
}

fn digest(items: &BTreeMap<PathBuf, Item>, owner: Option<u32>) -> Digest {
    use std::os::unix::ffi::OsStrExt as _;
    let mut bytes = format!("skeleton 2, owner {owner:?}\n").into_bytes();
    for (path, item) in items {
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        match item {
            Item::Folder(mode) => bytes.extend_from_slice(format!("\0d{mode:o}\n").as_bytes()),
            Item::File(content) => {
                bytes.extend_from_slice(format!("\0f{}\n", content.len()).as_bytes());
                bytes.extend_from_slice(content);
            }
            Item::Link(to) => {
                bytes.extend_from_slice(b"\0l");
                bytes.extend_from_slice(to.as_os_str().as_bytes());
                bytes.push(b'\n');
            }
        }
    }
    Digest::of(&bytes)
}
