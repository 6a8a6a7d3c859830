//! A tar archive onto a [`Ground`]: one pass, every entry looked at before anything is written.
//!
//! The `tar` crate cuts the stream into headers and contents; what they mean is decided here,
//! because extensions decide names and sizes, and two readers that take them differently see two
//! archives. So extensions are short, and may not contradict the header. Absent: unpacking, and
//! where things land.

use std::io::Read;
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::land::{About, Ground, Inside, printable};
use super::report::ImportError;
use super::unpack::{Bomb, ImportLimits};

/// The longest extension, in bytes: a name and some attributes.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// What begins the name of a file that removes one of a lower layer.
const WHITEOUT: &[u8] = b".wh.";
/// The file that hides everything of lower layers in its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the extensions in front of an entry say about it.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    modified_s: Option<i64>,
    attributes: u64,
    sparse: bool,
}

/// How one archive is read.
pub struct TarRules<'a> {
    /// What it is called in errors.
    pub called: &'a Path,
    /// What it may cost; entries count over all archives of an import.
    pub limits: ImportLimits,
    /// Whether it is a layer of an image, with whiteouts.
    pub layer: bool,
}

/// Writes everything in the archive to the ground. `entries` counts over all archives.
pub fn extract(
    stream: &mut impl Read,
    rules: &TarRules<'_>,
    ground: &mut Ground,
    entries: &mut u64,
) -> Result<(), ImportError> {
    let mut archive = Archive::new(stream);
    let broken = |error: std::io::Error| match Bomb::within(&error) {
        Some(bomb) => ImportError::Bomb(bomb),
        None => ImportError::NotAnArchive { path: rules.called.to_owned(), detail: error.to_string() },
    };
    let mut extended = Extended::default();
    let mut found_any = false;
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        found_any = true;
        *entries += 1;
        if *entries > rules.limits.entries {
            return Err(ImportError::TooMany { limit: rules.limits.entries });
        }
        match entry.header().entry_type() {
            EntryType::XHeader => pax(&extension(&mut entry)?, &mut extended)?,
            EntryType::XGlobalHeader => {
                let mut global = Extended::default();
                pax(&extension(&mut entry)?, &mut global)?;
                if global.path.is_some() || global.link.is_some() || global.size.is_some() || global.sparse {
                    return Err(untrusted(&entry, "it names or sizes every entry after it"));
                }
            }
            EntryType::GNULongName => extended.path = Some(long_name(&extension(&mut entry)?)),
            EntryType::GNULongLink => extended.link = Some(long_name(&extension(&mut entry)?)),
            _ => one(&mut entry, std::mem::take(&mut extended), rules, ground)?,
        }
    }
    if !found_any {
        let detail = "there is not one entry in it".to_owned();
        return Err(ImportError::NotAnArchive { path: rules.called.to_owned(), detail });
    }
    Ok(())
}

fn named(entry: &Entry<'_, impl Read>) -> PathBuf {
    printable(&entry.header().path_bytes()).into()
}

fn untrusted(entry: &Entry<'_, impl Read>, why: &'static str) -> ImportError {
    ImportError::BadHeader { name: named(entry), why }
}

/// The content of an extension.
fn extension(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, ImportError> {
    if entry.header().entry_size().unwrap_or(u64::MAX) > MAX_EXTENSION_BYTES {
        return Err(untrusted(entry, "an extension of more than a mebibyte"));
    }
    let name = named(entry);
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(|error| ImportError::reading(&name, error))?;
    Ok(content)
}

/// GNU's long names end with a NUL.
fn long_name(content: &[u8]) -> Vec<u8> {
    content.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// Reads records of the form `LENGTH KEY=VALUE\n`.
fn pax(content: &[u8], extended: &mut Extended) -> Result<(), ImportError> {
    let bad = || ImportError::BadHeader { name: PathBuf::from("an extension"), why: "its records have wrong lengths" };
    let mut rest = content;
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = rest.get(..space).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|d| d.parse().ok());
        let length: usize = length.filter(|length| *length > space + 1).ok_or_else(bad)?;
        let record = rest.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
        rest = rest.get(length..).unwrap_or_default();
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = (record.get(..equals).unwrap_or_default(), record.get(equals + 1..).unwrap_or_default());
        let text = || std::str::from_utf8(value).map_err(|_| bad());
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"uid" => extended.uid = Some(text()?.parse().map_err(|_| bad())?),
            b"gid" => extended.gid = Some(text()?.parse().map_err(|_| bad())?),
            b"size" => extended.size = Some(text()?.parse().map_err(|_| bad())?),
            b"mtime" => {
                let seconds = text()?.split('.').next().unwrap_or_default();
                extended.modified_s = Some(seconds.parse().map_err(|_| bad())?);
            }
            key if key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"LIBARCHIVE.xattr.") => {
                extended.attributes += 1;
            }
            key if key.starts_with(b"GNU.sparse.") => extended.sparse = true,
            _ => {}
        }
    }
    Ok(())
}

