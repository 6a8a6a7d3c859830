//! Starts the programs that upkeep needs (cargo, git, our own binary), and knows where the
//! workspace lies.
//!
//! The only module of xtask that starts anything or reads the environment. Absent: a shell.
#![expect(clippy::disallowed_methods, reason = "xtask's work is to run cargo, git and the built binary")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The workspace as `cargo metadata` describes it, without dependencies from outside.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// Its packages.
    pub packages: Vec<Package>,
    /// Its root folder.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    /// Where cargo builds.
    pub target_directory: PathBuf,
}

/// One of our crates.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// What it says that it depends on.
    pub dependencies: Vec<Dependency>,
    /// What is built from it.
    pub targets: Vec<Target>,
}

/// A declared dependency.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// `None` for normal ones, else `dev` or `build`.
    pub kind: Option<String>,
    /// Set for crates of this workspace.
    pub path: Option<PathBuf>,
}

/// Something that is built from a crate.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// `lib`, `bin`, `test`, …
    pub kind: Vec<String>,
}

impl Workspace {
    /// Asks cargo.
    pub fn find() -> anyhow::Result<Self> {
        let json = captured(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        serde_json::from_str(&json).context("cannot read what `cargo metadata` printed")
    }
}

/// The cargo that started us.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// git in this folder.
pub fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder);
    command
}

/// A program that we built.
pub fn built(program: &Path) -> Command {
    Command::new(program)
}

/// Debian's installer, which asks nothing.
pub fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Lets a program run as another user, who gets this folder and lives in it.
pub fn as_user(command: &mut Command, user: u32, folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    std::os::unix::fs::chown(folder, Some(user), Some(user))
        .with_context(|| format!("cannot give {} away", folder.display()))?;
    command.uid(user).gid(user).current_dir(folder).env("HOME", folder).env("TMPDIR", folder);
    Ok(())
}

/// Whether an environment variable is set.
pub fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Runs a program to its end and gives what it wrote to standard output.
///
/// Fails with the program's own words if it does not succeed.
pub fn captured(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`captured`], but what the program says beside its output is seen while it works.
pub fn answered(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}); see above", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end, whether or not it succeeds, and gives both its streams.
pub fn all_that_it_says(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Runs a program that writes to our own output; says whether it succeeded.
pub fn passed_through(command: &mut Command) -> anyhow::Result<bool> {
    let shown = shown(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{shown}`"))?;
    Ok(status.success())
}

/// A command as one could type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words: Vec<_> = std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_an_error_with_its_own_words() {
        let error = captured(git(Path::new(".")).arg("no-such-command")).unwrap_err().to_string();
        assert!(error.contains("no-such-command' is not a git command"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let error = format!("{:#}", captured(&mut built(Path::new("/nowhere/tool"))).unwrap_err());
        assert!(error.contains("cannot start `tool`"), "{error}");
    }

    #[test]
    fn this_workspace_is_found_with_its_own_edges() {
        let workspace = Workspace::find().unwrap();
        let gates = workspace.packages.iter().find(|package| package.name == "gates").unwrap();
        assert!(gates.dependencies.iter().any(|d| d.name == "domain" && d.path.is_some() && d.kind.is_none()));
    }
}
