//! What is read from the base commit before an agent begins: gates, and instructions for agents.
//!
//! Always from the base commit, never from the agent's tree. Absent: what gates mean (`gates`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use domain::effect::{FailureClass, FailureSource};
use domain::event::Event;
use domain::id::{CommitSha, Digest};
use domain::task::Task;
use forge::{EntryKind, Project};

use crate::failure::Failure;
use crate::ports::Ports;

/// Files that speak to agents, the first that exists.
const INSTRUCTION_FILES: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];
/// Most bytes of a file that is read here.
pub(crate) const MAX_FILE_BYTES: u64 = 256 * 1024;
/// How often detection may ask for further files.
const MAX_ROUNDS: usize = 4;

/// The gates of a task, as the event that records them.
pub(crate) async fn choose_gates(ports: &Ports, project: &Project, task: &Task) -> Result<Event, Failure> {
    let base = &task.spec.repo.base;
    let user = |message: String| Failure::new(FailureClass::Final, FailureSource::User, message);
    let entries = ports.forge.list_files(project, base, forge::Depth::Root).await?;
    let names: Vec<&str> = entries.iter().filter_map(|entry| entry.path.as_str()).collect();
    let file =
        if names.contains(&".chargehand") { plain_file(ports, project, base, gates::CONFIG_PATH).await? } else { None };
    let config = match &file {
        Some(bytes) => Some(gates::parse(bytes).map_err(|error| user(error.to_string()))?),
        None => None,
    };
    let detects = config.as_ref().is_none_or(|config| config.gates == gates::GateChoice::Detect);
    let detected = if detects { detect(ports, project, task, &names).await? } else { Vec::new() };
    let gates =
        gates::choose(config.as_ref(), detected, &task.spec.contract.gates).map_err(|error| user(error.to_string()))?;
    Ok(Event::GatesChosen { gates, config_digest: file.as_deref().map(Digest::of) })
}

/// A file of the repository's own settings. Something else in its place would be settings that nobody
/// reads: an error, so that no rule is lost.
pub(crate) async fn plain_file(
    ports: &Ports,
    project: &Project,
    commit: &CommitSha,
    path: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(bytes) = ports.forge.read_file(project, commit, path, MAX_FILE_BYTES).await? {
        return Ok(Some(bytes));
    }
    let folder = path.split('/').next().unwrap_or(path);
    let of_folder = ports.forge.kind_at(project, commit, folder).await?;
    let wrong = match of_folder {
        Some(EntryKind::Folder) => ports.forge.kind_at(project, commit, path).await?.map(|_| path),
        Some(_) => Some(folder),
        None => None,
    };
    match wrong {
        None => Ok(None),
        Some(wrong) => Err(Failure::new(
            FailureClass::Final,
            FailureSource::User,
            format!(
                "{wrong} is a link, a submodule or something else that is not read; commit a plain file, or remove it"
            ),
        )),
    }
}

/// Detection is pure and asks for files by name: it is run again with those it asked for.
async fn detect(
    ports: &Ports,
    project: &Project,
    task: &Task,
    names: &[&str],
) -> Result<Vec<domain::evidence::GateSpec>, Failure> {
    let mut files: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let (found, wanted) = detect_with(names, &files);
        if wanted.is_empty() {
            return Ok(found);
        }
        for path in wanted {
            let bytes = match ports.forge.read_file(project, &task.spec.repo.base, &path, MAX_FILE_BYTES).await {
                Ok(bytes) => bytes,
                // A file too large to be looked at gives nothing away.
                Err(forge::ReadError::TooLarge { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            files.insert(path, bytes);
        }
    }
    Ok(detect_with(names, &files).0)
}

fn detect_with(
    names: &[&str],
    files: &BTreeMap<String, Option<Vec<u8>>>,
) -> (Vec<domain::evidence::GateSpec>, BTreeSet<String>) {
    let wanted = RefCell::new(BTreeSet::new());
    let found = gates::detect(names, &|path| match files.get(path) {
        Some(bytes) => bytes.clone(),
        None => {
            wanted.borrow_mut().insert(path.to_owned());
            None
        }
    });
    (found, wanted.into_inner())
}

/// The repository's own instructions for agents. A repository without them is no error.
pub(crate) async fn instructions(
    ports: &Ports,
    project: &Project,
    task: &Task,
) -> Result<Option<(String, String)>, Failure> {
    for file in INSTRUCTION_FILES {
        match ports.forge.read_file(project, &task.spec.repo.base, file, MAX_FILE_BYTES).await {
            Ok(Some(bytes)) => return Ok(Some((file.to_owned(), String::from_utf8_lossy(&bytes).into_owned()))),
            Ok(None) => {}
            Err(forge::ReadError::TooLarge { bytes, .. }) => {
                let text = format!("({file} has {bytes} bytes, too many to be shown here; read it in /workspace)");
                return Ok(Some((file.to_owned(), text)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
