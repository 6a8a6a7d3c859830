//! What changed between two commits of the hub.
//!
//! Counts and paths come from git's raw output, separated by NUL; the patch is text for people and
//! is bounded. Absent: text converters, external diff programs and colours.

use domain::id::CommitSha;
use serde::Serialize;

use crate::builtin::BuiltIn;
use crate::error::Fault;
use crate::hub::Project;
use crate::tree::{EntryKind, RepoPath, number};

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its content or its executable bit is another.
    Modified,
    /// It has another name, and maybe another content.
    Renamed,
    /// It became something else, such as a link.
    TypeChanged,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Where; for deleted files, where it was.
    pub path: RepoPath,
    /// Where it was, if it was renamed.
    pub old_path: Option<RepoPath>,
    /// How it changed.
    pub kind: ChangeKind,
    /// What it was; nothing for a new path.
    pub old_entry: Option<EntryKind>,
    /// What it is; nothing for a deleted path.
    pub entry: Option<EntryKind>,
    /// Lines that came; 0 for binary files.
    pub added_lines: u64,
    /// Lines that went; 0 for binary files.
    pub removed_lines: u64,
    /// Whether git takes it for binary.
    pub binary: bool,
}

/// The difference between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// All changed paths, in git's order.
    pub files: Vec<FileChange>,
    /// A unified patch. Bytes: contents need not be UTF-8.
    pub patch: Vec<u8>,
    /// Whether the patch ends before all was said. It then ends with a whole line.
    pub truncated: bool,
}

impl BuiltIn {
    pub(crate) async fn compare(
        &self,
        project: &Project,
        base: &CommitSha,
        head: &CommitSha,
        max_patch_bytes: usize,
    ) -> Result<Diff, Fault> {
        let doing = "comparing two commits";
        for commit in [base, head] {
            if !self.has_commit(project, commit).await? {
                return Err(Fault::NoSuchCommit { commit: commit.clone() });
            }
        }
        let hub = self.hub_of(project);
        let common =
            ["diff-tree", "-r", "-M", "-l2000", "--no-textconv", "--no-ext-diff", "--no-color", "--full-index"];
        let call = |extra: &[&str]| {
            let call = self.git.hub(&hub).args(common).args(extra);
            call.args(["--end-of-options", base.as_str(), head.as_str()])
        };
        let facts = call(&["-z", "--raw", "--numstat"]).max_output(256 << 20).ok();
        let patch = call(&["--patch"]).truncate_output(max_patch_bytes).ok();
        let (facts, patch) = tokio::join!(facts, patch);
        let (facts, patch) = (facts.map_err(Fault::git(doing))?, patch.map_err(Fault::git(doing))?);
        let mut text = patch.stdout;
        if patch.truncated {
            let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            text.truncate(end);
        }
        Ok(Diff { files: parse(&facts.stdout), patch: text, truncated: patch.truncated })
    }
}

/// Reads `--raw --numstat -z`: first all raw records, then all counts, in the same order.
pub(crate) fn parse(bytes: &[u8]) -> Vec<FileChange> {
    let mut fields = bytes.split(|byte| *byte == 0).peekable();
    let mut files = Vec::new();
    while let Some(record) = fields.next_if(|field| field.first() == Some(&b':')) {
        let mut words = record.get(1..).unwrap_or_default().split(|byte| *byte == b' ');
        let old_entry = words.next().and_then(EntryKind::from_mode);
        let entry = words.next().and_then(EntryKind::from_mode);
        let status = words.nth(2).and_then(|status| status.first()).copied().unwrap_or(b'M');
        let first = RepoPath::from_bytes(fields.next().unwrap_or_default());
        let (path, old_path) = match status {
            b'R' | b'C' => (RepoPath::from_bytes(fields.next().unwrap_or_default()), Some(first)),
            _ => (first, None),
        };
        let kind = match status {
            b'A' | b'C' => ChangeKind::Added,
            b'D' => ChangeKind::Deleted,
            b'R' => ChangeKind::Renamed,
            b'T' => ChangeKind::TypeChanged,
            _ => ChangeKind::Modified,
        };
        files.push(FileChange {
            path,
            old_path,
            kind,
            old_entry,
            entry,
            added_lines: 0,
            removed_lines: 0,
            binary: false,
        });
    }
    for file in &mut files {
        let counts = fields.next().unwrap_or_default();
        let mut counts = counts.splitn(3, |byte| *byte == b'\t');
        let (added, removed) = (counts.next().unwrap_or_default(), counts.next().unwrap_or_default());
        file.binary = added == b"-";
        file.added_lines = number(added).unwrap_or(0);
        file.removed_lines = number(removed).unwrap_or(0);
        if counts.next().is_some_and(<[u8]>::is_empty) {
            // A rename names its two paths in fields of their own.
            let _ = (fields.next(), fields.next());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_records_and_counts_are_matched_also_across_renames() {
        let id = "a".repeat(40);
        let raw = format!(
            ":100644 100755 {id} {id} M\0a b\0:100644 100644 {id} {id} R090\0old\0new\0:000000 100644 {id} {id} A\0pic\0\
             1\t2\ta b\x003\t0\t\0old\0new\0-\t-\tpic\0"
        );
        let files = parse(raw.as_bytes());
        let seen: Vec<_> =
            files.iter().map(|file| (file.kind, file.added_lines, file.removed_lines, file.binary)).collect();
        assert_eq!(
            seen,
            [(ChangeKind::Modified, 1, 2, false), (ChangeKind::Renamed, 3, 0, false), (ChangeKind::Added, 0, 0, true)]
        );
        assert_eq!(files[1].old_path, Some(RepoPath::from_bytes(b"old")));
        assert_eq!((files[0].old_entry, files[0].entry), (Some(EntryKind::File), Some(EntryKind::Executable)));
        assert_eq!(files[2].old_entry, None);
    }
}
