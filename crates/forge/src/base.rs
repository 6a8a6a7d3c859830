//! Which commit a task starts from, and what a person should know about it.
//!
//! Work starts from the tip of a branch, because a change needs a branch to land on. The notes are
//! remarks, never refusals. Absent: any filter, hook or monitor while looking for uncommitted
//! changes: what a repository's settings would run for that is overridden by name.

use std::fmt;
use std::path::Path;

use domain::id::CommitSha;
use serde::Serialize;

use crate::builtin::BuiltIn;
use crate::error::{BaseError, Fault};
use crate::hub::{Advert, Place, Project};
use crate::tree::{Depth, EntryKind, RepoPath, TreeEntry};

/// From how many files on a repository is said to be very large.
const MANY_FILES: usize = 50_000;
/// How many branches an error names at most.
const NAMED: usize = 5;
/// How many `.gitattributes` are looked into for LFS.
const ATTRIBUTES: usize = 100;

/// Where a task begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The branch, without `refs/heads/`. The change is to land on it.
    pub branch: String,
    /// Its commit now; it is in the hub.
    pub sha: CommitSha,
    /// What a person should know.
    pub notes: Vec<Note>,
}

/// Something about a base that a person should know. `Display` gives the sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Note {
    /// The origin's work tree has changes that the task doesn't see.
    Uncommitted {
        /// How many paths.
        paths: usize,
        /// The first of them.
        example: RepoPath,
    },
    /// The base has submodules; their folders are empty in a checkout.
    Submodules {
        /// Where, at most five.
        paths: Vec<RepoPath>,
        /// How many.
        count: usize,
    },
    /// Files are kept in Git LFS; a checkout has the pointers.
    LfsPointers {
        /// The attribute files that say so, at most five.
        declared_in: Vec<RepoPath>,
    },
    /// Names that are not UTF-8.
    NonUtf8Names {
        /// How many.
        count: usize,
        /// The first of them.
        example: RepoPath,
    },
    /// The origin has only a part of its history.
    Shallow,
    /// Very many files: copies take seconds.
    ManyFiles {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncommitted { paths: 1, example } => {
                write!(
                    f,
                    "uncommitted: {example} differs in your work tree; the task starts from the commit, without it"
                )
            }
            Self::Uncommitted { paths, example } => write!(
                f,
                "uncommitted: {paths} paths differ in your work tree ({example}, …); the task starts from the commit, without them"
            ),
            Self::Submodules { paths, count } => {
                let shown: Vec<String> = paths.iter().map(ToString::to_string).collect();
                let more = if *count > paths.len() { ", …" } else { "" };
                write!(
                    f,
                    "submodules are not fetched; these folders are empty for the task: {}{more}",
                    shown.join(", ")
                )
            }
            Self::LfsPointers { declared_in } => {
                let shown: Vec<String> = declared_in.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "Git LFS files are not fetched; the task sees their pointers (declared in {})",
                    shown.join(", ")
                )
            }
            Self::NonUtf8Names { count, example } => {
                write!(f, "{count} file name(s) are not UTF-8 and are shown with escapes: {example}")
            }
            Self::Shallow => f.write_str("the origin is a shallow clone; older history is not available to the task"),
            Self::ManyFiles { count } => write!(f, "{count} files: making a work tree takes some seconds"),
        }
    }
}

