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
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::id::Digest;
use rustix::fs::OFlags;

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
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblocking).open(path).map_err(read)?;
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
    use std::fmt::Write as _;
    let mut lines: Vec<String> = Vec::new();
    visit(root, limits, &mut |path, about| {
        let mut line = String::new();
        let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
        let _ = write!(
            line,
            "{:?} {:o} {} {} {} {} {times:?}",
            path.as_os_str().as_bytes().escape_ascii().to_string(),
            about.mode(),
            about.uid(),
            about.gid(),
            about.len(),
            about.ino()
        );
        lines.push(line);
        Ok(())
    })?;
    lines.sort();
    Ok(Digest::of(lines.join("\n").as_bytes()))
}

/// Visits everything below a folder, a folder before what is in it; follows no link and enters no
/// other file system.
fn visit(
    root: &Path,
    limits: ImportLimits,
    each: &mut dyn FnMut(&Path, &std::fs::Metadata) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Read { path, source }
    };
    let device = std::fs::metadata(root).map_err(read(root))?.dev();
    let mut waiting = vec![PathBuf::new()];
    let mut entries = 0;
    while let Some(folder) = waiting.pop() {
        if folder.components().count() > limits.depth {
            let name = super::land::printable(folder.as_os_str().as_bytes());
            return Err(ImportError::BadName { name, why: "lies deeper than is allowed" });
        }
        let whole = root.join(&folder);
        for entry in std::fs::read_dir(&whole).map_err(read(&whole))? {
            let entry = entry.map_err(read(&whole))?;
            let path = folder.join(entry.file_name());
            let about = entry.metadata().map_err(read(&root.join(&path)))?;
            entries += 1;
            if entries > limits.entries {
                return Err(ImportError::TooMany { limit: limits.entries });
            }
            each(&path, &about)?;
            if about.is_dir() && about.dev() == device {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// Copies a folder onto the ground.
fn copy(root: &Path, limits: ImportLimits, ground: &mut Ground) -> Result<(), ImportError> {
    let mut names: HashMap<(u64, u64), Inside> = HashMap::new();
    let mut bytes: u64 = 0;
    visit(root, limits, &mut |path, about| {
        let read = |source| ImportError::Read { path: root.join(path), source };
        let name = Inside::parse(path.as_os_str().as_bytes(), limits.depth + 1, &mut ground.report)?;
        let Some(name) = name else { return Ok(()) };
        let kept =
            About { mode: about.mode(), uid: about.uid().into(), gid: about.gid().into(), modified_s: about.mtime() };
        ground.report.attributes_dropped += attributes(&root.join(path), about);
        let kind = about.file_type();
        if kind.is_dir() {
            return ground.folder(&name, kept);
        }
        if kind.is_symlink() {
            let target = std::fs::read_link(root.join(path)).map_err(read)?;
            return ground.link(&name, target.as_os_str().as_bytes(), kept);
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
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(root.join(path)).map_err(read)?;
        // A file that grows meanwhile is noticed by the digest afterwards.
        ground.file(&name, kept, &mut file.take(about.len())).map(drop)
    })
}

/// How many extended attributes a file or folder has; they are not taken over.
fn attributes(path: &Path, about: &std::fs::Metadata) -> u64 {
    if about.is_symlink() {
        return 0;
    }
    let mut names: Vec<u8> = Vec::with_capacity(64 * 1024);
    match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => names.iter().filter(|byte| **byte == 0).count() as u64,
        Err(_) => 0,
    }
}
