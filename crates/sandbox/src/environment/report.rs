//! What an import tells: what it made, what it dropped, and why it failed.
//!
//! Absent: doing anything.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::unpack::Bomb;
use crate::port::SandboxError;

/// What came of an archive or folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Regular files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Dropped: device nodes, and with them forged whiteouts of an overlay.
    pub devices_dropped: u64,
    /// Dropped: pipes and sockets.
    pub pipes_dropped: u64,
    /// Set-user-id and set-group-id bits that were taken away.
    pub rights_dropped: u64,
    /// Extended attributes that were not taken over: file capabilities, overlay's own, others.
    pub attributes_dropped: u64,
    /// Entries of users above 65535, which a box does not have; they became nobody's.
    pub foreign_owners: u64,
    /// Names that began with a slash; taken as below the root of the box.
    pub absolute_names: u64,
    /// Names that came twice; the later one holds.
    pub replaced: u64,
    /// Files of lower layers that an upper one removed.
    pub whiteouts: u64,
    /// What else a person should know.
    pub notes: Vec<String>,
}

/// An import failed; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Where it broke off: on the host, or inside the archive.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What was read cannot be written to the layer.
    #[error("cannot write {} of the base to disk: {source}", .at.display())]
    Write {
        /// Inside the base.
        at: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No tar archive, or a broken one.
    #[error("{} is not a whole tar archive (plain, gzip or zstd): {detail}", .path.display())]
    NotAnArchive {
        /// On the host, or a layer's digest.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A name that no file may have.
    #[error("the name `{name}` in the archive {why}")]
    BadName {
        /// Escaped and cut.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A link lies on the way to an entry.
    #[error("the archive wants to write {} through a link; it may write only below real folders", .name.display())]
    ThroughLink {
        /// Inside the archive.
        name: PathBuf,
    },
    /// Two entries cannot both be.
    #[error("the archive has {} where it had {was} before", .name.display())]
    Conflict {
        /// Inside the archive.
        name: PathBuf,
        /// What is there.
        was: &'static str,
    },
    /// A hard link to something it may not lead to.
    #[error("the archive has {} as another name of {}, but {why}", .name.display(), .target.display())]
    HardLink {
        /// Inside the archive.
        name: PathBuf,
        /// Inside the archive.
        target: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A sparse file: few bytes in the archive, any number on disk.
    #[error("{} is stored sparse in the archive; pack it without --sparse", .name.display())]
    Sparse {
        /// Inside the archive.
        name: PathBuf,
    },
    /// An entry of a kind that is not known.
    #[error("{} is an entry of kind `{kind}`, which is not known", .name.display())]
    UnknownKind {
        /// Inside the archive.
        name: PathBuf,
        /// The byte that says so.
        kind: char,
    },
    /// A header that two readers would read in two ways, or that is too long.
    #[error("a header near {} of the archive cannot be trusted: {why}", .name.display())]
    BadHeader {
        /// Inside the archive.
        name: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A plain archive with the whiteouts of an image's layer.
    #[error("{} removes files of a lower layer, so this is one layer of an image; import the image as an OCI layout", .name.display())]
    Whiteout {
        /// Inside the archive.
        name: PathBuf,
    },
    /// More comes out than may.
    #[error("the base was not imported: {0}")]
    Bomb(Bomb),
    /// Too many entries.
    #[error("the base has more than the {limit} files, folders and links that are allowed")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The OCI layout is not what it should be.
    #[error("{} is not a usable OCI image layout: {why}", .path.display())]
    Layout {
        /// On the host.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A blob whose content is not what its name says.
    #[error("the blob {wanted} of the image has other content ({found}); the layout is damaged or was tampered with")]
    WrongBlob {
        /// The digest it is named by.
        wanted: String,
        /// The digest it has, or its size.
        found: String,
    },
    /// Programs for another machine.
    #[error("the base is for {found}, and this machine is {host}; its programs cannot run here")]
    OtherArchitecture {
        /// What it is for.
        found: String,
        /// What this is.
        host: String,
    },
    /// The source changed while it was read.
    #[error("{} changed while it was imported; try again when it is at rest", .path.display())]
    Changed {
        /// On the host.
        path: PathBuf,
    },
    /// The provider did not take it.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The work was cut off inside this program.
    #[error("the import did not come to an end: {0}")]
    CutOff(String),
}

impl ImportError {
    /// A failed read, which may be a limit that was reached.
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Self {
        match Bomb::within(&source) {
            Some(bomb) => Self::Bomb(bomb),
            None => Self::Read { path: path.to_owned(), source },
        }
    }
}
