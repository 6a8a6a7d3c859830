//! Somebody else's root file system as one layer: a folder, a tar archive, an image layout.
//!
//! The layer's key is the digest of the source, so an import happens once; a source that changes
//! while it is read gives an error and no layer. Everything is written into a staging folder that
//! vanishes with any failure. Devices, pipes, sockets, extended attributes and rights to become
//! another user are left out and counted. Absent: links that are followed, and names that are
//! believed ([`super::land`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::id::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::elf;
use super::land::{About, Ground, Inside};
use super::oci::{Layout, verify};
use super::recipe::Base;
pub use super::report::{ImportError, ImportReport};
use super::tar::{TarRules, extract};
pub use super::unpack::{Bomb, ImportLimits};
use super::unpack::{Packed, Unpacked};
use crate::port::{Owners, Provider, SnapshotRef, Staging};

/// Raised when an import makes something else than before of the same source.
const IMPORT_GENERATION: &str = "import 1";

/// An imported base.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The layer's key; goes into the key of environments on it.
    pub key: Digest,
    /// The layer.
    pub snapshot: SnapshotRef,
    /// Variables that the image wants.
    pub env: Vec<(String, String)>,
    /// Where the image's commands begin.
    pub workdir: Option<PathBuf>,
    /// As whom the image's commands run; boxes run them as their root.
    pub user: Option<String>,
    /// What was made and dropped; none if the layer was there already.
    pub report: Option<ImportReport>,
}

/// What is imported, looked at.
enum Source {
    Folder { path: PathBuf, digest: Digest },
    Archive { path: PathBuf, digest: Digest },
    Image { layout: Layout, image: super::oci::Image },
}

/// Imports a base as a layer of `provider`, if it is not one already; gives nothing for
/// [`Base::Host`]. The base's path has to be permitted by now ([`super::Recipe::base_path`]).
///
/// # Errors
/// [`ImportError`]; nothing is left then.
pub async fn import(
    provider: &dyn Provider,
    base: &Base,
    limits: ImportLimits,
) -> Result<Option<Imported>, ImportError> {
    let looked_at = base.clone();
    let Some(source) = blocking(move || look(&looked_at, limits)).await? else { return Ok(None) };
    let key = source.key();
    let (env, workdir, user) = match &source {
        Source::Image { image, .. } => (image.env.clone(), image.workdir.clone(), image.user.clone()),
        Source::Folder { .. } | Source::Archive { .. } => (Vec::new(), None, None),
    };
    if let Some(snapshot) = provider.prepared(&key).await? {
        return Ok(Some(Imported { key, snapshot, env, workdir, user, report: None }));
    }
    let staged = provider.stage(&key, Path::new("/")).await?;
    // The staging folder goes with the work, so that it outlives a caller that stops waiting.
    let (staged, mut report) = blocking(move || fill(staged, &source, limits)).await?;
    let snapshot = provider.prepare(&key, staged, Owners::Kept).await?;
    if let Some(user) = user.as_deref().filter(|user| !matches!(*user, "root" | "0" | "0:0" | "root:root")) {
        report.notes.push(format!("the image wants its commands to run as {user}; in boxes they run as root"));
    }
    Ok(Some(Imported { key, snapshot, env, workdir, user, report: Some(report) }))
}

/// The key that [`import`] would give the layer, without importing it; none for [`Base::Host`].
/// Reads an archive once, a folder's entries once, and of an image only its documents.
///
/// # Errors
/// [`ImportError`] if the source cannot be read.
pub async fn base_key(base: &Base, limits: ImportLimits) -> Result<Option<Digest>, ImportError> {
    let base = base.clone();
    blocking(move || Ok(look(&base, limits)?.map(|source| source.key()))).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImportError> + Send + 'static,
) -> Result<T, ImportError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ImportError::CutOff(error.to_string()))?
}

impl Source {
    fn key(&self) -> Digest {
        let (kind, digest) = match self {
            Self::Folder { digest, .. } => ("folder", digest.as_str()),
            Self::Archive { digest, .. } => ("archive", digest.as_str()),
            Self::Image { image, .. } => ("image", image.digest.as_str()),
        };
        Digest::of(format!("{IMPORT_GENERATION}\n{kind}\n{digest}").as_bytes())
    }
}

