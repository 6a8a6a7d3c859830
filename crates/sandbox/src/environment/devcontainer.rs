//! The useful subset of `devcontainer.json`: from JSON with comments to a [`Recipe`].
//!
//! Taken: `image` (if the server has a layout of it), the three commands that prepare a container,
//! the one that starts it, variables and the workspace's place. Refused with a reason: whatever
//! would run on the host, mount from it, build an image or widen rights, because leaving it out in
//! silence would give another container than the file describes. Everything that only concerns an
//! editor is left out. Absent: reading the host's environment; `${localEnv:…}` is empty.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::recipe::{Allow, Base, Note, Recipe, RecipeError, SetupCommand, SetupNetwork, WORKSPACE};
use super::values;

/// Where such a file lies, in the order of looking.
pub const DEVCONTAINER_FILES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];

/// What the server offers for what the file cannot say.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// What setup may reach; the file has no word for it.
    pub setup_network: &'a [Allow],
    /// Image names and their layouts on this machine.
    pub images: &'a BTreeMap<String, PathBuf>,
}

/// Keys that are refused where they say something, and why.
const REFUSED: [(&str, &str); 12] = [
    (
        "build",
        "images are not built here; build it elsewhere, store it as an OCI layout and name that in .chargehand/environment.toml",
    ),
    (
        "dockerFile",
        "images are not built here; store one as an OCI layout and name that in .chargehand/environment.toml",
    ),
    ("dockerComposeFile", "a box is one container; start services with `start` in .chargehand/environment.toml"),
    (
        "features",
        "features are install scripts fetched from registries; write what they do as setup commands in .chargehand/environment.toml",
    ),
    (
        "mounts",
        "a box sees no host folder that the server does not permit; use read_only in .chargehand/environment.toml",
    ),
    ("workspaceMount", "the checkout is a layer and not a mount"),
    ("initializeCommand", "it would run on the host; setup runs only in boxes"),
    ("runArgs", "they are a container engine's; limits stand in .chargehand/environment.toml"),
    ("privileged", "a box has no rights over the host"),
    ("capAdd", "a box has no rights over the host"),
    ("securityOpt", "a box has no rights over the host"),
    ("secrets", "secrets are named by setup_secrets and network in .chargehand/environment.toml"),
];
/// Keys that mean nothing to a box.
const FOR_EDITORS: [&str; 20] = [
    "$schema",
    "name",
    "customizations",
    "extensions",
    "settings",
    "forwardPorts",
    "appPort",
    "portsAttributes",
    "otherPortsAttributes",
    "shutdownAction",
    "overrideCommand",
    "updateRemoteUserUID",
    "waitFor",
    "postAttachCommand",
    "userEnvProbe",
    "hostRequirements",
    "init",
    "overrideFeatureInstallOrder",
    "devPort",
    "workspaceTrust",
];
/// Keys whose commands are run once, in this order.
const SETUP: [&str; 3] = ["onCreateCommand", "updateContentCommand", "postCreateCommand"];
/// Keys that are read.
const READ: [&str; 7] =
    ["image", "postStartCommand", "containerEnv", "remoteEnv", "workspaceFolder", "remoteUser", "containerUser"];

/// The recipe, and what was left out of the file at `path`.
///
/// # Errors
/// [`RecipeError`] with the place, or with the key that is not supported and why.
pub fn parse(path: &str, bytes: &[u8], offer: Offer<'_>) -> Result<(Recipe, Vec<Note>), RecipeError> {
    let text = values::text(path, bytes)?;
    let plain = without_comments(text);
    let value: Value = serde_json::from_str(&plain).map_err(|error| RecipeError::NotUnderstood {
        file: path.to_owned(),
        line: error.line(),
        column: error.column(),
        // The reader's own words end with the place.
        problem: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
        instead: None,
    })?;
    let bad = |problem: String| RecipeError::BadValue { file: path.to_owned(), problem };
    let Value::Object(keys) = value else { return Err(bad("it has to be one JSON object".into())) };
    if let Some((what, why)) = REFUSED.iter().find(|(key, _)| keys.get(*key).is_some_and(says_something)) {
        return Err(RecipeError::Unsupported { file: path.to_owned(), what: (*what).into(), why: (*why).into() });
    }
    let mut reader = Reader { keys: &keys, folder: WORKSPACE.to_owned(), env: BTreeMap::new(), notes: Vec::new() };
    reader
        .notes
        .push(Note::new("", format!("taken from {path}; a .chargehand/environment.toml would be used instead")));
    let mut recipe = Recipe { setup_network: offer.setup_network.to_vec(), ..Recipe::default() };
    recipe.base = reader.base(path, offer.images)?;
    reader.place(&mut recipe).map_err(bad)?;
    reader.variables(&mut recipe).map_err(bad)?;
    reader.commands(&mut recipe).map_err(bad)?;
    reader.rest();
    values::check(&recipe).map_err(bad)?;
    Ok((recipe, reader.notes))
}

