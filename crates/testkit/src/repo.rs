//! A scratch git repository that a test writes, commits and looks into.
//!
//! Runs the `git` program with the machine's and the user's settings switched off. Dates count up
//! from a fixed instant, one minute per commit. Absent: anything hostile; see `hostile`.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// When the first commit of every scratch repository is made (seconds since 1970).
const FIRST_COMMIT_AT_S: u64 = 1_700_000_000;

/// A git command in `dir`, isolated from the settings of whoever runs the tests.
pub(crate) fn command(dir: &Path, at_s: u64) -> Command {
    #[expect(clippy::disallowed_methods, reason = "fixtures are made by the git program")]
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"] {
        command.env_remove(name);
    }
    let date = format!("{at_s} +0000");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .env("GIT_AUTHOR_NAME", "Test Author")
        .env("GIT_AUTHOR_EMAIL", "author@example.invalid")
        .env("GIT_COMMITTER_NAME", "Test Author")
        .env("GIT_COMMITTER_EMAIL", "author@example.invalid")
        .env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_DATE", &date)
        .args(["-c", "gc.auto=0", "-c", "protocol.file.allow=always"]);
    command
}

pub(crate) fn finish(mut command: Command, stdin: Option<&[u8]>) -> Output {
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the git program is needed for this test");
    if let Some(bytes) = stdin {
        let mut pipe = child.stdin.take().unwrap();
        // A command may end before it has read everything; its exit code tells.
        let _ = pipe.write_all(bytes);
    }
    child.wait_with_output().unwrap()
}

