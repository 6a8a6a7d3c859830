//! A recipe as an `environment.toml` for people, with a comment above each line that has a note.
//!
//! Absent: defaults. What is as it would be without a word is not written.

use std::fmt::Write as _;
use std::path::Path;

use super::recipe::{Allow, Base, DEFAULT_TIME_LIMIT_S, Host, Note, Rebuild, Recipe, SetupNetwork};

/// Gathers lines; a note is written once, before the first line it is about.
struct Page<'a> {
    text: String,
    notes: Vec<&'a Note>,
}

impl Page<'_> {
    fn notes_about(&mut self, about: &str) {
        let text = &mut self.text;
        self.notes.retain(|note| {
            if note.about == about {
                for line in note.text.lines() {
                    let _ = writeln!(text, "# {line}");
                }
            }
            note.about != about
        });
    }

    fn line(&mut self, about: &str, line: &str) {
        self.notes_about(about);
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// Writes the recipe.
pub fn to_toml(recipe: &Recipe, notes: &[Note]) -> String {
    let mut page = Page { text: String::new(), notes: notes.iter().collect() };
    page.line("", "version = 1");
    page.line("base", &format!("base = {}", base(&recipe.base)));
    if !recipe.read_only.is_empty() {
        let binds = recipe.read_only.iter().map(|bind| {
            if bind.from == bind.at {
                path(&bind.from)
            } else {
                format!("{{ from = {}, at = {} }}", path(&bind.from), path(&bind.at))
            }
        });
        page.line("read_only", &format!("read_only = {}", list(binds)));
    }
    for (about, words) in [("start", &recipe.start), ("setup_secrets", &recipe.setup_secrets)] {
        if !words.is_empty() {
            page.line(about, &format!("{about} = {}", list(words.iter().map(|word| string(word)))));
        }
    }
    if !recipe.caches.is_empty() {
        page.line("caches", &format!("caches = {}", list(recipe.caches.iter().map(|cache| path(cache)))));
    }
    page.notes_about("setup");
    for (number, setup) in recipe.setup.iter().enumerate() {
        page.text.push('\n');
        page.line(&format!("setup.{number}"), "[[setup]]");
        page.line("", &format!("run = {}", string(&setup.run)));
        match &setup.network {
            SetupNetwork::None => {}
            SetupNetwork::Listed => page.line("", "network = true"),
            SetupNetwork::Only(names) => {
                page.line("", &format!("network = {}", list(names.iter().map(|name| string(name)))));
            }
        }
        if setup.time_limit_s != DEFAULT_TIME_LIMIT_S {
            page.line("", &format!("time_limit_s = {}", setup.time_limit_s));
        }
    }
    tables(recipe, &mut page);
    for note in std::mem::take(&mut page.notes) {
        let _ = writeln!(page.text, "# {}: {}", note.about, note.text);
    }
    page.text
}

fn tables(recipe: &Recipe, page: &mut Page<'_>) {
    if !recipe.env.is_empty() {
        page.line("env", "\n[env]");
        for (name, value) in &recipe.env {
            page.line(&format!("env.{name}"), &format!("{name} = {}", string(value)));
        }
    }
    let limits = [
        ("memory_mb", recipe.limits.memory_mb),
        ("pids", recipe.limits.pids.map(u64::from)),
        ("cpu_millis", recipe.limits.cpu_millis.map(u64::from)),
        ("open_files", recipe.limits.open_files.map(u64::from)),
        ("disk_mb", recipe.limits.disk_mb),
    ];
    if limits.iter().any(|(_, limit)| limit.is_some()) {
        page.line("limits", "\n[limits]");
        for (name, limit) in limits {
            if let Some(limit) = limit {
                page.line("", &format!("{name} = {limit}"));
            }
        }
    }
    if !recipe.task_network.is_empty() || !recipe.setup_network.is_empty() {
        page.line("network", "\n[network]");
        for (about, key, allowed) in
            [("network.tasks", "tasks", &recipe.task_network), ("network.setup", "setup", &recipe.setup_network)]
        {
            if !allowed.is_empty() {
                page.line(about, &format!("{key} = {}", list(allowed.iter().map(allow))));
            }
        }
    }
    if recipe.rebuild != Rebuild::default() {
        page.line("rebuild", "\n[rebuild]");
        if let Some(hours) = recipe.rebuild.every_h {
            page.line("", &format!("every_h = {hours}"));
        }
        if !recipe.rebuild.when_branch_moves {
            page.line("", "when_branch_moves = false");
        }
    }
}

fn base(base: &Base) -> String {
    match base {
        Base::Host => string("host"),
        Base::Rootfs { folder } => format!("{{ rootfs = {} }}", path(folder)),
        Base::Tarball { file } => format!("{{ tarball = {} }}", path(file)),
        Base::Oci { layout, tag: None } => format!("{{ oci = {} }}", path(layout)),
        Base::Oci { layout, tag: Some(tag) } => format!("{{ oci = {}, tag = {} }}", path(layout), string(tag)),
    }
}

fn allow(allow: &Allow) -> String {
    match allow {
        Allow::Group(name) => string(name),
        Allow::Host(host)
            if *host == Host::named(host.host.clone())
                && host.host.contains('.')
                && !host.host.contains([':', '/']) =>
        {
            string(&host.host)
        }
        Allow::Host(host) => {
            let mut parts = vec![format!("host = {}", string(&host.host))];
            if !host.ports.is_empty() {
                parts.push(format!("ports = {}", list(host.ports.iter().map(ToString::to_string))));
            }
            for (key, words) in [("methods", &host.methods), ("paths", &host.paths)] {
                if !words.is_empty() {
                    parts.push(format!("{key} = {}", list(words.iter().map(|word| string(word)))));
                }
            }
            if let Some(secret) = &host.secret {
                parts.push(format!("secret = {{ name = {}, how = {} }}", string(&secret.name), string(&secret.how)));
            }
            format!("{{ {} }}", parts.join(", "))
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn path(path: &Path) -> String {
    string(&path.to_string_lossy())
}

fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
