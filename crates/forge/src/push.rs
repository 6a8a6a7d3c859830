//! Pushing one ref from the hub to the origin, with the origin's word on it sorted.
//!
//! Every push names what the ref must be at the far end (`--force-with-lease`), so that nobody's
//! work is overwritten and a repeated push is harmless.
//!
//! At the far end `git receive-pack` runs with the origin's own settings. The receive hooks of a
//! bare origin run too: they are its owner's rules for pushes. Those of a local origin with a work
//! tree don't: there, hook folders and scripts often live in the tree, so that they would be
//! content that an agent wrote and that landed earlier. Absent: any decision about what may be
//! pushed.

use std::path::{Path, PathBuf};

use domain::id::CommitSha;

use crate::builtin::BuiltIn;
use crate::error::Fault;
use crate::hub::{Place, Project, is_connection};

/// One ref's way from one commit to another.
pub(crate) struct Push<'a> {
    /// The full name at the origin.
    pub name: &'a str,
    /// The commit it is to be at; nothing to delete it.
    pub to: Option<&'a CommitSha>,
    /// The commit it must be at; nothing if it must not exist.
    pub from: Option<&'a CommitSha>,
}

/// What the origin said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Done,
    /// The ref was somewhere else.
    Stale,
    /// A work tree of the origin has the branch checked out.
    CheckedOut,
    /// Hook, rule or rights.
    Refused(String),
}

/// A work tree of the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worktree {
    pub path: PathBuf,
    pub branch: Option<String>,
}

impl BuiltIn {
    pub(crate) async fn push(&self, project: &Project, push: &Push<'_>) -> Result<Pushed, Fault> {
        let doing = "pushing to the origin";
        let origin = project.origin();
        let from = push.from.map_or("", CommitSha::as_str);
        let to = push.to.map_or("", CommitSha::as_str);
        let call = self.git.hub(&self.hub_of(project));
        let call = call.args(["push", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no"]);
        let mut call = call.arg(format!("--force-with-lease={}:{from}", push.name));
        if matches!(project.place(), Place::Local { tree: Some(_), .. }) {
            call = call
                .arg("--receive-pack=git -c core.hooksPath=/dev/null -c core.alternateRefsCommand=true receive-pack");
        }
        let call = call.arg("--end-of-options");
        let call = call.arg(project.origin_text()).arg(format!("{to}:{}", push.name));
        let answer = call.towards_origin(origin.secret()).run().await.map_err(Fault::git(doing))?;
        if answer.code == 0 {
            return Ok(Pushed::Done);
        }
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        let Some(line) = said.lines().find(|line| line.starts_with('!')) else {
            let error = answer.failure();
            return Err(if is_connection(&error) {
                Fault::Unreachable { origin: origin.to_string(), source: error }
            } else {
                Fault::git(doing)(error)
            });
        };
        let reason = line.rsplit('\t').next().unwrap_or_default();
        Ok(
            if reason.contains("stale info")
                || reason.contains("failed to update ref")
                || reason.contains("fetch first")
            {
                Pushed::Stale
            } else if reason.contains("currently checked out") {
                Pushed::CheckedOut
            } else {
                Pushed::Refused(with_remote_words(reason, &answer.stderr))
            },
        )
    }

    /// The work trees of a local origin; none for a remote one.
    pub(crate) async fn worktrees(&self, project: &Project) -> Result<Vec<Worktree>, Fault> {
        let Place::Local { git_dir, .. } = project.place() else { return Ok(Vec::new()) };
        let call = self.git.read_origin(Path::new(git_dir)).env("GIT_DIR", git_dir);
        let answer = call.args(["worktree", "list", "--porcelain", "-z"]).ok().await;
        let stdout = answer.map_err(Fault::git("listing work trees"))?.stdout;
        let mut trees: Vec<Worktree> = Vec::new();
        let mut bare = false;
        for line in String::from_utf8_lossy(&stdout).split('\0') {
            if let Some(path) = line.strip_prefix("worktree ") {
                if bare {
                    trees.pop();
                }
                bare = false;
                trees.push(Worktree { path: PathBuf::from(path), branch: None });
            } else if let (Some(name), Some(tree)) = (line.strip_prefix("branch refs/heads/"), trees.last_mut()) {
                tree.branch = Some(name.to_owned());
            } else if line == "bare" {
                bare = true;
            }
        }
        if bare {
            trees.pop();
        }
        Ok(trees)
    }

    /// The work tree of the origin that has a branch checked out.
    pub(crate) async fn worktree_with(&self, project: &Project, branch: &str) -> Result<Option<PathBuf>, Fault> {
        let trees = self.worktrees(project).await?;
        Ok(trees.into_iter().find(|tree| tree.branch.as_deref() == Some(branch)).map(|tree| tree.path))
    }
}

/// The reason together with what hooks at the far end printed.
fn with_remote_words(reason: &str, stderr: &str) -> String {
    let words: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("remote:"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(5)
        .collect();
    let text = if words.is_empty() { reason.to_owned() } else { format!("{reason}: {}", words.join("; ")) };
    text.chars().filter(|character| !character.is_control()).take(500).collect()
}