impl BuiltIn {
    pub(crate) async fn find_base(&self, project: &Project, wanted: Option<&str>) -> Result<Base, BaseError> {
        let wanted = wanted.map(|name| name.strip_prefix("refs/heads/").unwrap_or(name));
        let origin = || project.origin().to_string();
        let (branch, at) = match wanted {
            Some(name) => {
                let advert = self.advert(project.place(), &[&format!("refs/heads/{name}")]).await?;
                match advert.branch(name) {
                    Some(at) => (name.to_owned(), at.clone()),
                    None => return Err(self.no_branch(project, name).await?),
                }
            }
            None => {
                let advert = self.advert(project.place(), &["HEAD", "refs/heads/*"]).await?;
                match (&advert.head_branch, &advert.head) {
                    (Some(branch), Some(at)) => (branch.clone(), at.clone()),
                    (_, Some(head)) => {
                        let branches = suggestions(&advert, head);
                        return Err(BaseError::DetachedHead { origin: origin(), head: head.clone(), branches });
                    }
                    (_, None) if advert.refs.is_empty() => return Err(BaseError::NoCommits { origin: origin() }),
                    (_, None) => {
                        let branches = advert.branches().take(NAMED).map(|(name, _)| name.to_owned()).collect();
                        return Err(BaseError::UnbornHead { origin: origin(), branches });
                    }
                }
            }
        };
        let (fetched, uncommitted) = tokio::join!(
            async {
                let lock = self.lock(project);
                let _held = lock.lock().await;
                self.fetch_known(project, &branch, &at).await
            },
            self.uncommitted(project)
        );
        let sha = fetched?;
        let mut notes: Vec<Note> = uncommitted?.into_iter().collect();
        if self.hub_of(project).join("shallow").exists() {
            notes.push(Note::Shallow);
        }
        notes.extend(self.notes_on_tree(project, &sha).await?);
        Ok(Base { branch, sha, notes })
    }

    async fn no_branch(&self, project: &Project, name: &str) -> Result<BaseError, Fault> {
        let advert = self.advert(project.place(), &["HEAD", "refs/heads/*", "refs/tags/*"]).await?;
        if advert.refs.is_empty() && advert.head.is_none() {
            return Ok(BaseError::NoCommits { origin: project.origin().to_string() });
        }
        let looks_like_commit = name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_other =
            looks_like_commit || advert.refs.iter().any(|(full, _)| full.strip_prefix("refs/tags/") == Some(name));
        let near = nearest(name, advert.branches().map(|(branch, _)| branch));
        Ok(BaseError::NoSuchBranch { origin: project.origin().to_string(), name: name.to_owned(), near, is_other })
    }

    async fn notes_on_tree(&self, project: &Project, sha: &CommitSha) -> Result<Vec<Note>, Fault> {
        let entries = self.list(project, sha, Depth::All).await?;
        let mut notes = Vec::new();
        let submodules: Vec<&TreeEntry> = entries.iter().filter(|entry| entry.kind == EntryKind::Gitlink).collect();
        if !submodules.is_empty() {
            let paths = submodules.iter().take(NAMED).map(|entry| entry.path.clone()).collect();
            notes.push(Note::Submodules { paths, count: submodules.len() });
        }
        let attributes: Vec<&TreeEntry> = entries
            .iter()
            .filter(|entry| entry.path.file_name() == b".gitattributes" && entry.kind == EntryKind::File)
            .take(ATTRIBUTES)
            .collect();
        if !attributes.is_empty() {
            let objects: Vec<String> = attributes.iter().map(|entry| entry.object.clone()).collect();
            let contents = self.blobs(&self.hub_of(project), &objects, 1 << 20).await?;
            let lfs = attributes.iter().zip(&contents).filter(|(_, text)| declares_lfs(text));
            let declared_in: Vec<RepoPath> = lfs.map(|(entry, _)| entry.path.clone()).take(NAMED).collect();
            if !declared_in.is_empty() {
                notes.push(Note::LfsPointers { declared_in });
            }
        }
        let mut odd = entries.iter().filter(|entry| entry.path.as_str().is_none());
        if let Some(first) = odd.next() {
            notes.push(Note::NonUtf8Names { count: 1 + odd.count(), example: first.path.clone() });
        }
        if entries.len() > MANY_FILES {
            notes.push(Note::ManyFiles { count: entries.len() });
        }
        Ok(notes)
    }

    async fn uncommitted(&self, project: &Project) -> Result<Option<Note>, Fault> {
        let Place::Local { tree: Some(tree), .. } = project.place() else { return Ok(None) };
        let changed = self.changed_paths(Path::new(tree), Untracked::Count).await?;
        Ok(changed.first().map(|example| Note::Uncommitted { paths: changed.len(), example: example.clone() }))
    }

