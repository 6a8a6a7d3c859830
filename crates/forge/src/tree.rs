//! Reading commits of the hub: paths, listings, single files.
//!
//! Absent: work trees. Everything here comes out of the object store, so no attribute, filter or
//! hook has a say in it.

use std::fmt;

use domain::id::CommitSha;
use serde::{Serialize, Serializer};

use crate::builtin::BuiltIn;
use crate::error::{Fault, ReadError};
use crate::hub::Project;

/// How many bytes of listing are taken: about four million files.
const LIST_BYTES: usize = 512 << 20;

/// A path inside a repository: bytes, since git doesn't promise text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Vec<u8>);

impl RepoPath {
    /// A path from the bytes that git gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_owned())
    }
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The path as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
    /// The part after the last slash.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }
}

impl fmt::Display for RepoPath {
    /// The text with control characters as escapes; what is not UTF-8 as `\xff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for RepoPath {
    /// As `Display` shows it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a tree entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A regular file that may be run.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A commit of another repository (a submodule).
    Gitlink,
    /// A folder; only in listings of one level.
    Folder,
}

impl EntryKind {
    /// From git's mode text; nothing for `000000`.
    pub(crate) fn from_mode(mode: &[u8]) -> Option<Self> {
        match mode {
            b"100755" => Some(Self::Executable),
            b"120000" => Some(Self::Symlink),
            b"160000" => Some(Self::Gitlink),
            b"040000" => Some(Self::Folder),
            b"000000" => None,
            _ => Some(Self::File),
        }
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Where.
    pub path: RepoPath,
    /// What.
    pub kind: EntryKind,
    pub(crate) object: String,
}

/// How deep a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the top level, folders included. Cheap however large the repository is.
    Root,
    /// All files at every level, folders left out.
    All,
}

impl BuiltIn {
    pub(crate) async fn list(
        &self,
        project: &Project,
        commit: &CommitSha,
        depth: Depth,
    ) -> Result<Vec<TreeEntry>, Fault> {
        let doing = "listing the files of a commit";
        let mut call = self.git.hub(&self.hub_of(project)).args(["ls-tree", "-z", "--full-tree"]);
        if depth == Depth::All {
            call = call.arg("-r");
        }
        let call = call.args(["--end-of-options", commit.as_str()]).max_output(LIST_BYTES);
        let answer = call.ok().await.map_err(Fault::about(doing, commit))?;
        Ok(answer.stdout.split(|byte| *byte == 0).filter_map(parse_entry).collect())
    }

    pub(crate) async fn read(
        &self,
        project: &Project,
        commit: &CommitSha,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let doing = "reading a file of a commit";
        let hub = self.hub_of(project);
        let path = path.trim_matches('/');
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Ok(None);
        }
        let call = self.git.hub(&hub).args(["ls-tree", "-z", "-l", "--full-tree", "--end-of-options"]);
        let answer = call.args([commit.as_str(), "--", path]).ok().await.map_err(Fault::about(doing, commit))?;
        let line = answer.stdout.split(|byte| *byte == 0).next().unwrap_or_default();
        let Some(entry) = parse_entry(line) else { return Ok(None) };
        if !matches!(entry.kind, EntryKind::File | EntryKind::Executable) || entry.path.as_bytes() != path.as_bytes() {
            return Ok(None);
        }
        let bytes = size_of(line).unwrap_or(u64::MAX);
        if bytes > max_bytes {
            return Err(ReadError::TooLarge { path: entry.path, bytes, max_bytes });
        }
        let call = self.git.hub(&hub).args(["cat-file", "blob", &entry.object]);
        let cap = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(1);
        Ok(Some(call.max_output(cap).ok().await.map_err(Fault::git(doing))?.stdout))
    }

    pub(crate) async fn kind(
        &self,
        project: &Project,
        commit: &CommitSha,
        path: &str,
    ) -> Result<Option<EntryKind>, Fault> {
        let doing = "looking at a path of a commit";
        let call = self.git.hub(&self.hub_of(project)).args(["ls-tree", "-z", "--full-tree", "--end-of-options"]);
        let answer = call.args([commit.as_str(), "--", path]).ok().await.map_err(Fault::about(doing, commit))?;
        let lines = answer.stdout.split(|byte| *byte == 0).filter_map(parse_entry);
        Ok(lines.filter(|entry| entry.path.as_bytes() == path.as_bytes()).map(|entry| entry.kind).next())
    }

    /// The contents of some blobs, in order, each cut off at `max_bytes`.
    pub(crate) async fn blobs(
        &self,
        repository: &std::path::Path,
        objects: &[String],
        max_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let doing = "reading objects";
        let stdin = objects.join("\n") + "\n";
        let call = self.git.hub(repository).args(["cat-file", "--batch"]).stdin(stdin.into_bytes());
        let answer = call.truncate_output(max_bytes.saturating_mul(objects.len().max(1))).ok().await;
        let stdout = answer.map_err(Fault::git(doing))?.stdout;
        let mut contents = Vec::with_capacity(objects.len());
        let mut rest = stdout.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (header, after) = rest.split_at(end);
            let after = after.get(1..).unwrap_or_default();
            let size = header.rsplit(|byte| *byte == b' ').next().and_then(number).unwrap_or(0);
            let size = usize::try_from(size).unwrap_or(usize::MAX).min(after.len());
            let (content, after) = after.split_at(size);
            contents.push(content.get(..max_bytes.min(content.len())).unwrap_or_default().to_owned());
            rest = after.get(1..).unwrap_or_default();
        }
        Ok(contents)
    }
}

/// `mode SP type SP object [SP+ size] TAB path`.
fn parse_entry(line: &[u8]) -> Option<TreeEntry> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let (facts, path) = line.split_at(tab);
    let mut facts = facts.split(|byte| *byte == b' ');
    let kind = EntryKind::from_mode(facts.next()?)?;
    let object = String::from_utf8(facts.nth(1)?.to_owned()).ok()?;
    Some(TreeEntry { path: RepoPath::from_bytes(path.get(1..)?), kind, object })
}

fn size_of(line: &[u8]) -> Option<u64> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    number(line.get(..tab)?.rsplit(|byte| *byte == b' ').next()?)
}

/// A decimal number from bytes.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_what_is_not_text() {
        assert_eq!(RepoPath::from_bytes(b"caf\xe9/\x1b[31mx").to_string(), "caf\\xe9/\\u{1b}[31mx");
        assert_eq!(RepoPath::from_bytes("ä/b".as_bytes()).to_string(), "ä/b");
        assert_eq!(RepoPath::from_bytes(b"a/b.c").file_name(), b"b.c");
    }

    #[test]
    fn a_listing_line_is_read_with_and_without_size() {
        let id = "a".repeat(40);
        let entry = parse_entry(format!("100755 blob {id}\tx y").as_bytes()).unwrap();
        assert_eq!((entry.kind, entry.object.as_str()), (EntryKind::Executable, id.as_str()));
        let line = format!("100644 blob {id}      12\tx");
        assert_eq!(size_of(line.as_bytes()), Some(12));
        assert_eq!(parse_entry(line.as_bytes()).unwrap().object, id);
        assert!(parse_entry(b"").is_none());
    }
}
