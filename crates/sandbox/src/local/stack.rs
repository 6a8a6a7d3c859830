//! What a stack of layers shows, found out by reading the layers.
//!
//! The same rules as the overlay's own: the topmost entry counts; folders of one name are merged
//! downward until an opaque one, a whiteout or something that is no folder; a renamed folder says
//! under which name it goes on below. Needed where no overlay is mounted (an ordinary user cannot)
//! and where it matters which layer a thing comes from. The stack must be at rest. Absent: writing;
//! paths longer than the system takes (an error of the system's own).

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// Longest redirect that is read, in bytes.
const REDIRECT_BYTES: usize = 4096;

/// Which of its attributes the overlay heeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Mounted with the host's rights: `trusted.overlay.*`, renamed folders.
    Trusted,
    /// Mounted in a user namespace: `user.overlay.*`, no renamed folders.
    User,
}

impl Dialect {
    /// What the names of its attributes begin with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}

/// Layers, topmost first.
#[derive(Debug)]
pub struct Stack {
    roots: Vec<PathBuf>,
    /// The first of the layers (topmost first) that are only looked at from above as one whole.
    base: usize,
    dialect: Dialect,
}

/// A folder in one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its layer, counted from the topmost.
    pub layer: usize,
    /// Where it lies on the host.
    pub path: PathBuf,
}

/// A folder as it is seen.
#[derive(Debug, Clone)]
pub struct Folder {
    /// What it is merged of, topmost first; never empty.
    pub parts: Vec<Part>,
    /// Its path within the view of the base layers alone, if any of its parts lies there.
    pub in_base: Option<PathBuf>,
}

/// What is seen under a name.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that is no folder.
    Leaf(Part),
    /// A folder.
    Folder(Folder),
}

/// How a folder of one layer goes on in those below.
enum Below {
    Same,
    Nothing,
    Renamed(PathBuf),
}

impl Stack {
    /// A stack whose layers from `base` on (counted from the topmost) are the base.
    pub fn new(roots: Vec<PathBuf>, base: usize, dialect: Dialect) -> Self {
        Self { roots, base, dialect }
    }

    /// The root.
    pub fn root(&self) -> Folder {
        self.root_from(0)
    }

    fn root_from(&self, layer: usize) -> Folder {
        let parts = self.roots.iter().enumerate().skip(layer);
        let parts: Vec<Part> = parts.map(|(layer, path)| Part { layer, path: path.clone() }).collect();
        Folder { in_base: (self.base < self.roots.len()).then(PathBuf::new), parts }
    }

    /// Whether a part lies in the base.
    pub const fn is_base(&self, part: &Part) -> bool {
        part.layer >= self.base
    }

    /// What is seen in a folder under a name.
    pub fn child(&self, parent: &Folder, name: &OsStr) -> io::Result<Found> {
        let mut name = name.to_owned();
        let mut folder = Folder { parts: Vec::new(), in_base: None };
        for part in &parent.parts {
            if folder.in_base.is_none() && self.is_base(part) {
                folder.in_base = parent.in_base.as_ref().map(|base| base.join(&name));
            }
            let here = Part { layer: part.layer, path: part.path.join(&name) };
            let Some(about) = look(&here.path)? else { continue };
            if !about.is_dir() {
                if folder.parts.is_empty() {
                    return Ok(if is_whiteout(&about) { Found::Nothing } else { Found::Leaf(here) });
                }
                break;
            }
            let below = self.below(&here.path)?;
            folder.parts.push(here);
            match below {
                Below::Same => {}
                Below::Nothing => break,
                Below::Renamed(to) if to.is_absolute() => {
                    if let Found::Folder(rest) = self.find(&to, part.layer + 1)? {
                        folder.parts.extend(rest.parts);
                        folder.in_base = folder.in_base.or(rest.in_base);
                    }
                    break;
                }
                Below::Renamed(to) => name = to.into_os_string(),
            }
        }
        if !folder.parts.iter().any(|part| self.is_base(part)) {
            folder.in_base = None;
        }
        Ok(if folder.parts.is_empty() { Found::Nothing } else { Found::Folder(folder) })
    }

    /// What is seen at a path in the layers from `layer` on.
    fn find(&self, path: &Path, layer: usize) -> io::Result<Found> {
        let mut folder = self.root_from(layer);
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        for name in names {
            match self.child(&folder, name)? {
                Found::Folder(next) => folder = next,
                other => return Ok(other),
            }
        }
        Ok(Found::Folder(folder))
    }

    fn below(&self, path: &Path) -> io::Result<Below> {
        let read = |name: &str| attribute(path, &format!("{}{name}", self.dialect.prefix()));
        if read("opaque")?.as_deref() == Some(b"y") {
            return Ok(Below::Nothing);
        }
        if self.dialect == Dialect::User {
            return Ok(Below::Same);
        }
        Ok(read("redirect")?.map_or(Below::Same, |to| Below::Renamed(std::ffi::OsString::from_vec(to).into())))
    }
}

/// An entry, a link not followed; none if nothing has this name.
pub fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(about) => Ok(Some(about)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an entry of a layer says that nothing is there.
pub fn is_whiteout(about: &Metadata) -> bool {
    about.file_type().is_char_device() && about.rdev() == 0
}

/// An attribute of an entry, a link not followed.
pub fn attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    use rustix::io::Errno;
    let mut space = vec![0; REDIRECT_BYTES];
    match rustix::fs::lgetxattr(path.as_os_str().as_bytes(), name, &mut space[..]) {
        Ok(length) => {
            space.truncate(length);
            Ok(Some(space))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