    /// The paths of the person's work tree that differ from its commit. Reads only: no lock, no
    /// refreshed index, no filter, no monitor, no look into submodules.
    pub(crate) async fn changed_paths(&self, tree: &Path, untracked: Untracked) -> Result<Vec<RepoPath>, Fault> {
        let doing = "looking for uncommitted changes";
        let asked =
            ["config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"];
        let settings = self.git.read_origin(tree).args(asked).run().await.map_err(Fault::git(doing))?;
        let untracked = match untracked {
            Untracked::Count => "--untracked-files=normal",
            Untracked::Ignore => "--untracked-files=no",
        };
        let mut call = self.git.read_origin(tree).args([
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--ignore-submodules=all",
            untracked,
        ]);
        for key in settings.stdout.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            let key = String::from_utf8_lossy(key);
            call = call.config(key.as_ref(), if key.ends_with(".required") { "false" } else { "" });
        }
        let answer = call.ok().await.map_err(Fault::git(doing))?;
        let lines = answer.stdout.split(|byte| *byte == 0);
        Ok(lines.filter_map(|line| line.get(3..)).map(RepoPath::from_bytes).collect())
    }
}

/// Whether files that git doesn't know count as changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untracked {
    Count,
    Ignore,
}

fn declares_lfs(attributes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(attributes);
    text.lines()
        .any(|line| !line.trim_start().starts_with('#') && line.split_whitespace().any(|word| word == "filter=lfs"))
}

fn suggestions(advert: &Advert, head: &CommitSha) -> Vec<String> {
    let there: Vec<String> =
        advert.branches().filter(|(_, at)| *at == head).map(|(name, _)| name.to_owned()).take(NAMED).collect();
    if there.is_empty() { advert.branches().map(|(name, _)| name.to_owned()).take(NAMED).collect() } else { there }
}

/// The names most like the one asked for; if none is like it, the first few.
fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let folded = wanted.to_lowercase();
    let mut scored: Vec<(usize, &str)> =
        names.take(2_000).map(|name| (unlikeness(&folded, &name.to_lowercase()), name)).collect();
    let near = |score: usize| score <= wanted.chars().count().div_ceil(2).min(4);
    if scored.iter().any(|(score, _)| near(*score)) {
        scored.retain(|(score, _)| near(*score));
        scored.sort();
    }
    scored.into_iter().take(NAMED).map(|(_, name)| name.to_owned()).collect()
}

/// Edits that turn one name into the other; a name that contains the other is nearly alike.
fn unlikeness(a: &str, b: &str) -> usize {
    if a == b {
        return 0;
    }
    if a.len() >= 3 && b.len() >= 3 && (a.contains(b) || b.contains(a)) {
        return 1;
    }
    let b: Vec<char> = b.chars().take(200).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(200).enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for (to, pair) in b.iter().zip(row.windows(2)) {
            let (Some(diagonal), Some(above)) = (pair.first(), pair.last()) else { continue };
            let left = next.last().copied().unwrap_or(usize::MAX - 1);
            next.push((diagonal + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_best_first() {
        let names = ["develop", "main", "release/1.0", "mainline"];
        assert_eq!(nearest("mian", names.iter().copied()), ["main"]);
        assert_eq!(nearest("Main", names.iter().copied()), ["main", "mainline"]);
        assert_eq!(nearest("1.0", names.iter().copied()), ["release/1.0"]);
        assert_eq!(nearest("zzzzzzzz", names.iter().copied()), names);
    }

    #[test]
    fn lfs_is_seen_in_attributes_but_not_in_comments() {
        assert!(declares_lfs(b"*.png filter=lfs diff=lfs merge=lfs -text\n"));
        assert!(!declares_lfs(b"# *.png filter=lfs\n*.txt text\n"));
    }
}
