//! A fresh work tree out of the hub, for a sandbox.
//!
//! The tree stands alone: its own object store with the history of one commit up to a depth, no
//! remote, no alternate, no hook, no reflog, no path of the host. Nobody but the host has it while
//! it is made. Absent: everything else that the hub holds, and any later call in the tree: once it
//! is handed over it counts as written by an agent.

use std::num::NonZeroU32;
use std::path::Path;

use domain::id::CommitSha;

use crate::builtin::BuiltIn;
use crate::error::{CheckoutError, Fault};
use crate::hub::{Project, blocking};

/// How a work tree is to be.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The branch that is checked out in it.
    pub branch_name: String,
    /// How many commits of history it has; nothing for all.
    pub depth: Option<NonZeroU32>,
}

impl Default for Checkout {
    /// Fifty commits, on `work`.
    fn default() -> Self {
        Self { branch_name: "work".to_owned(), depth: NonZeroU32::new(50) }
    }
}

/// Settings of the tree itself. Sandboxes show it under other owners and inode numbers; without
/// the two `stat` settings the first `git status` would read every file again.
const TREE_SETTINGS: &str =
    "\tcheckStat = minimal\n\ttrustctime = false\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";

impl BuiltIn {
    pub(crate) async fn make_checkout(
        &self,
        project: &Project,
        commit: &CommitSha,
        dest: &Path,
        how: &Checkout,
    ) -> Result<(), CheckoutError> {
        let doing = "making a work tree";
        let check = self.git.nowhere().args(["check-ref-format", "--branch", &how.branch_name]).run();
        let (name, known) = tokio::join!(check, self.has_commit(project, commit));
        if how.branch_name.starts_with('-') || name.map_err(Fault::git(doing))?.code != 0 {
            return Err(CheckoutError::BadBranch { name: how.branch_name.clone() });
        }
        if !known? {
            return Err(Fault::NoSuchCommit { commit: commit.clone() }.into());
        }
        let folder = dest.to_owned();
        let is_empty = move || {
            std::fs::create_dir_all(&folder)?;
            Ok(std::fs::read_dir(&folder)?.next().is_none())
        };
        if !blocking(is_empty).await.map_err(Fault::io(doing, dest))? {
            return Err(CheckoutError::NotEmpty { path: dest.to_owned() });
        }
        let made = self.fill_checkout(project, commit, dest, how).await;
        if made.is_err() {
            // Half a tree is of no use, and would be `NotEmpty` for the next try.
            let folder = dest.to_owned();
            let _ = blocking(move || empty_dir(&folder)).await;
        }
        Ok(made?)
    }

    async fn fill_checkout(
        &self,
        project: &Project,
        commit: &CommitSha,
        dest: &Path,
        how: &Checkout,
    ) -> Result<(), Fault> {
        let doing = "making a work tree";
        let git = || self.git.fresh(dest);
        let format = if commit.as_str().len() == 64 { "sha256" } else { "sha1" };
        let init = [
            "init",
            "--quiet",
            "--template=",
            &format!("--object-format={format}"),
            "--initial-branch",
            &how.branch_name,
        ];
        git().args(init).ok().await.map_err(Fault::git(doing))?;
        let config = dest.join(".git/config");
        let settings = move || {
            let mut text = std::fs::read_to_string(&config)?;
            text.push_str("[core]\n");
            text.push_str(TREE_SETTINGS);
            std::fs::write(&config, text)
        };
        blocking(settings).await.map_err(Fault::io(doing, dest))?;

        // What the hub holds was checked when it came in.
        let mut fetch = git().args(["-c", "transfer.fsckObjects=false"]);
        fetch = fetch.args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--update-head-ok",
        ]);
        match how.depth {
            Some(depth) => fetch = fetch.arg(format!("--depth={depth}")),
            None => fetch = fetch.arg("--update-shallow"),
        }
        let fetch = fetch.arg("--end-of-options").arg(self.hub_of(project));
        fetch.arg(format!("{commit}:refs/heads/{}", how.branch_name)).ok().await.map_err(Fault::git(doing))?;
        let reset =
            ["-c", "checkout.workers=0", "-c", "checkout.thresholdForParallelism=1000", "reset", "--quiet", "--hard"];
        git().args(reset).ok().await.map_err(Fault::git(doing))?;
        for leftover in [".git/ORIG_HEAD", ".git/FETCH_HEAD"] {
            let _ = tokio::fs::remove_file(dest.join(leftover)).await;
        }
        Ok(())
    }
}

fn empty_dir(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
