//! Moving a branch of the origin to exactly the commit that a permit names.
//!
//! ```text
//! permit → branch there? → already in it? → where the permit says? → nobody's work tree left behind? → push with lease
//! ```
//!
//! Landing never merges: a merge would be a commit that no gate has seen. If the branch moved, the
//! caller asks for a merge preview, proves that commit and comes back with a permit for it. Absent:
//! any way here without a [`LandPermit`], and any force.

use std::path::{Path, PathBuf};

use domain::id::{CommitSha, TaskId};
use policy::LandPermit;
use serde::Serialize;

use crate::base::Untracked;
use crate::builtin::BuiltIn;
use crate::error::{Fault, LandError};
use crate::hub::Project;
use crate::push::{Push, Pushed};

/// Most changed files that an error names.
const MAX_FILES: usize = 100;

/// How to treat a work tree that has the branch checked out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LandOptions {
    /// Whether a work tree without uncommitted changes may move along with its branch.
    pub update_worktree: bool,
}

/// What the branch's way was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Landing {
    /// To the change itself.
    FastForward,
    /// To a merge of the moved branch and the change.
    Merge,
}

/// A landed change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// The commit that the permit named, now in the branch.
    pub sha: CommitSha,
    /// What it is.
    pub how: Landing,
    /// Where the branch stood; for `already`, where the permit expected it.
    pub previous: CommitSha,
    /// Whether an earlier call had done it.
    pub already: bool,
    /// The work tree that moved along.
    pub worktree: Option<PathBuf>,
}

impl BuiltIn {
    pub(crate) async fn do_land(
        &self,
        project: &Project,
        permit: &LandPermit,
        options: LandOptions,
    ) -> Result<Landed, LandError> {
        let (commit, branch, expected) = (permit.commit(), permit.branch(), permit.expected_base());
        if !self.has_commit(project, commit).await? {
            return Err(Fault::NoSuchCommit { commit: commit.clone() }.into());
        }
        let lock = self.lock(project);
        let _held = lock.lock().await;
        let hub = self.hub_of(project);
        let Some(now) = self.fetch_branch(project, branch).await? else {
            return Err(LandError::BranchGone { branch: branch.to_owned(), expected: expected.clone() });
        };
        let how = if self.is_merge(&hub, commit).await? { Landing::Merge } else { Landing::FastForward };
        let landed =
            |already, worktree| Landed { sha: commit.clone(), how, previous: expected.clone(), already, worktree };
        if self.is_ancestor(&hub, commit, &now).await? {
            return Ok(landed(true, None));
        }
        if now != *expected {
            return Err(self.moved(project, permit, now).await);
        }
        if !self.is_ancestor(&hub, expected, commit).await? {
            return Err(LandError::NotDescended { commit: commit.clone(), expected: expected.clone() });
        }
        if let Some(path) = self.worktree_with(project, branch).await? {
            if !options.update_worktree {
                return Err(LandError::CheckedOut { branch: branch.to_owned(), path: Some(path) });
            }
            self.move_along(project, permit, &path).await?;
            return Ok(landed(false, Some(path)));
        }
        let push = Push { name: &format!("refs/heads/{branch}"), to: Some(commit), from: Some(expected) };
        match self.push(project, &push).await? {
            Pushed::Done => Ok(landed(false, None)),
            Pushed::CheckedOut => Err(LandError::CheckedOut { branch: branch.to_owned(), path: None }),
            Pushed::Refused(reason) => Err(LandError::Refused { branch: branch.to_owned(), reason }),
            Pushed::Stale => match self.fetch_branch(project, branch).await? {
                None => Err(LandError::BranchGone { branch: branch.to_owned(), expected: expected.clone() }),
                Some(now) if self.is_ancestor(&hub, commit, &now).await? => Ok(landed(true, None)),
                Some(now) => Err(self.moved(project, permit, now).await),
            },
        }
    }

    async fn moved(&self, project: &Project, permit: &LandPermit, now: CommitSha) -> LandError {
        let merge = self.merged_tree(project, &now, permit.commit()).await;
        LandError::BaseMoved {
            branch: permit.branch().to_owned(),
            expected: permit.expected_base().clone(),
            now,
            merges_cleanly: matches!(merge, Ok(Ok(_))),
        }
    }

