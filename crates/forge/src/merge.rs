//! Merge commits, made in the hub without a work tree.
//!
//! The same head on the same base gives the same commit, byte for byte: its dates come from its
//! parents. So a call after a crash finds what the first one made. Absent: merge drivers of any
//! repository, and any landing of what is made here.

use std::fmt::Write as _;

use domain::id::{CommitSha, TaskId};

use crate::builtin::BuiltIn;
use crate::error::Fault;
use crate::git::GitError;
use crate::hub::Project;
use crate::tree::{RepoPath, number};

/// Who signs merge commits.
const COMMITTER: (&str, &str) = ("Chargehand", "chargehand@localhost");

/// What to merge.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'a> {
    /// For whom.
    pub task: &'a TaskId,
    /// The change.
    pub head: &'a CommitSha,
    /// Where the base branch is now; becomes the first parent. `branch_head` brings it to the hub.
    pub onto: &'a CommitSha,
    /// The commit's message.
    pub message: &'a str,
}

/// What a merge comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preview {
    /// This commit, in the hub, is the merge; nothing has landed.
    Merged(CommitSha),
    /// The head already has `onto` in it and needs no merge.
    UpToDate(CommitSha),
    /// `onto` already has the head in it: the change is there.
    Contained,
    /// A person or an agent has to decide in these files.
    Conflict {
        /// Which files.
        files: Vec<RepoPath>,
    },
}

impl BuiltIn {
    pub(crate) async fn merged(&self, project: &Project, merge: &Merge<'_>) -> Result<Preview, Fault> {
        let doing = "merging";
        let hub = self.hub_of(project);
        for commit in [merge.head, merge.onto] {
            if !self.has_commit(project, commit).await? {
                return Err(Fault::NoSuchCommit { commit: commit.clone() });
            }
        }
        if self.is_ancestor(&hub, merge.head, merge.onto).await? {
            return Ok(Preview::Contained);
        }
        if self.is_ancestor(&hub, merge.onto, merge.head).await? {
            return Ok(Preview::UpToDate(merge.head.clone()));
        }
        let tree = match self.merged_tree(project, merge.onto, merge.head).await? {
            Ok(tree) => tree,
            Err(files) => return Ok(Preview::Conflict { files }),
        };
        let dates = ["show", "--no-patch", "--format=%ct", merge.onto.as_str(), merge.head.as_str()];
        let dates = self.git.hub(&hub).args(dates).text().await.map_err(Fault::git(doing))?;
        let at = dates.lines().filter_map(|line| number(line.as_bytes())).max().unwrap_or(0);
        let date = format!("@{at} +0000");
        let (name, email) = COMMITTER;
        let commit = ["commit-tree", &tree, "-p", merge.onto.as_str(), "-p", merge.head.as_str(), "-F", "-"];
        let mut commit = self.git.hub(&hub).args(commit).stdin(message(merge.message));
        for (role, date) in [("AUTHOR", &date), ("COMMITTER", &date)] {
            commit = commit.env(&format!("GIT_{role}_NAME"), name).env(&format!("GIT_{role}_EMAIL"), email);
            commit = commit.env(&format!("GIT_{role}_DATE"), date);
        }
        let text = commit.text().await.map_err(Fault::git(doing))?;
        let unexpected = |what| Fault::git(doing)(GitError::Unexpected { command: "git commit-tree".to_owned(), what });
        let sha = CommitSha::parse(&text).map_err(|error| unexpected(error.to_string()))?;
        let keep = ["update-ref", &format!("{}{sha}", merges(merge.task)), sha.as_str()];
        self.git.hub(&hub).args(keep).ok().await.map_err(Fault::git(doing))?;
        Ok(Preview::Merged(sha))
    }

    /// The tree of a merge, or the files in conflict.
    pub(crate) async fn merged_tree(
        &self,
        project: &Project,
        ours: &CommitSha,
        theirs: &CommitSha,
    ) -> Result<Result<String, Vec<RepoPath>>, Fault> {
        let merge = ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", "--end-of-options"];
        let call = self.git.hub(&self.hub_of(project)).args(merge).args([ours.as_str(), theirs.as_str()]);
        let answer = call.run().await.map_err(Fault::git("merging"))?;
        if answer.code != 0 && answer.code != 1 {
            return Err(Fault::git("merging")(answer.failure()));
        }
        let mut fields = answer.stdout.split(|byte| *byte == 0);
        let tree = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
        if answer.code == 0 {
            return Ok(Ok(tree));
        }
        Ok(Err(fields.filter(|path| !path.is_empty()).map(RepoPath::from_bytes).collect()))
    }
}

/// What the refs of all merges made for a task begin with.
pub(crate) fn merges(task: &TaskId) -> String {
    format!("refs/chargehand/merges/{task}/")
}

fn message(text: &str) -> Vec<u8> {
    let mut message = String::new();
    let _ = writeln!(message, "{}", text.trim().replace('\0', ""));
    message.into_bytes()
}