/// One entry that is something.
fn one(
    entry: &mut Entry<'_, impl Read>,
    extended: Extended,
    rules: &TarRules<'_>,
    ground: &mut Ground,
) -> Result<(), ImportError> {
    let header = entry.header();
    let written = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let kind = header.entry_type();
    let size = header.entry_size().map_err(|_| untrusted(entry, "its size is no number"))?;
    if extended.size.is_some_and(|said| said != size) {
        return Err(untrusted(entry, "its extension gives it another size"));
    }
    let about = About {
        mode: header.mode().map_err(|_| untrusted(entry, "its mode is no number"))?,
        uid: extended.uid.map_or_else(|| header.uid(), Ok).map_err(|_| untrusted(entry, "its owner is no number"))?,
        gid: extended.gid.map_or_else(|| header.gid(), Ok).map_err(|_| untrusted(entry, "its group is no number"))?,
        modified_s: extended.modified_s.unwrap_or_else(|| header.mtime().map_or(0, |s| i64::try_from(s).unwrap_or(0))),
    };
    let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
    ground.report.attributes_dropped += extended.attributes;
    let ends_as_folder = written.ends_with(b"/");
    let Some(name) = Inside::parse(&written, rules.limits.depth, &mut ground.report)? else {
        // The root is the platform's.
        return Ok(());
    };
    if extended.sparse || kind == EntryType::GNUSparse {
        return Err(ImportError::Sparse { name: name.path().to_owned() });
    }
    if whiteout(&name, rules, ground)? {
        return Ok(());
    }
    match kind {
        EntryType::Directory => ground.folder(&name, about),
        EntryType::Regular | EntryType::Continuous if ends_as_folder && size == 0 => ground.folder(&name, about),
        EntryType::Regular | EntryType::Continuous => {
            let written = ground.file(&name, about, entry)?;
            if written == size {
                return Ok(());
            }
            let detail = format!("it ends inside of {}", name.path().display());
            Err(ImportError::NotAnArchive { path: rules.called.to_owned(), detail })
        }
        EntryType::Symlink => ground.link(&name, &link, about),
        EntryType::Link => match Inside::parse(&link, rules.limits.depth, &mut ground.report)? {
            Some(target) => ground.hard_link(&name, &target),
            None => {
                Err(ImportError::HardLink { name: name.path().into(), target: "/".into(), why: "that is a folder" })
            }
        },
        EntryType::Char | EntryType::Block => {
            ground.report.devices_dropped += 1;
            Ok(())
        }
        EntryType::Fifo => {
            ground.report.pipes_dropped += 1;
            Ok(())
        }
        other => {
            let kind = char::from(other.as_byte());
            Err(ImportError::UnknownKind { name: name.path().to_owned(), kind })
        }
    }
}

/// Does what a whiteout says; true if the entry is one.
fn whiteout(name: &Inside, rules: &TarRules<'_>, ground: &mut Ground) -> Result<bool, ImportError> {
    use std::os::unix::ffi::OsStrExt as _;
    let (_, last) = name.split();
    let Some(hidden) = last.as_bytes().strip_prefix(WHITEOUT) else { return Ok(false) };
    if !rules.layer {
        return Err(ImportError::Whiteout { name: name.path().to_owned() });
    }
    if last.as_bytes() == OPAQUE {
        ground.report.whiteouts += 1;
        let folder = name.above();
        ground.hide(folder.as_ref())?;
        return Ok(true);
    }
    if hidden.starts_with(WHITEOUT) {
        // Bookkeeping of an old union file system.
        return Ok(true);
    }
    let bad =
        || ImportError::BadName { name: printable(last.as_bytes()), why: "removes something that has no plain name" };
    let hidden = name.beside(std::ffi::OsStr::from_bytes(hidden)).ok_or_else(bad)?;
    ground.report.whiteouts += 1;
    if ground.made_here(&hidden) {
        // It speaks of lower layers only.
        ground.hide(Some(&hidden))?;
    } else {
        ground.remove(&hidden)?;
    }
    Ok(true)
}
