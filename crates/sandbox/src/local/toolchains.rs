//! What of the host a box may read: an allow-list.
//!
//! The system's programs come from [`SYSTEM`]. Language toolchains that live in somebody's home are
//! bound one by one, by exact folder and never by the home ([`Toolchains::detect`]); the folders
//! appear under `/opt/toolchains`. Absent: the environment of this process (it is passed in), and
//! anything with credentials: of cargo's home only `registry/cache` and `registry/index` are seen.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Host folders that hold the system's programs. Where the host has a link, the box has the link.
pub const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"];

/// A toolchain that boxes see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Toolchain {
    /// For people: `rust`, `python`, ….
    pub name: String,
    /// Folder on the host.
    pub from: PathBuf,
    /// Folder in the box.
    pub at: PathBuf,
    /// Folders in the box that go in front of `PATH`.
    pub path_dirs: Vec<PathBuf>,
    /// Variables of the box.
    pub env: Vec<(String, String)>,
}

/// All toolchains that boxes see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Toolchains {
    /// In the order of `PATH`.
    pub list: Vec<Toolchain>,
}

/// An environment to look into.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Toolchains {
    /// Finds toolchains in the usual places: rustup's active one with cargo's downloaded crates,
    /// pyenv's, nvm's, `GOROOT` and `JAVA_HOME`. What lies under `/usr` needs no finding.
    #[must_use]
    pub fn detect(env: Environment<'_>) -> Self {
        let home = env("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let under_home = |variable: &str, name: &str| {
            env(variable).map(PathBuf::from).or_else(|| home.as_ref().map(|home| home.join(name)))
        };
        let mut list = Vec::new();
        if let Some(rustup) = under_home("RUSTUP_HOME", ".rustup") {
            list.extend(rust(&rustup, env("RUSTUP_TOOLCHAIN").as_deref()));
        }
        if let Some(cargo) = under_home("CARGO_HOME", ".cargo") {
            list.extend(crates(&cargo));
        }
        if let Some(pyenv) = under_home("PYENV_ROOT", ".pyenv") {
            list.extend(python(&pyenv, env("PYENV_VERSION").as_deref()));
        }
        list.extend(env("NVM_BIN").and_then(|bin| plain("node", Path::new(&bin).parent()?, None)));
        list.extend(env("GOROOT").and_then(|root| plain("go", Path::new(&root), Some("GOROOT"))));
        list.extend(env("JAVA_HOME").and_then(|root| plain("java", Path::new(&root), Some("JAVA_HOME"))));
        list.retain(|found| may_be_bound(&found.from, home.as_deref()));
        Self { list }
    }
}

/// A folder that is neither a home, nor holds one, nor is seen by boxes anyway.
fn may_be_bound(from: &Path, home: Option<&Path>) -> bool {
    let holds_home = home.is_some_and(|home| home.starts_with(from));
    !holds_home && from.is_absolute() && !from.starts_with("/usr") && from.parent().is_some()
}

fn rust(rustup: &Path, wanted: Option<&OsStr>) -> Option<Toolchain> {
    let settings = fs::read_to_string(rustup.join("settings.toml")).unwrap_or_default();
    let default = settings.lines().find_map(|line| {
        Some(
            line.strip_prefix("default_toolchain")?.trim_start().strip_prefix('=')?.trim().trim_matches('"').to_owned(),
        )
    });
    let wanted = wanted.map(|name| name.to_string_lossy().into_owned()).or(default)?;
    let folder = find_version(&rustup.join("toolchains"), &wanted)?;
    folder.join("bin/rustc").is_file().then(|| toolchain("rust", folder, &["bin"]))
}

/// Cargo's downloaded crates; unpacking them happens in the box.
fn crates(cargo: &Path) -> Vec<Toolchain> {
    let entry = |name: &str| {
        let from = cargo.join("registry").join(name).canonicalize().ok().filter(|from| from.is_dir())?;
        let at = Path::new(BOX_CARGO_HOME).join("registry").join(name);
        Some(Toolchain { name: format!("crates ({name})"), from, at, path_dirs: Vec::new(), env: Vec::new() })
    };
    ["cache", "index"].into_iter().filter_map(entry).collect()
}