/// Whether a value is more than a way of saying nothing.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

struct Reader<'a> {
    keys: &'a Map<String, Value>,
    folder: String,
    env: BTreeMap<String, String>,
    notes: Vec<Note>,
}

impl Reader<'_> {
    fn base(&self, path: &str, images: &BTreeMap<String, PathBuf>) -> Result<Base, RecipeError> {
        let Some(image) = self.keys.get("image").and_then(Value::as_str) else { return Ok(Base::Host) };
        if let Some(layout) = images.get(image) {
            return Ok(Base::Oci { layout: layout.clone(), tag: None });
        }
        let known: Vec<&str> = images.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(RecipeError::Unsupported {
            file: path.to_owned(),
            what: format!("image {image}"),
            why: format!(
                "images are not pulled, and the server has no OCI layout under this name (it has: {known}); store one on the server, or use base in .chargehand/environment.toml"
            ),
        })
    }

    /// The file may want the checkout elsewhere; there is a link then.
    fn place(&mut self, recipe: &mut Recipe) -> Result<(), String> {
        let Some(folder) = self.keys.get("workspaceFolder") else { return Ok(()) };
        let folder = folder.as_str().ok_or("workspaceFolder has to be text")?;
        let folder = folder.replace("${localWorkspaceFolderBasename}", "workspace");
        if folder.contains("${") || !folder.starts_with('/') || folder.contains("..") || folder.contains('\'') {
            return Err(format!("workspaceFolder `{folder}` has to be an absolute path without variables"));
        }
        let folder = folder.trim_end_matches('/').to_owned();
        if folder.is_empty() || folder == WORKSPACE || folder.starts_with("/workspace/") {
            return Ok(());
        }
        let line = format!("mkdir -p \"$(dirname '{folder}')\" && ln -sfn {WORKSPACE} '{folder}'");
        self.notes.push(Note::new("setup.0", format!("the checkout lies at {WORKSPACE}; {folder} leads there")));
        recipe.setup.push(SetupCommand::offline(line));
        self.folder = folder;
        Ok(())
    }

    fn variables(&mut self, recipe: &mut Recipe) -> Result<(), String> {
        for key in ["containerEnv", "remoteEnv"] {
            let Some(value) = self.keys.get(key) else { continue };
            let table = value.as_object().ok_or_else(|| format!("{key} has to be an object"))?;
            for (name, value) in table {
                let written = match value {
                    Value::Null => {
                        self.env.remove(name);
                        continue;
                    }
                    Value::String(text) => text,
                    _ => return Err(format!("{key}.{name} has to be text")),
                };
                match self.expand(written) {
                    Some(text) => drop(self.env.insert(name.clone(), text)),
                    None => self.notes.push(Note::new(
                        "env",
                        format!("{name} is left out: `{written}` needs a variable that is only known in the container"),
                    )),
                }
            }
        }
        recipe.env = self.env.clone();
        Ok(())
    }

    /// Text with its `${…}` replaced; none if one is not known here.
    fn expand(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after.split_once('}')?;
            out.push_str(before);
            let basename = self.folder.rsplit('/').next().unwrap_or_default();
            match name.split_once(':') {
                None if matches!(name, "containerWorkspaceFolder" | "localWorkspaceFolder") => {
                    out.push_str(&self.folder)
                }
                None if name.ends_with("WorkspaceFolderBasename") => out.push_str(basename),
                // What the host's environment says is nobody's business in a box.
                Some(("localEnv", variable)) => {
                    out.push_str(variable.split_once(':').map_or("", |(_, default)| default))
                }
                Some(("containerEnv", variable)) => match variable.split_once(':') {
                    Some((variable, default)) => out.push_str(self.env.get(variable).map_or(default, String::as_str)),
                    None => out.push_str(self.env.get(variable)?),
                },
                _ => return None,
            }
            rest = behind;
        }
        out.push_str(rest);
        Some(out)
    }

    fn commands(&mut self, recipe: &mut Recipe) -> Result<(), String> {
        let network = if recipe.setup_network.is_empty() { SetupNetwork::None } else { SetupNetwork::Listed };
        for key in SETUP {
            for line in self.lines(key)? {
                self.notes.push(Note::new(format!("setup.{}", recipe.setup.len()), format!("from {key}")));
                recipe.setup.push(SetupCommand { network: network.clone(), ..SetupCommand::offline(line) });
            }
        }
        recipe.start = self.lines("postStartCommand")?;
        if !recipe.start.is_empty() {
            self.notes.push(Note::new("start", "from postStartCommand"));
        }
        if !recipe.setup.is_empty() && recipe.setup_network.is_empty() {
            let text = "setup has no network: the file has no word for it, and the server lists none for repositories without an environment.toml";
            self.notes.push(Note::new("setup", text));
        }
        Ok(())
    }

    /// The shell lines of a command: text is one, an array is one program with its arguments, and
    /// of an object each value is one of these (they run one after the other here).
    fn lines(&self, key: &str) -> Result<Vec<String>, String> {
        let one = |value: &Value| match value {
            Value::String(line) => Ok(line.clone()),
            Value::Array(words) => {
                let words: Option<Vec<String>> = words.iter().map(|word| Some(quoted(word.as_str()?))).collect();
                words.map(|words| words.join(" ")).ok_or_else(|| format!("{key} has to be made of text"))
            }
            _ => Err(format!("{key} has to be text, an array of texts, or an object of these")),
        };
        let lines = match self.keys.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(named)) => named.values().map(one).collect::<Result<_, _>>()?,
            Some(value) => vec![one(value)?],
        };
        let known = |line: &String| self.expand_line(line);
        Ok(lines.iter().map(known).filter(|line| !line.trim().is_empty()).collect())
    }

    /// In a command `${x}` may also be the shell's own; what is not known stays as it is.
    fn expand_line(&self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let end = from.find('}').map_or(from.len(), |end| end + 1);
            let (variable, behind) = from.split_at(end);
            match self.expand(variable) {
                Some(text) if !text.starts_with("${") => out.push_str(&text),
                _ => out.push_str(variable),
            }
            rest = behind;
        }
        out.push_str(rest);
        out
    }

    /// Says what was left out.
    fn rest(&mut self) {
        for key in self.keys.keys() {
            let known = READ.iter().chain(&SETUP).chain(&FOR_EDITORS).any(|known| known == key)
                || REFUSED.iter().any(|(refused, _)| refused == key);
            if matches!(key.as_str(), "remoteUser" | "containerUser") {
                self.notes.push(Note::new("", format!("{key} is left out: commands run as the box's own root")));
            } else if !known {
                self.notes.push(Note::new("", format!("{key} is left out: it is not known here")));
            }
        }
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// JSON out of JSON with comments and trailing commas; all that is left stays in its place, so
/// that places in errors are right.
fn without_comments(text: &str) -> String {
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let (mut in_string, mut comma) = (false, None);
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                '\\' => out.extend(chars.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match (c, chars.peek()) {
            ('/', Some('/')) => {
                out.push(' ');
                while let Some(skipped) = chars.next_if(|next| *next != '\n') {
                    out.push(if skipped == '\r' { '\r' } else { ' ' });
                }
                continue;
            }
            ('/', Some('*')) => {
                let mut last = ' ';
                out.push(' ');
                chars.next();
                out.push(' ');
                for skipped in chars.by_ref() {
                    out.push(if skipped == '\n' { '\n' } else { ' ' });
                    if last == '*' && skipped == '/' {
                        break;
                    }
                    last = skipped;
                }
                continue;
            }
            (']' | '}', _) => {
                if let Some(place) = comma.take().and_then(|at: usize| out.get_mut(at)) {
                    *place = ' ';
                }
            }
            _ => {}
        }
        if c == '"' {
            in_string = true;
        }
        if c == ',' {
            comma = Some(out.len());
        } else if !c.is_whitespace() {
            comma = None;
        }
        out.push(c);
    }
    out.into_iter().collect()
}
