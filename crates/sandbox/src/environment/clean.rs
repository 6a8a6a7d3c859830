//! What must not stay in a snapshot: downloads nobody asked to keep, temporary files, histories.
//!
//! Absent: doing it; [`what_goes`] says which places, with the caches that the recipe keeps left
//! alone, and a build asks the box's own `rm`.

use std::path::{Path, PathBuf};

/// Folders whose content goes, unless the recipe keeps something of it.
const EMPTIED: [&str; 5] = ["/tmp", "/var/tmp", "/var/cache", "/var/lib/apt/lists", "/run"];
/// Homes that a box may have: the platform's, and what programs of a foreign root believe in.
const HOMES: [&str; 2] = ["/home/agent", "/root"];
/// Folders of a home whose content goes.
const EMPTIED_AT_HOME: [&str; 2] = [".cache", ".npm"];
/// Files of a home that go.
const REMOVED_AT_HOME: [&str; 6] =
    [".bash_history", ".ash_history", ".python_history", ".node_repl_history", ".wget-hsts", ".lesshst"];

/// What is to be done with one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goes {
    /// Everything in this folder but these entries of it, and the folder stays.
    AllBut(PathBuf, Vec<PathBuf>),
    /// This file.
    File(PathBuf),
}

/// What goes, given what is kept.
pub fn what_goes(kept: &[PathBuf]) -> Vec<Goes> {
    let at_home = |names: &'static [&'static str]| {
        HOMES.iter().flat_map(move |home| names.iter().map(move |name| Path::new(home).join(name)))
    };
    let mut goes: Vec<Goes> = at_home(&REMOVED_AT_HOME).map(Goes::File).collect();
    for emptied in EMPTIED.iter().map(PathBuf::from).chain(at_home(&EMPTIED_AT_HOME)) {
        if !kept.iter().any(|kept| emptied.starts_with(kept)) {
            empty(&emptied, kept, &mut goes);
        }
    }
    goes
}

/// Empties a folder; folders in it on the way to something kept are emptied around that.
fn empty(folder: &Path, kept: &[PathBuf], goes: &mut Vec<Goes>) {
    let inside =
        kept.iter().filter_map(|kept| kept.strip_prefix(folder).ok()?.iter().next().map(|first| folder.join(first)));
    let mut inside: Vec<PathBuf> = inside.collect();
    inside.sort();
    inside.dedup();
    for on_the_way in inside.iter().filter(|path| !kept.contains(path)) {
        empty(on_the_way, kept, goes);
    }
    goes.push(Goes::AllBut(folder.to_owned(), inside));
}

/// The shell lines that do it. Only what the shell itself and `rm` can is used, so that they work in
/// any root; what is not there is no error.
pub fn script(goes: &[Goes]) -> String {
    let mut lines = vec!["set -f".to_owned()];
    for goes in goes {
        match goes {
            Goes::File(path) => lines.push(format!("rm -f -- {}", quoted(path))),
            Goes::AllBut(folder, kept) => {
                let cases: String = kept.iter().map(|path| format!("{}) continue;; ", quoted(path))).collect();
                let case = if cases.is_empty() { String::new() } else { format!("case \"$e\" in {cases}esac; ") };
                let folder = quoted(folder);
                lines.push(format!(
                    "if [ -d {folder} ] && [ ! -L {folder} ]; then set +f; for e in {folder}/* {folder}/.[!.]* {folder}/..?*; do {case}[ -e \"$e\" ] || [ -L \"$e\" ] || continue; rm -rf -- \"$e\" || exit 1; done; set -f; fi"
                ));
            }
        }
    }
    lines.join("\n")
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_and_everything_around_it_goes() {
        let kept = ["/home/agent/.cache/a/b", "/home/agent/.cache/c", "/var/cache", "/workspace/x"].map(PathBuf::from);
        let goes = what_goes(&kept);
        let all_but = |folder: &str| {
            goes.iter().find_map(|goes| match goes {
                Goes::AllBut(path, kept) if path == Path::new(folder) => Some(kept.clone()),
                _ => None,
            })
        };
        assert_eq!(all_but("/tmp"), Some(vec![]));
        assert_eq!(all_but("/var/cache"), None);
        assert_eq!(
            all_but("/home/agent/.cache"),
            Some(vec!["/home/agent/.cache/a".into(), "/home/agent/.cache/c".into()])
        );
        assert_eq!(all_but("/home/agent/.cache/a"), Some(vec!["/home/agent/.cache/a/b".into()]));
        assert_eq!(all_but("/home/agent/.cache/c"), None);
    }
}