fn python(pyenv: &Path, wanted: Option<&OsStr>) -> Option<Toolchain> {
    let file = fs::read_to_string(pyenv.join("version")).unwrap_or_default();
    let wanted = wanted.map(|name| name.to_string_lossy().into_owned()).unwrap_or(file);
    let wanted = wanted.split([':', '\n']).map(str::trim).find(|name| !name.is_empty() && *name != "system")?;
    let folder = find_version(&pyenv.join("versions"), wanted)?;
    // Its programs and its own library are found by the path that it was installed at.
    folder.join("bin").is_dir().then(|| Toolchain {
        path_dirs: vec![folder.join("bin")],
        at: folder.clone(),
        ..toolchain("python", folder, &[])
    })
}

fn plain(name: &str, root: &Path, variable: Option<&str>) -> Option<Toolchain> {
    let root = root.canonicalize().ok()?;
    if !root.join("bin").is_dir() {
        return None;
    }
    let mut found = toolchain(name, root, &["bin"]);
    if let Some(variable) = variable {
        found.env.push((variable.to_owned(), found.at.to_string_lossy().into_owned()));
    }
    Some(found)
}

fn toolchain(name: &str, from: PathBuf, bins: &[&str]) -> Toolchain {
    let at = Path::new("/opt/toolchains").join(name);
    let path_dirs = bins.iter().map(|bin| at.join(bin)).collect();
    Toolchain { name: name.to_owned(), from, at, path_dirs, env: Vec::new() }
}

/// `wanted` itself, or the one folder whose name begins with it.
fn find_version(folder: &Path, wanted: &str) -> Option<PathBuf> {
    if wanted.is_empty() || wanted.contains('/') {
        return None;
    }
    if let Ok(exact) = folder.join(wanted).canonicalize() {
        return Some(exact);
    }
    let mut names: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(wanted));
            rest.is_some_and(|rest| rest.starts_with(['-', '.']))
        })
        .map(|entry| entry.path())
        .collect();
    names.sort();
    names.pop()?.canonicalize().ok()
}

/// Where cargo keeps its things in a box.
pub const BOX_CARGO_HOME: &str = "/home/agent/.cargo";

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(pairs: &[(&str, &Path)]) -> Toolchains {
        let find = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_os_str().to_owned());
        Toolchains::detect(&find)
    }

    #[test]
    fn rustups_default_toolchain_is_bound_by_its_folder_and_not_by_the_home() {
        let home = tempfile::tempdir().unwrap();
        let home_path = home.path().canonicalize().unwrap();
        let chain = home_path.join(".rustup/toolchains/stable-x86_64-unknown-linux-gnu");
        fs::create_dir_all(chain.join("bin")).unwrap();
        fs::write(chain.join("bin/rustc"), "").unwrap();
        fs::write(home_path.join(".rustup/settings.toml"), "version = \"12\"\ndefault_toolchain = \"stable\"\n")
            .unwrap();
        fs::create_dir_all(home_path.join(".cargo/registry/cache")).unwrap();
        fs::write(home_path.join(".cargo/credentials.toml"), "token").unwrap();
        let found = detect(&[("HOME", &home_path)]);
        let names: Vec<_> = found.list.iter().map(|t| (t.name.as_str(), t.from.clone(), t.at.clone())).collect();
        assert_eq!(
            names,
            vec![
                ("rust", chain, PathBuf::from("/opt/toolchains/rust")),
                (
                    "crates (cache)",
                    home_path.join(".cargo/registry/cache"),
                    PathBuf::from("/home/agent/.cargo/registry/cache")
                ),
            ]
        );
    }

    #[test]
    fn a_variable_that_points_at_a_home_binds_nothing() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("bin")).unwrap();
        let path = home.path().canonicalize().unwrap();
        assert_eq!(detect(&[("HOME", &path), ("GOROOT", &path), ("JAVA_HOME", Path::new("/"))]), Toolchains::default());
    }
}
