//! Things that an attacker plants in repositories, as probes that tell when they ran.
//!
//! A [`Probe`] owns a marker file outside the repository; each planted program adds its name to it.
//! `probe.ran()` is therefore the list of what got executed, and an empty list is the proof that a
//! test wants. Absent: any program that does harm.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::repo::Repo;

/// Every hook that git knows on either side of a fetch, push, merge or checkout.
const HOOKS: &[&str] = &[
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "proc-receive",
    "post-receive",
    "post-update",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
    "post-rewrite",
    "post-index-change",
    "fsmonitor-watchman",
];

/// A place where planted programs leave their names.
pub struct Probe {
    dir: TempDir,
}

impl Probe {
    /// An empty one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "making a folder on disk is no default value")]
    pub fn new() -> Self {
        Self { dir: TempDir::with_prefix("probe-").unwrap() }
    }

    fn marker(&self) -> PathBuf {
        self.dir.path().join("ran")
    }

    /// A program that notes `name`, then passes its standard input through, so that a filter made
    /// of it also works.
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        self.write_program(&path, name);
        path
    }

    fn write_program(&self, path: &Path, name: &str) {
        let text = format!("#!/bin/sh\necho {name} >> '{}'\ncat\nexit 0\n", self.marker().display());
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The names of the planted programs that ran, in order.
    #[must_use]
    pub fn ran(&self) -> Vec<String> {
        std::fs::read_to_string(self.marker()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Forgets what ran so far.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.marker());
    }

    /// Plants every hook in the repository's own hook folder.
    pub fn plant_hooks(&self, repo: &Repo) {
        let git_dir = PathBuf::from(repo.git(&["rev-parse", "--path-format=absolute", "--git-common-dir"]));
        let hooks = git_dir.join("hooks");
        std::fs::create_dir_all(&hooks).unwrap();
        for hook in HOOKS {
            self.write_program(&hooks.join(hook), &format!("hook-{hook}"));
        }
    }

    /// Plants a file-system monitor, filters, a text converter, an external diff and a merge driver
    /// in the repository's configuration, and gives the `.gitattributes` text that calls for them.
    pub fn plant_config(&self, repo: &Repo) -> String {
        let set = |key: &str, program: &str| {
            repo.git(&[OsStr::new("config"), OsStr::new(key), self.program(program).as_os_str()]);
        };
        set("core.fsmonitor", "fsmonitor");
        set("filter.evil.clean", "filter-clean");
        set("filter.evil.smudge", "filter-smudge");
        set("diff.evil.textconv", "textconv");
        set("diff.evil.command", "diff-command");
        set("diff.external", "diff-external");
        set("merge.evil.driver", "merge-driver");
        set("core.sshCommand", "ssh-command");
        set("core.askPass", "ask-pass");
        set("core.pager", "pager");
        set("gpg.program", "gpg");
        set("uploadpack.packObjectsHook", "pack-objects-hook");
        "* filter=evil diff=evil merge=evil\n".to_owned()
    }

    /// Puts a bare repository with a file-system monitor into the work tree, as plain files.
    pub fn plant_embedded_bare(&self, repo: &Repo, at: &str) {
        let monitor = self.program("embedded-fsmonitor");
        repo.file(format!("{at}/HEAD"), "ref: refs/heads/main\n")
            .file(format!("{at}/objects/keep"), "")
            .file(format!("{at}/refs/keep"), "")
            .file(format!("{at}/config"), format!("[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = \"..\"\n\tfsmonitor = \"{}\"\n", monitor.display()));
    }
}

impl Repo {
    /// Stages a submodule entry (a gitlink) without a submodule behind it, and its `.gitmodules`.
    pub fn gitlink(&self, path: &str, commit: &str) -> &Self {
        self.file(
            ".gitmodules",
            format!(
                "[submodule \"{path}\"]\n\tpath = {path}\n\turl = https://example.invalid/{path}.git\n\tignore = none\n"
            ),
        );
        self.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
        self
    }

    /// Writes a file whose name is these bytes, which need not be UTF-8.
    pub fn file_named(&self, name: &[u8], content: impl AsRef<[u8]>) -> &Self {
        self.file(Path::new(OsStr::from_bytes(name)), content)
    }

    /// A commit on top of `parent` whose tree is exactly these raw entries, however forbidden;
    /// see [`raw_tree`]. No ref points at it.
    pub fn raw_commit(&self, parent: &str, tree: &[u8]) -> String {
        let tree = self.git_bytes(&["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], Some(tree));
        let tree = String::from_utf8(tree).unwrap();
        self.git(&["commit-tree", tree.trim(), "-p", parent, "-m", "raw"])
    }

    /// Stores a blob and gives its id.
    pub fn blob(&self, content: &[u8]) -> String {
        String::from_utf8(self.git_bytes(&["hash-object", "-w", "--stdin"], Some(content))).unwrap().trim().to_owned()
    }
}

/// The bytes of a tree object from (mode, name, object id) entries, in the order given. Nothing is
/// checked: that is the point.
#[must_use]
pub fn raw_tree(entries: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        for pair in id.as_bytes().chunks(2) {
            let digits = std::str::from_utf8(pair).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_hook_tells_when_it_ran() {
        let repo = Repo::with_commit();
        let probe = Probe::new();
        probe.plant_hooks(&repo);
        assert!(probe.ran().is_empty());
        repo.git(&["update-ref", "refs/heads/other", "HEAD"]);
        assert!(probe.ran().contains(&"hook-reference-transaction".to_owned()));
        probe.forget();
        assert!(probe.ran().is_empty());
    }

    #[test]
    fn planted_filters_run_when_nothing_prevents_them() {
        let repo = Repo::with_commit();
        let probe = Probe::new();
        let attributes = probe.plant_config(&repo);
        repo.file(".gitattributes", attributes).file("new.txt", "x\n").commit("second");
        let ran = probe.ran();
        assert!(ran.contains(&"filter-clean".to_owned()) && ran.contains(&"fsmonitor".to_owned()), "{ran:?}");
    }

    #[test]
    fn a_forbidden_tree_can_be_made() {
        let repo = Repo::with_commit();
        let blob = repo.blob(b"x");
        let commit = repo.raw_commit(&repo.head(), &raw_tree(&[("100644", b".git", &blob)]));
        assert!(repo.git(&["ls-tree", "--name-only", &commit]).contains(".git"));
    }
}
