//! Repositories, branches and changes: where a task's code comes from and where it goes.
//!
//! The built-in forge keeps one bare repository per origin, the *hub*, which only the host writes:
//!
//! ```text
//! origin ─fetch→ hub ─checkout→ a fresh tree for a sandbox
//!                 ↑ import (a bundle, through quarantine)          from the sandbox
//! origin ←publish─┤ chargehand/<task>, with lease
//! origin ←land────┘ only with a LandPermit, always a fast-forward to exactly its commit
//! ```
//!
//! What is always true:
//! - No git command runs in a tree that an agent could write. Trees are handed out and never
//!   looked at again; results come back as bundle files.
//! - A refused bundle leaves nothing in the hub.
//! - Nothing is forced: a branch of the origin moves only from where it was expected to be.
//! - The person's work tree changes only when they asked for it, and only if it has no uncommitted
//!   changes. No other call writes to it.
//! - Reads of the origin run none of its hooks, filters or monitors. Pushes run the receive hooks of
//!   a bare origin, which are its owner's rules, and none of an origin with a work tree.
//! - Every call may be repeated after a crash and finds what the first one did.
//!
//! Absent: forges with accounts (pull requests, checks, comments), and any clock: the few dates
//! that are needed come from commits.

mod base;
mod builtin;
mod checkout;
mod diff;
mod error;
mod git;
mod hub;
mod import;
mod land;
mod merge;
mod origin;
mod publish;
mod push;
mod quarantine;
mod run;
mod tree;

use std::path::Path;

use async_trait::async_trait;
use domain::id::{CommitSha, TaskId};
use policy::LandPermit;

pub use base::{Base, Note};
pub use builtin::{BuiltIn, ForgeConfig};
pub use checkout::Checkout;
pub use diff::{ChangeKind, Diff, FileChange};
pub use error::{BaseError, CheckoutError, Fault, ImportError, LandError, OpenError, PublishError, ReadError, Refusal};
pub use git::{GitError, MIN_GIT};
pub use hub::Project;
pub use import::{Import, ImportLimits, ImportNote, Imported};
pub use land::{LandOptions, Landed, Landing};
pub use merge::{Merge, Preview};
pub use origin::{BadOrigin, Origin};
pub use publish::Published;
pub use tree::{Depth, EntryKind, RepoPath, TreeEntry};

/// Where code comes from and goes to.
///
/// **Contract.** Calls may come at the same time and may be dropped at any moment; a repeated call
/// finds what an earlier one did. Calls that take a commit need it in the hub: `resolve_base`,
/// `branch_head`, `import` and `merge_preview` bring commits there. Every error enum has a `Fault`
/// for what can befall any call; its `is_transient` says whether to try again.
#[async_trait]
pub trait Forge: Send + Sync {
    /// Looks at an origin and makes or finds its hub. A path inside a work tree means the whole
    /// repository. Fetches nothing yet.
    ///
    /// # Errors
    /// [`OpenError`] if it is no repository, has no commit, or can't be read.
    async fn open(&self, origin: &Origin) -> Result<Project, OpenError>;

    /// The project that this origin was opened as before, without asking the origin. For work that
    /// goes on after a restart, also while the origin is away.
    ///
    /// # Errors
    /// [`Fault::Io`].
    async fn reopen(&self, origin: &Origin) -> Result<Option<Project>, Fault>;

    /// Finds the branch that work starts from (without a name, the one that is checked out in the
    /// origin) and fetches it.
    ///
    /// # Errors
    /// [`BaseError`] if there is no such branch; it names those that could be meant.
    async fn resolve_base(&self, project: &Project, base: Option<&str>) -> Result<Base, BaseError>;

    /// Makes a self-contained work tree with its own `.git` in `dest`, which must be empty or
    /// missing, readable by nobody else while this runs. On an error `dest` is empty again.
    /// Submodules and LFS files are not fetched.
    ///
    /// # Errors
    /// [`CheckoutError`].
    async fn checkout(
        &self,
        project: &Project,
        commit: &CommitSha,
        dest: &Path,
        how: &Checkout,
    ) -> Result<(), CheckoutError>;

    /// Lists the files of a commit.
    ///
    /// # Errors
    /// [`Fault::NoSuchCommit`].
    async fn list_files(&self, project: &Project, commit: &CommitSha, depth: Depth) -> Result<Vec<TreeEntry>, Fault>;

    /// The content of a regular file at a commit, by its path from the top; nothing if no regular
    /// file is there. Links are not followed.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`] if it has more than `max_bytes`.
    async fn read_file(
        &self,
        project: &Project,
        commit: &CommitSha,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ReadError>;

    /// What lies at a path of a commit, if anything does. Links are not followed.
    ///
    /// # Errors
    /// [`Fault::NoSuchCommit`].
    async fn kind_at(&self, project: &Project, commit: &CommitSha, path: &str) -> Result<Option<EntryKind>, Fault>;

    /// Takes in a result from a sandbox. Its head (the bundle's `HEAD`, else its only branch) must
    /// descend from the base. Whatever the outcome, the bundle file stays.
    ///
    /// # Errors
    /// [`ImportError::Refused`] says what is wrong with the bundle; the hub is then unchanged.
    async fn import(&self, project: &Project, import: &Import<'_>) -> Result<Imported, ImportError>;

    /// The head of a task's newest import.
    ///
    /// # Errors
    /// [`Fault`].
    async fn imported(&self, project: &Project, task: &TaskId) -> Result<Option<CommitSha>, Fault>;

    /// Compares two commits; the patch has at most `max_patch_bytes`.
    ///
    /// # Errors
    /// [`Fault::NoSuchCommit`].
    async fn diff(
        &self,
        project: &Project,
        base: &CommitSha,
        head: &CommitSha,
        max_patch_bytes: usize,
    ) -> Result<Diff, Fault>;

    /// Makes a change visible in the origin as a branch `chargehand/<short task id>`, or under
    /// another name if somebody has that one for something else.
    ///
    /// # Errors
    /// [`PublishError::BranchMoved`] if somebody committed on top of an earlier version.
    async fn publish(&self, project: &Project, task: &TaskId, head: &CommitSha) -> Result<Published, PublishError>;

    /// Deletes a task's branch in the origin, unless somebody moved it. Gives the names deleted.
    ///
    /// # Errors
    /// [`PublishError`].
    async fn unpublish(&self, project: &Project, task: &TaskId) -> Result<Vec<String>, PublishError>;

    /// Where a branch of the origin is now; the commit is then in the hub.
    ///
    /// # Errors
    /// [`Fault::Unreachable`].
    async fn branch_head(&self, project: &Project, branch: &str) -> Result<Option<CommitSha>, Fault>;

    /// Merges in the hub, so that the merge can be proved before it lands. Deterministic.
    ///
    /// # Errors
    /// [`Fault`]; conflicts are no error.
    async fn merge_preview(&self, project: &Project, merge: &Merge<'_>) -> Result<Preview, Fault>;

    /// Moves the permit's branch from its expected base to its commit, or finds that it holds the
    /// commit already.
    ///
    /// # Errors
    /// [`LandError`] says what stands in the way; the branch is then where it was.
    async fn land(&self, project: &Project, permit: &LandPermit, options: LandOptions) -> Result<Landed, LandError>;

    /// Removes a task's refs from the hub. Its commits stay readable by their ids.
    ///
    /// # Errors
    /// [`Fault`].
    async fn prune(&self, project: &Project, task: &TaskId) -> Result<(), Fault>;
}