fn look(base: &Base, limits: ImportLimits) -> Result<Option<Source>, ImportError> {
    Ok(Some(match base {
        Base::Host => return Ok(None),
        Base::Rootfs { folder } => Source::Folder { path: folder.clone(), digest: folder_digest(folder, limits)? },
        Base::Tarball { file } => {
            let digest = archive_digest(file)?;
            Source::Archive { path: file.clone(), digest }
        }
        Base::Oci { layout, tag } => {
            let layout = Layout::open(layout)?;
            let image = layout.image(tag.as_deref())?;
            Source::Image { layout, image }
        }
    }))
}

fn archive_digest(path: &Path) -> Result<Digest, ImportError> {
    let read = |source| ImportError::Read { path: path.to_owned(), source };
    let (digest, _) = Packed::new(open_file(path)?).finish().map_err(read)?;
    Digest::parse(&digest).map_err(|error| read(io::Error::other(error)))
}

/// Opens a regular file, and does not hang on a pipe that lies there instead.
fn open_file(path: &Path) -> Result<File, ImportError> {
    let read = |source| ImportError::Read { path: path.to_owned(), source };
    let file = File::options().read(true).custom_flags(bits(OFlags::NONBLOCK)).open(path).map_err(read)?;
    if file.metadata().map_err(read)?.is_file() {
        return Ok(file);
    }
    Err(read(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")))
}

fn fill(staged: Staging, source: &Source, limits: ImportLimits) -> Result<(Staging, ImportReport), ImportError> {
    let mut ground = Ground::open(&staged.content, matches!(source, Source::Image { .. }))?;
    let (mut bytes, mut entries) = (0, 0);
    match source {
        Source::Folder { path, digest } => {
            copy(path, limits, &mut ground)?;
            if folder_digest(path, limits)? != *digest {
                return Err(ImportError::Changed { path: path.clone() });
            }
        }
        Source::Archive { path, digest } => {
            let rules = TarRules { called: path, limits, layer: false };
            let reading = |error| ImportError::reading(path, error);
            let mut stream = Unpacked::open(open_file(path)?, limits, &mut bytes).map_err(reading)?;
            extract(&mut stream, &rules, &mut ground, &mut entries)?;
            if stream.finish().map_err(reading)?.0 != digest.as_str() {
                return Err(ImportError::Changed { path: path.clone() });
            }
        }
        Source::Image { layout, image } => {
            for layer in &image.layers {
                let called = Path::new(&layer.digest);
                let rules = TarRules { called, limits, layer: true };
                let reading = |error| ImportError::reading(called, error);
                ground.next_layer();
                let mut stream = Unpacked::open(layout.blob(layer)?, limits, &mut bytes).map_err(reading)?;
                let extracted = extract(&mut stream, &rules, &mut ground, &mut entries);
                // A damaged blob is told as such, whatever its bytes looked like; one that went
                // beyond a limit isn't read further for that.
                if !matches!(extracted, Err(ImportError::Bomb(_) | ImportError::TooMany { .. })) {
                    let (digest, size) = stream.finish().map_err(reading)?;
                    verify(layer, &format!("sha256:{digest}"), size)?;
                }
                extracted?;
            }
        }
    }
    elf::check(&mut ground)?;
    let report = ground.finish()?;
    Ok((staged, report))
}

/// The digest of what a folder's entries are, times included; of no file's content.
fn folder_digest(root: &Path, limits: ImportLimits) -> Result<Digest, ImportError> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    visit(root, limits, &mut |_, path, about| {
        let name = path.as_os_str().as_bytes();
        let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
        let rest =
            format!("\0{:o} {} {} {} {} {times:?}\n", about.mode(), about.uid(), about.gid(), about.len(), about.ino());
        hasher.update(name);
        hasher.update(rest);
        Ok(())
    })?;
    let digest = super::unpack::hex(&hasher.finalize());
    let read = |error| ImportError::Read { path: root.to_owned(), source: io::Error::other(error) };
    Digest::parse(&digest).map_err(read)
}

/// A folder that is read: whatever is opened lies below it, and no link is on the way there.
struct Below {
    root: OwnedFd,
}

impl Below {
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?))
    }
}

