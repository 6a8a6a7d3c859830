//! Why an operation of the forge was refused or failed, by operation.
//!
//! Each operation has its own enum, whose variants differ by what the caller may do next. What can
//! befall any of them (disk, git itself, an unreachable origin, a commit that isn't here) is
//! [`Fault`]. Absent: a catch-all for refusals; a new reason is a new variant.

use std::path::{Path, PathBuf};

use domain::id::CommitSha;

use crate::git::GitError;
use crate::tree::RepoPath;

/// What can befall every operation.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Git gave no answer or failed.
    #[error("{doing}: {source}")]
    Git {
        /// What was being done.
        doing: &'static str,
        /// How it failed.
        source: GitError,
    },
    /// A file or folder of ours could not be used.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// How it failed.
        source: std::io::Error,
    },
    /// The disk that holds the hubs is full. Nothing was changed.
    #[error("{doing}: no space left on the disk of the data folder; free some and try again")]
    DiskFull {
        /// What was being done.
        doing: &'static str,
    },
    /// The origin did not answer. Trying again later may help.
    #[error("the origin {origin} can't be reached: {source}")]
    Unreachable {
        /// Which.
        origin: String,
        /// How it failed.
        source: GitError,
    },
    /// There is no such commit in the hub.
    #[error("commit {commit} is not in the hub")]
    NoSuchCommit {
        /// Which.
        commit: CommitSha,
    },
}

impl Fault {
    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Git { source: GitError::TimedOut { .. } | GitError::Start { .. }, .. }
        )
    }

    pub(crate) fn git(doing: &'static str) -> impl FnOnce(GitError) -> Self {
        move |source| {
            if source.stderr().contains("No space left on device") {
                Self::DiskFull { doing }
            } else {
                Self::Git { doing, source }
            }
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull => Self::DiskFull { doing },
            _ => Self::Io { doing, path, source },
        }
    }

    /// For commands whose one likely failure is that `commit` doesn't exist.
    pub(crate) fn about<'c>(doing: &'static str, commit: &'c CommitSha) -> impl FnOnce(GitError) -> Self + 'c {
        const SIGNS: [&str; 6] = [
            "not a tree object",
            "bad object",
            "Not a valid",
            "unknown revision",
            "bad revision",
            "ambiguous argument",
        ];
        move |source| {
            if SIGNS.iter().any(|sign| source.stderr().contains(sign)) {
                Self::NoSuchCommit { commit: commit.clone() }
            } else {
                Self::git(doing)(source)
            }
        }
    }
}