    async fn is_merge(&self, hub: &Path, commit: &CommitSha) -> Result<bool, Fault> {
        let second = self.git.hub(hub).args(["rev-parse", "--quiet", "--verify", &format!("{commit}^2")]);
        Ok(second.run().await.map_err(Fault::git("looking at a commit"))?.code == 0)
    }

    /// Fast-forwards the person's own work tree, which is known to have the branch checked out at
    /// the expected commit. A crash in here leaves at worst the hidden ref, which the next call
    /// removes, or a tree that git itself left half way and that the next call reports as dirty.
    async fn move_along(&self, project: &Project, permit: &LandPermit, tree: &Path) -> Result<(), LandError> {
        let doing = "moving the work tree along";
        let mut files = self.changed_paths(tree, Untracked::Ignore).await?;
        if !files.is_empty() {
            files.truncate(MAX_FILES);
            return Err(LandError::DirtyWorktree { path: tree.to_owned(), files });
        }
        let (commit, branch) = (permit.commit(), permit.branch());
        let refused = |reason: String| LandError::WorktreeRefused { path: tree.to_owned(), reason };
        // The objects stay where they were brought; the ref goes before the tree changes.
        self.bring(project, permit.task(), commit).await?;
        self.take_back(project, permit.task(), commit).await?;
        let head = self.git.read_origin(tree).args(["symbolic-ref", "--quiet", "HEAD"]).run().await;
        let outcome = if head.map_err(Fault::git(doing))?.text() == format!("refs/heads/{branch}") {
            let merge = [
                "merge",
                "--quiet",
                "--ff-only",
                "--no-autostash",
                "--no-overwrite-ignore",
                "--no-stat",
                commit.as_str(),
            ];
            let answer = self.git.person(tree).args(merge).run().await.map_err(Fault::git(doing))?;
            if answer.code == 0 { Ok(()) } else { Err(refused(answer.stderr)) }
        } else {
            Err(refused(format!("`{branch}` is no longer checked out there")))
        };
        outcome?;
        match self.fetch_branch(project, branch).await? {
            Some(now) if self.is_ancestor(&self.hub_of(project), commit, &now).await? => Ok(()),
            _ => Err(refused(format!("`{branch}` did not move"))),
        }
    }

    /// Brings a commit's objects to the origin under a ref that is no branch.
    async fn bring(&self, project: &Project, task: &TaskId, commit: &CommitSha) -> Result<(), LandError> {
        let name = parcel(task);
        let old = self.parcel_at(project, &name).await?;
        if old.as_ref() == Some(commit) {
            return Ok(());
        }
        match self.push(project, &Push { name: &name, to: Some(commit), from: old.as_ref() }).await? {
            Pushed::Done => Ok(()),
            Pushed::Refused(reason) => Err(LandError::Refused { branch: name, reason }),
            Pushed::Stale | Pushed::CheckedOut => {
                Err(LandError::Refused { branch: name, reason: "somebody else uses this ref".to_owned() })
            }
        }
    }

    async fn take_back(&self, project: &Project, task: &TaskId, commit: &CommitSha) -> Result<(), LandError> {
        let said = self.push(project, &Push { name: &parcel(task), to: None, from: Some(commit) }).await?;
        if said != Pushed::Done {
            // Harmless: it is no branch, and the commit has landed or is known.
            tracing::warn!(task = %task, ?said, "the ref of a landing could not be removed from the origin");
        }
        Ok(())
    }

    async fn parcel_at(&self, project: &Project, name: &str) -> Result<Option<CommitSha>, Fault> {
        let advert = self.advert(project.place(), &[name]).await?;
        Ok(advert.refs.into_iter().find(|(full, _)| full == name).map(|(_, at)| at))
    }
}

/// The ref under which a landing's objects reach an origin whose work tree moves along.
fn parcel(task: &TaskId) -> String {
    format!("refs/chargehand/landing/{task}")
}