/// Visits everything below a folder in an order that is always the same, a folder before what is in
/// it; follows no link and enters no other file system.
fn visit(
    root: &Path,
    limits: ImportLimits,
    each: &mut dyn FnMut(&Below, &Path, &std::fs::Metadata) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Read { path, source }
    };
    let opened = File::options().read(true).custom_flags(bits(OFlags::DIRECTORY)).open(root).map_err(read(root))?;
    let device = opened.metadata().map_err(read(root))?.dev();
    let below = Below { root: opened.into() };
    let mut waiting = vec![PathBuf::new()];
    let mut entries = 0;
    while let Some(folder) = waiting.pop() {
        if folder.components().count() > limits.depth {
            let name = super::land::printable(folder.as_os_str().as_bytes());
            return Err(ImportError::BadName { name, why: "lies deeper than is allowed" });
        }
        let whole = root.join(&folder);
        let fd = below.open(&folder, OFlags::DIRECTORY).map_err(read(&whole))?;
        // The open folder under a name, so that its entries are looked at relative to it.
        let listed = std::fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(read(&whole))?;
        let mut found = listed.collect::<io::Result<Vec<_>>>().map_err(read(&whole))?;
        entries += found.len() as u64;
        if entries > limits.entries {
            return Err(ImportError::TooMany { limit: limits.entries });
        }
        found.sort_by_key(std::fs::DirEntry::file_name);
        for entry in found {
            let path = folder.join(entry.file_name());
            let about = entry.metadata().map_err(read(&root.join(&path)))?;
            each(&below, &path, &about)?;
            if about.is_dir() && about.dev() == device {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

fn bits(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

/// Copies a folder onto the ground.
fn copy(root: &Path, limits: ImportLimits, ground: &mut Ground) -> Result<(), ImportError> {
    let mut names: HashMap<(u64, u64), Inside> = HashMap::new();
    let mut bytes: u64 = 0;
    visit(root, limits, &mut |below, path, about| {
        let read = |source| ImportError::Read { path: root.join(path), source };
        let name = Inside::parse(path.as_os_str().as_bytes(), limits.depth + 1, &mut ground.report)?;
        let Some(name) = name else { return Ok(()) };
        let kept =
            About { mode: about.mode(), uid: about.uid().into(), gid: about.gid().into(), modified_s: about.mtime() };
        let kind = about.file_type();
        if kind.is_dir() {
            let folder = below.open(path, OFlags::DIRECTORY).map_err(read)?;
            ground.report.attributes_dropped += attributes(&folder);
            return ground.folder(&name, kept);
        }
        if kind.is_symlink() {
            let (above, last) = name.split();
            let folder = below.open(above, OFlags::DIRECTORY).map_err(read)?;
            let target = rustix::fs::readlinkat(&folder, last, Vec::new()).map_err(|errno| read(errno.into()))?;
            return ground.link(&name, target.as_bytes(), kept);
        }
        if !kind.is_file() {
            use std::os::unix::fs::FileTypeExt as _;
            let device = kind.is_char_device() || kind.is_block_device();
            ground.report.devices_dropped += u64::from(device);
            ground.report.pipes_dropped += u64::from(!device);
            return Ok(());
        }
        if about.nlink() > 1 {
            if let Some(first) = names.get(&(about.dev(), about.ino())) {
                return ground.hard_link(&name, first);
            }
            names.insert((about.dev(), about.ino()), name.clone());
        }
        bytes = bytes.saturating_add(about.len());
        if bytes > limits.bytes {
            return Err(ImportError::Bomb(Bomb::TooLarge { limit: limits.bytes }));
        }
        let file = below.open(path, OFlags::empty()).map_err(read)?;
        ground.report.attributes_dropped += attributes(&file);
        // A file that grows meanwhile is noticed by the digest afterwards.
        ground.file(&name, kept, &mut file.take(about.len())).map(drop)
    })
}

/// How many extended attributes a file or folder has; they are not taken over.
fn attributes(file: &File) -> u64 {
    let mut names: Vec<u8> = Vec::with_capacity(64 * 1024);
    match rustix::fs::flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => names.iter().filter(|byte| **byte == 0).count() as u64,
        Err(_) => 0,
    }
}