/// Why a repository can't be worked on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is at the path.
    #[error("{} does not exist", path.display())]
    NoSuchPath {
        /// The path.
        path: PathBuf,
    },
    /// Something is there, but no repository.
    #[error(
        "{} is not a git repository: run `git init` there and make a first commit, or name a folder that is in one",
        path.display()
    )]
    NotARepository {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else's repository, which git refuses to read.
    #[error(
        "{} belongs to another user, and git does not read another user's repository: run chargehand as its owner, or change the owner with chown",
        path.display()
    )]
    ForeignOwner {
        /// The path.
        path: PathBuf,
    },
    /// A repository without a single commit.
    #[error("{origin} has no commit yet: make a first one (git commit --allow-empty -m start) and try again")]
    NoCommits {
        /// Where.
        origin: String,
    },
    /// The path can't be written down as text.
    #[error("the path {} is not UTF-8: move the repository to one that is", path.display())]
    PathNotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// There is no such branch.
    #[error("{origin} has no branch `{name}`{}", hint(near, *is_other))]
    NoSuchBranch {
        /// Where.
        origin: String,
        /// What was asked for.
        name: String,
        /// Branches with similar names, best first; else the first few.
        near: Vec<String>,
        /// Whether a tag or a commit by that name exists: work starts from a branch, since it is
        /// to land on one.
        is_other: bool,
    },
    /// No branch was named and the repository has none checked out.
    #[error(
        "{origin} has no branch checked out (HEAD is at {}): name one with --base{}, or make one there with `git switch -c NAME`",
        head.short(), listed(" (for example ", branches, ")")
    )]
    DetachedHead {
        /// Where.
        origin: String,
        /// Where HEAD is.
        head: CommitSha,
        /// Branches that could be meant: those at that commit, else the first few.
        branches: Vec<String>,
    },
    /// No branch was named, and the one that is checked out has no commit.
    #[error(
        "{origin} has a branch checked out that has no commit yet: name another with --base{}",
        listed(" (for example ", branches, ")")
    )]
    UnbornHead {
        /// Where.
        origin: String,
        /// The first few branches that have commits.
        branches: Vec<String>,
    },
    /// There is no commit at all.
    #[error("{origin} has no commit yet: make a first one (git commit --allow-empty -m start) and try again")]
    NoCommits {
        /// Where.
        origin: String,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

fn listed(before: &str, names: &[String], after: &str) -> String {
    if names.is_empty() { String::new() } else { format!("{before}{}{after}", names.join(", ")) }
}

fn hint(near: &[String], is_other: bool) -> String {
    let other =
        if is_other { "; a tag or commit by that name exists, but a change needs a branch to land on" } else { "" };
    format!("{other}{}", listed("; it has ", near, ""))
}

/// Why no work tree was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The folder has something in it.
    #[error("{} is not empty: a checkout is only made in a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The name can't be a branch.
    #[error("`{name}` can't be the name of a branch")]
    BadBranch {
        /// The name.
        name: String,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why a file's content was not given.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is larger than what was asked for.
    #[error("{path} has {bytes} bytes, {max_bytes} are allowed")]
    TooLarge {
        /// Which file.
        path: RepoPath,
        /// Its size.
        bytes: u64,
        /// The limit given.
        max_bytes: u64,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Why a bundle was not taken. Whatever the reason, the hub is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The bundle was refused for what it is; the same bundle will be refused again.
    #[error("the result was refused: {0}")]
    Refused(#[from] Refusal),
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What is wrong with a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// The file is too large.
    #[error("the bundle has {bytes} bytes, {max_bytes} are allowed")]
    BundleTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Not a bundle, or a damaged one, or one with objects that break git's rules (such as a
    /// `.git` entry in a tree).
    #[error("git does not accept the bundle: {why}")]
    Invalid {
        /// What git says.
        why: String,
    },
    /// It is built on commits or contents that it doesn't bring and that are not in the history of
    /// the base or of the task's earlier results.
    #[error("it builds on commits or files that are not part of this task's history")]
    UnknownHistory,
    /// It holds no branch, or several and no HEAD.
    #[error("it has no HEAD and not exactly one branch")]
    NoSingleHead,
    /// What its branch points at is no commit.
    #[error("its head is not a commit")]
    NotACommit,
    /// The result does not come after the base.
    #[error("its head does not descend from the base {}", base.short())]
    NotDescended {
        /// The base.
        base: CommitSha,
    },
    /// A limit was passed.
    #[error("it has {found} {what}, {allowed} are allowed")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        allowed: u64,
    },
    /// A path that git on some system would take for its own folder, or an endless one.
    #[error("the path {path} is forbidden")]
    ForbiddenPath {
        /// Which.
        path: RepoPath,
    },
    /// Unpacking it took too long or too much memory.
    #[error("unpacking it takes too much: {why}")]
    TooCostly {
        /// What happened.
        why: String,
    },
}

/// Why the change is not to be seen in the origin.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody committed on top of what was published, or moved the branch.
    #[error("the branch `{branch}` in the origin was moved by somebody else (it is at {}): it was left alone", now.short())]
    BranchMoved {
        /// Which branch.
        branch: String,
        /// Where it is.
        now: CommitSha,
    },
    /// All names for the branch are taken by something else.
    #[error("the origin has other branches by the names {}: rename or delete one", tried.join(", "))]
    NamesTaken {
        /// The names.
        tried: Vec<String>,
    },
    /// The branch is checked out in a work tree of the origin, so a push would leave that tree behind.
    #[error("the branch `{branch}` is checked out{}: check out another one there, then try again", at(path.as_ref()))]
    CheckedOut {
        /// Which branch.
        branch: String,
        /// In which tree, where known.
        path: Option<PathBuf>,
    },
    /// The origin refused the push: a hook or a rule there, or missing rights.
    #[error("the origin refused the branch `{branch}`: {reason}")]
    Refused {
        /// Which branch.
        branch: String,
        /// What it says.
        reason: String,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

fn at(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| format!(" in {}", path.display()))
}

/// Why nothing landed. The origin's branch and trees are as they were, unless a variant says
/// otherwise.
#[derive(Debug, thiserror::Error)]
pub enum LandError {
    /// The branch is not where the permit says: ask for a merge preview, prove that commit, come
    /// back with a permit for it.
    #[error(
        "`{branch}` moved from {} to {} meanwhile{}", expected.short(), now.short(),
        if *merges_cleanly { "; the change merges cleanly" } else { "; the change conflicts with it" }
    )]
    BaseMoved {
        /// Which branch.
        branch: String,
        /// Where the permit has it.
        expected: CommitSha,
        /// Where it is.
        now: CommitSha,
        /// Whether the change and what is there now merge without conflict.
        merges_cleanly: bool,
    },
    /// The branch was deleted or renamed.
    #[error(
        "the branch `{branch}` no longer exists in the origin (it was at {}): make it again with `git branch {branch} {}`, or cancel the task",
        expected.short(), expected.short()
    )]
    BranchGone {
        /// Which branch.
        branch: String,
        /// Where the permit has it.
        expected: CommitSha,
    },
    /// The branch is checked out in a work tree, which a landing would leave behind.
    #[error(
        "`{branch}` is checked out in {}: either check out another branch there, or land with --update-worktree, which moves the files there along if nothing is uncommitted",
        path.as_ref().map_or_else(|| "the origin".to_owned(), |path| path.display().to_string())
    )]
    CheckedOut {
        /// Which branch.
        branch: String,
        /// In which tree, where known.
        path: Option<PathBuf>,
    },
    /// The work tree has changes that are not committed.
    #[error(
        "{} has uncommitted changes ({}): commit or stash them, then land again", path.display(),
        listed("", &files.iter().take(5).map(ToString::to_string).collect::<Vec<_>>(), if files.len() > 5 { ", …" } else { "" })
    )]
    DirtyWorktree {
        /// Which tree.
        path: PathBuf,
        /// What is changed, at most 100.
        files: Vec<RepoPath>,
    },
    /// Git refused to move the work tree along, for example since an untracked file is in the way.
    #[error("the work tree {} could not be moved along: {reason}", path.display())]
    WorktreeRefused {
        /// Which tree.
        path: PathBuf,
        /// What git says.
        reason: String,
    },
    /// The permitted commit does not come after the expected base: no fast-forward would reach it.
    #[error("{} does not descend from {}, so landing it would drop commits", commit.short(), expected.short())]
    NotDescended {
        /// What was to land.
        commit: CommitSha,
        /// Where the branch must stand.
        expected: CommitSha,
    },
    /// The origin refused the push: a hook or a rule there, or missing rights.
    #[error("the origin refused to move `{branch}`: {reason}")]
    Refused {
        /// Which branch.
        branch: String,
        /// What it says.
        reason: String,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}
