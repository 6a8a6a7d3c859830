//! Showing a change in the origin, as a branch.
//!
//! The branch is `chargehand/<short id>`. It counts as ours while it is at one of the task's own
//! results, so no record is needed of what was pushed before, and a call after a crash finds what
//! the first one did. Absent: forcing. A branch that anybody else moved stays where it is.

use domain::id::{CommitSha, TaskId};

use crate::builtin::BuiltIn;
use crate::error::{Fault, PublishError};
use crate::hub::{Advert, Project};
use crate::import::{imports, task_ref};
use crate::merge::merges;
use crate::push::{Push, Pushed};

/// A change that can be seen in the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// Whether it was there already.
    pub already: bool,
}

/// Names for a task's branch, best first. Git can't have `chargehand/x` beside `chargehand`.
fn names(task: &TaskId, advert: &Advert) -> [String; 2] {
    let separator = if advert.branch("chargehand").is_some() { '-' } else { '/' };
    [format!("chargehand{separator}{}", task.short()), format!("chargehand{separator}{task}-change")]
}

impl BuiltIn {
    pub(crate) async fn show(
        &self,
        project: &Project,
        task: &TaskId,
        head: &CommitSha,
    ) -> Result<Published, PublishError> {
        if !self.has_commit(project, head).await? {
            return Err(Fault::NoSuchCommit { commit: head.clone() }.into());
        }
        let lock = self.lock(project);
        let _held = lock.lock().await;
        let ours = self.results(project, task).await?;
        let advert = self
            .advert(project.place(), &["refs/heads/chargehand", "refs/heads/chargehand*", "refs/heads/chargehand/*"])
            .await?;
        let tried = names(task, &advert);
        for branch in &tried {
            let now = advert.branch(branch);
            if now == Some(head) {
                return Ok(Published { branch: branch.clone(), already: true });
            }
            if let Some(now) = now.filter(|now| !ours.contains(now)) {
                if self.grew_from_ours(project, branch, now, &ours).await? {
                    return Err(PublishError::BranchMoved { branch: branch.clone(), now: now.clone() });
                }
                continue;
            }
            return self.push_change(project, branch, now, head).await;
        }
        Err(PublishError::NamesTaken { tried: tried.to_vec() })
    }

    async fn push_change(
        &self,
        project: &Project,
        branch: &str,
        from: Option<&CommitSha>,
        head: &CommitSha,
    ) -> Result<Published, PublishError> {
        let branch = branch.to_owned();
        let push = Push { name: &format!("refs/heads/{branch}"), to: Some(head), from };
        match self.push(project, &push).await? {
            Pushed::Done => Ok(Published { branch, already: false }),
            Pushed::CheckedOut => {
                let path = self.worktree_with(project, &branch).await?;
                Err(PublishError::CheckedOut { branch, path })
            }
            Pushed::Refused(reason) => Err(PublishError::Refused { branch, reason }),
            Pushed::Stale => match self.fetch_branch(project, &branch).await? {
                Some(now) if now == *head => Ok(Published { branch, already: true }),
                Some(now) => Err(PublishError::BranchMoved { branch, now }),
                None => Err(PublishError::Refused {
                    branch,
                    reason: "the branch came and went while it was pushed".to_owned(),
                }),
            },
        }
    }

    /// Deletes the task's branches in the origin that are still at one of its results. Gives their
    /// names.
    pub(crate) async fn hide(&self, project: &Project, task: &TaskId) -> Result<Vec<String>, PublishError> {
        let lock = self.lock(project);
        let _held = lock.lock().await;
        let ours = self.results(project, task).await?;
        let advert = self
            .advert(project.place(), &["refs/heads/chargehand", "refs/heads/chargehand*", "refs/heads/chargehand/*"])
            .await?;
        let mut gone = Vec::new();
        for branch in names(task, &advert) {
            let Some(now) = advert.branch(&branch).filter(|now| ours.contains(now)) else { continue };
            let push = Push { name: &format!("refs/heads/{branch}"), to: None, from: Some(now) };
            match self.push(project, &push).await? {
                Pushed::Done => gone.push(branch),
                Pushed::Stale => {}
                Pushed::CheckedOut => {
                    let path = self.worktree_with(project, &branch).await?;
                    return Err(PublishError::CheckedOut { branch, path });
                }
                Pushed::Refused(reason) => return Err(PublishError::Refused { branch, reason }),
            }
        }
        Ok(gone)
    }

    /// Whether somebody committed on top of one of these results.
    async fn grew_from_ours(
        &self,
        project: &Project,
        branch: &str,
        now: &CommitSha,
        ours: &[CommitSha],
    ) -> Result<bool, Fault> {
        let now = self.fetch_known(project, branch, now).await?;
        for result in ours {
            if self.is_ancestor(&self.hub_of(project), result, &now).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every commit that was imported or merged for a task.
    pub(crate) async fn results(&self, project: &Project, task: &TaskId) -> Result<Vec<CommitSha>, Fault> {
        let list = ["for-each-ref", "--format=%(objectname)", &imports(task), &merges(task), &task_ref(task)];
        let text = self.git.hub(&self.hub_of(project)).args(list).text().await;
        let text = text.map_err(Fault::git("listing a task's results"))?;
        Ok(text.lines().filter_map(|line| CommitSha::parse(line).ok()).collect())
    }

    pub(crate) async fn newest_result(&self, project: &Project, task: &TaskId) -> Result<Option<CommitSha>, Fault> {
        self.ref_at(&self.hub_of(project), &task_ref(task)).await
    }

    /// Forgets a task in the hub. Its commits stay readable by name.
    pub(crate) async fn forget(&self, project: &Project, task: &TaskId) -> Result<(), Fault> {
        let doing = "removing a task's refs";
        let hub = self.hub_of(project);
        let lock = self.lock(project);
        let _held = lock.lock().await;
        let list = ["for-each-ref", "--format=delete %(refname)", &imports(task), &merges(task), &task_ref(task)];
        let list = self.git.hub(&hub).args(list).ok().await.map_err(Fault::git(doing))?;
        self.git.hub(&hub).args(["update-ref", "--stdin"]).stdin(list.stdout).ok().await.map_err(Fault::git(doing))?;
        Ok(())
    }
}