pub(crate) fn must(command: Command, stdin: Option<&[u8]>) -> Vec<u8> {
    let shown = format!("{command:?}");
    let output = finish(command, stdin);
    assert!(output.status.success(), "{shown} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs git in any folder and gives its standard output without the last line end. Panics if git
/// fails.
pub fn git_in<S: AsRef<OsStr>>(dir: &Path, args: &[S]) -> String {
    let mut command = command(dir, FIRST_COMMIT_AT_S);
    command.args(args);
    String::from_utf8_lossy(&must(command, None)).trim_end_matches('\n').to_owned()
}

/// A scratch repository; its folder goes when it is dropped.
pub struct Repo {
    path: PathBuf,
    commits: Cell<u64>,
    /// Present where the folder is ours to delete.
    _dir: Option<TempDir>,
}

impl Repo {
    /// A repository with a work tree, on a `main` that has no commit yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "making a repository on disk is no default value")]
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("repo-").unwrap();
        let path = dir.path().canonicalize().unwrap();
        git_in(&path, &["init", "--quiet", "--initial-branch=main", "--template="]);
        Self { path, commits: Cell::new(0), _dir: Some(dir) }
    }

    /// A repository with one commit that holds `README.md`.
    #[must_use]
    pub fn with_commit() -> Self {
        let repo = Self::new();
        repo.file("README.md", "a sample\n").commit("first");
        repo
    }

    /// A bare copy of this repository with all its branches.
    #[must_use]
    pub fn to_bare(&self) -> Self {
        let dir = TempDir::with_prefix("bare-").unwrap();
        let path = dir.path().canonicalize().unwrap().join("repo.git");
        git_in(
            &self.path,
            &[OsStr::new("clone"), OsStr::new("--quiet"), OsStr::new("--bare"), OsStr::new("."), path.as_os_str()],
        );
        git_in(&path, &["remote", "remove", "origin"]);
        Self { path, commits: Cell::new(self.commits.get()), _dir: Some(dir) }
    }

    /// A handle on a repository that exists already, for example a checkout in which a test plays
    /// the agent. Dropping it leaves the folder.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), commits: Cell::new(1000), _dir: None }
    }

    /// The work tree, or the repository itself where it is bare. Canonical.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of the work tree, with its folders.
    pub fn file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self
    }

    /// Writes a file and makes it executable.
    pub fn script(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        use std::os::unix::fs::PermissionsExt as _;
        self.file(&path, content);
        std::fs::set_permissions(self.path.join(path), std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Deletes a file of the work tree.
    pub fn remove(&self, path: impl AsRef<Path>) -> &Self {
        std::fs::remove_file(self.path.join(path)).unwrap();
        self
    }

    /// Makes a symbolic link in the work tree.
    pub fn symlink(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> &Self {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Commits everything in the work tree to the current branch and gives the commit's full id.
    /// An empty commit is fine.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.commit_staged(message)
    }

    /// Commits what is staged, and nothing else.
    pub fn commit_staged(&self, message: &str) -> String {
        self.commits.set(self.commits.get() + 1);
        self.git(&["commit", "--quiet", "--allow-empty", "--no-verify", "-m", message]);
        self.head()
    }

    /// Makes a branch at the current commit and stays where it was.
    pub fn branch(&self, name: &str) -> &Self {
        self.git(&["branch", "--", name]);
        self
    }

    /// Changes to a branch or detaches at a commit.
    pub fn checkout(&self, what: &str) -> &Self {
        self.git(&["checkout", "--quiet", what]);
        self
    }

    /// The current commit's full id.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "--verify", "HEAD^{commit}"])
    }

    /// Where a branch stands, if it exists.
    #[must_use]
    pub fn head_of(&self, branch: &str) -> Option<String> {
        self.try_git(&["rev-parse", "--quiet", "--verify", &format!("refs/heads/{branch}^{{commit}}")])
    }

    /// A file's content at a commit, if it is there.
    #[must_use]
    pub fn read_at(&self, commit: &str, path: &str) -> Option<Vec<u8>> {
        let mut command = self.command();
        command.args(["cat-file", "blob", &format!("{commit}:{path}")]);
        let output = finish(command, None);
        output.status.success().then_some(output.stdout)
    }

    /// A file of the work tree as text. Panics if it can't be read.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.path.join(path)).unwrap()
    }

    /// Everything that `git status` has to say, one line per path; empty if the tree is clean.
    pub fn status(&self) -> String {
        self.git(&["status", "--porcelain"])
    }

    /// Runs git here and gives its standard output without the last line end. Panics if git fails.
    pub fn git<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        String::from_utf8_lossy(&self.git_bytes(args, None)).trim_end_matches('\n').to_owned()
    }

    /// Runs git here with bytes on its standard input. Panics if git fails.
    pub fn git_bytes<S: AsRef<OsStr>>(&self, args: &[S], stdin: Option<&[u8]>) -> Vec<u8> {
        let mut command = self.command();
        command.args(args);
        must(command, stdin)
    }

    /// Runs git here; its output if it succeeded.
    pub fn try_git<S: AsRef<OsStr>>(&self, args: &[S]) -> Option<String> {
        let mut command = self.command();
        command.args(args);
        let output = finish(command, None);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }

    /// Writes a bundle of what `git bundle create` is told to take, for example
    /// `["base..HEAD", "HEAD"]`.
    pub fn bundle<S: AsRef<OsStr>>(&self, dest: &Path, what: &[S]) -> PathBuf {
        let mut command = self.command();
        command.args(["bundle", "create", "--quiet"]).arg(dest).args(what);
        must(command, None);
        dest.to_owned()
    }

    pub(crate) fn command(&self) -> Command {
        command(&self.path, FIRST_COMMIT_AT_S + self.commits.get() * 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_calls_give_the_same_commits() {
        let make = || {
            let repo = Repo::new();
            repo.file("a/b.txt", "one\n").commit("first");
            repo.file("a/b.txt", "two\n").commit("second")
        };
        assert_eq!(make(), make());
    }

    #[test]
    fn a_file_can_be_read_at_a_commit() {
        let repo = Repo::new();
        let first = repo.file("f", "one").commit("first");
        repo.file("f", "two").commit("second");
        assert_eq!(repo.read_at(&first, "f").as_deref(), Some(&b"one"[..]));
        assert_eq!(repo.read_at(&first, "g"), None);
    }
}
