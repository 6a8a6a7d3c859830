//! What single values of a recipe may be, and how a mistake is told; the same for every source.
//!
//! Absent: what the machine or the server permits.

use std::path::{Component, Path};

use super::recipe::{Allow, Base, Host, MAX_TIME_LIMIT_S, Recipe, RecipeError, SetupNetwork};

/// The most entries that one list may have; a recipe is written by hand.
const MAX_ENTRIES: usize = 200;
/// The longest line of a command, in bytes.
const MAX_LINE_BYTES: usize = 32 * 1024;

/// Bytes of a file as text.
///
/// # Errors
/// [`RecipeError::NotText`] with the line.
pub fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, RecipeError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        RecipeError::NotText { file: file.to_owned(), line }
    })
}

/// Line and column, both from 1, of a byte offset.
#[must_use]
pub fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (1 + before.matches('\n').count(), column)
}

/// The key that was probably meant, out of a message that names the wrong one and the right ones.
#[must_use]
pub fn suggestion(problem: &str) -> Option<String> {
    let mut quoted = problem.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let best = quoted.min_by_key(|right| distance(wrong, right))?;
    (distance(wrong, best) <= wrong.len().max(3) / 2).then(|| format!("did you mean `{best}`?"))
}

/// How many characters have to be changed, added or left out to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), left);
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            left = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// An entry that is one word: a group (`cargo`, `git:HOST/OWNER/REPO`) or a host, which has a dot.
#[must_use]
pub fn allow_named(name: &str) -> Allow {
    if name.contains('.') && !name.contains([':', '/']) {
        Allow::Host(Host::named(name.to_ascii_lowercase()))
    } else {
        Allow::Group(name.to_owned())
    }
}

/// Whether every value can be what it is said to be.
///
/// # Errors
/// One sentence with what is wrong and what would be right.
pub fn check(recipe: &Recipe) -> Result<(), String> {
    let lists = [
        ("setup", recipe.setup.len()),
        ("start", recipe.start.len()),
        ("env", recipe.env.len()),
        ("read_only", recipe.read_only.len()),
        ("caches", recipe.caches.len()),
        ("network.tasks", recipe.task_network.len()),
        ("network.setup", recipe.setup_network.len()),
        ("setup_secrets", recipe.setup_secrets.len()),
    ];
    if let Some((name, count)) = lists.into_iter().find(|(_, count)| *count > MAX_ENTRIES) {
        return Err(format!("{name} has {count} entries; {MAX_ENTRIES} are the most"));
    }
    check_commands(recipe)?;
    for (name, value) in &recipe.env {
        let fine = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fine || value.contains('\0') {
            return Err(format!("env has `{}`, which cannot be a variable's name or value", name.escape_default()));
        }
        let platforms = ["HOME", "USER", "BASH_ENV", "ENV", "IFS"].contains(&name.as_str())
            || ["LD_", "GIT_", "CHARGEHAND_"].iter().any(|start| name.starts_with(start));
        let no_programs = name == "PATH" && recipe.base == Base::Host && !value.split(':').any(|dir| dir == "/usr/bin");
        if no_programs {
            return Err("env sets a PATH without /usr/bin, where the shell and git are".into());
        }
        if platforms {
            return Err(format!("env may not set {name}: the platform's own programs in the box depend on it"));
        }
    }
    if let Some(path) = recipe.base.host_path() {
        absolute("base", path)?;
    }
    for bind in &recipe.read_only {
        absolute("read_only", &bind.from)?;
        absolute("read_only", &bind.at)?;
        taken("read_only", &bind.at)?;
    }
    for cache in &recipe.caches {
        absolute("caches", cache)?;
        taken("caches", cache)?;
    }
    for allow in recipe.task_network.iter().chain(&recipe.setup_network) {
        check_allow(allow)?;
    }
    for name in &recipe.setup_secrets {
        secret_name(name)?;
    }
    let limits = &recipe.limits;
    let zero = [limits.memory_mb, limits.pids.map(u64::from), limits.cpu_millis.map(u64::from), limits.disk_mb];
    if zero.into_iter().chain([limits.open_files.map(u64::from)]).any(|limit| limit == Some(0)) {
        return Err("a limit of 0 lets nothing run; leave it out for the server's own".into());
    }
    let least = [
        ("memory_mb", limits.memory_mb, 64),
        ("pids", limits.pids.map(u64::from), 32),
        ("cpu_millis", limits.cpu_millis.map(u64::from), 50),
        ("open_files", limits.open_files.map(u64::from), 64),
        ("disk_mb", limits.disk_mb, 16),
    ];
    if let Some((name, _, least)) = least.into_iter().find(|(_, set, least)| set.is_some_and(|set| set < *least)) {
        return Err(format!("limits.{name} is less than {least}, with which no box can work"));
    }
    if recipe.rebuild.every_h == Some(0) {
        return Err("rebuild.every_h = 0 would build without end; leave it out for never".into());
    }
    Ok(())
}

fn check_commands(recipe: &Recipe) -> Result<(), String> {
    let lines = recipe.setup.iter().map(|setup| &setup.run).chain(&recipe.start);
    for line in lines {
        if line.trim().is_empty() || line.contains('\0') || line.len() > MAX_LINE_BYTES {
            return Err(format!("a command is 1 to {MAX_LINE_BYTES} bytes of text for the shell"));
        }
    }
    for setup in &recipe.setup {
        if !(1..=MAX_TIME_LIMIT_S).contains(&setup.time_limit_s) {
            return Err(format!("time_limit_s = {} must be 1 to {MAX_TIME_LIMIT_S} seconds", setup.time_limit_s));
        }
        if let SetupNetwork::Only(names) = &setup.network
            && let Some(name) =
                names.iter().find(|name| !recipe.setup_network.iter().any(|a| a.name() == name.as_str()))
        {
            return Err(format!("`{}` asks for {name}, which network.setup does not list; add it there", setup.run));
        }
        if setup.network == SetupNetwork::Listed && recipe.setup_network.is_empty() {
            return Err(format!(
                "`{}` asks for a network, and network.setup lists nothing; list what it needs there",
                setup.run
            ));
        }
    }
    Ok(())
}

fn absolute(key: &str, path: &Path) -> Result<(), String> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let text = path.to_str().filter(|text| !text.contains(['\0', '\n']));
    if path.is_absolute() && plain && path.parent().is_some() && text.is_some() {
        return Ok(());
    }
    Err(format!("{key}: {} must be an absolute path below the root, without `..`", path.display()))
}

/// Places in the box that the platform fills itself.
fn taken(key: &str, path: &Path) -> Result<(), String> {
    let own = ["/proc", "/dev", "/sys", "/.hand", "/.chargehand", "/workspace/.git"];
    match own.iter().find(|own| path.starts_with(own) || Path::new(own).starts_with(path)) {
        Some(own) => Err(format!("{key}: {} is or holds {own}, which is the platform's own", path.display())),
        None => Ok(()),
    }
}

fn secret_name(name: &str) -> Result<(), String> {
    let fine =
        !name.is_empty() && name.len() <= 100 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if fine { Ok(()) } else { Err(format!("`{}` is not the name of a secret", name.escape_default())) }
}

fn check_allow(allow: &Allow) -> Result<(), String> {
    let bad = |name: &str, why: &str| Err(format!("network: `{}` {why}", name.escape_default()));
    let host = match allow {
        Allow::Group(name) if name.is_empty() || name.len() > 300 || name.contains(char::is_whitespace) => {
            return bad(name, "is neither a host nor the name of a group");
        }
        Allow::Group(_) => return Ok(()),
        Allow::Host(host) => host,
    };
    let plain = host.host.strip_prefix("*.").unwrap_or(&host.host);
    let fine = !plain.is_empty()
        && plain.len() <= 253
        && plain.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._[]:".contains(c));
    if !fine {
        return bad(&host.host, "is not a host: lower-case letters, digits, dots; `*.` only in front; ports apart");
    }
    if host.ports.contains(&0) {
        return bad(&host.host, "has port 0");
    }
    if host.methods.iter().any(|method| method.is_empty() || !method.chars().all(|c| c.is_ascii_uppercase())) {
        return bad(&host.host, "has a method that is not a word such as GET");
    }
    if host.paths.iter().any(|path| !path.starts_with('/') || path.contains(char::is_control)) {
        return bad(&host.host, "has a path that does not begin with `/`");
    }
    let Some(secret) = &host.secret else { return Ok(()) };
    secret_name(&secret.name)?;
    let how = &secret.how;
    let argument = how.strip_prefix("basic:").or_else(|| how.strip_prefix("header:"));
    let printable = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    if how == "bearer" || argument.is_some_and(printable) {
        return Ok(());
    }
    bad(&host.host, "adds its secret in no known way; write bearer, basic:USER or header:NAME")
}
