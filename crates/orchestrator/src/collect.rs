//! How files come out of a box: as commits in a bundle that the box makes and the host distrusts.
//!
//! Absent: what becomes of them. The agent's result and the files of a step come out the same way.

use std::ffi::OsString;
use std::path::PathBuf;

use agent::tools::run::{Wanted, run_command};
use domain::effect::{FailureClass, FailureSource};
use domain::evidence::CommandEnd;
use domain::id::{CommitSha, TaskId};
use domain::task::Task;
use forge::{Import, ImportLimits, Imported, Project};
use sandbox::Sandbox;

use crate::failure::Failure;
use crate::ports::{Ports, Settings};

/// How long git may take in the box to put the result together.
const COLLECT_MS: u64 = 10 * 60 * 1000;

/// Puts the result together inside the box, as commits on top of the base, in a bundle.
///
/// The commit is dated with the task's acceptance, so that the same tree is the same commit and needs
/// no second proof. It runs in the agent's box, where git may run whatever the agent planted: nothing of it is
/// trusted before the host has checked the bundle.
const COLLECT: &str = r#"
set -eu
cd /workspace
base=$1 message=$2 out=$3
export GIT_AUTHOR_DATE=$4 GIT_COMMITTER_DATE=$4
rm -f "$out" .git/index.lock
export GIT_AUTHOR_NAME=Chargehand GIT_AUTHOR_EMAIL=agent@chargehand.invalid
export GIT_COMMITTER_NAME=Chargehand GIT_COMMITTER_EMAIL=agent@chargehand.invalid
g() { git -c core.hooksPath=/dev/null -c commit.gpgSign=false -c core.fsmonitor=false "$@"; }
if ! g add -A 2>/dev/null; then
  # A repository inside this one that has no commit can't be added, and would keep all else in.
  set --
  for inner in $(find . -mindepth 2 -name .git -not -path './.git/*' 2>/dev/null); do
    inside=${inner%/.git}
    if ! git -C "$inside" rev-parse -q --verify HEAD >/dev/null 2>&1; then
      echo "left out $inside"
      set -- "$@" ":(exclude)${inside#./}"
    fi
  done
  g add -A -- . "$@"
fi
tree=$(g write-tree)
if [ "$tree" = "$(g rev-parse "$base^{tree}")" ]; then echo unchanged; exit 0; fi
head=$(g rev-parse -q --verify HEAD || echo "$base")
g merge-base --is-ancestor "$base" "$head" || head=$base
if [ "$tree" != "$(g rev-parse "$head^{tree}")" ]; then
  head=$(printf '%s\n' "$message" | g commit-tree "$tree" -p "$head")
fi
g update-ref refs/heads/chargehand-result "$head"
g bundle create -q "$out" "$base..refs/heads/chargehand-result"
echo collected
"#;

/// What a base of its own needs.
pub(crate) const NO_GIT: &str = "the environment has no shell or no git, which boxes need for commits to go in and out; add them to its base or setup";

/// Where the bundle lies in the box.
const BUNDLE: &str = "/tmp/.chargehand-result.bundle";

/// What came out.
pub(crate) struct Collected {
    pub(crate) head: CommitSha,
    /// Remarks for people.
    pub(crate) notes: Vec<String>,
}

/// One way out of one box.
pub(crate) struct Collecting<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) settings: &'a Settings,
    pub(crate) project: &'a Project,
    pub(crate) task: &'a Task,
    /// In whose name the hub keeps the commits.
    pub(crate) owner: &'a TaskId,
    /// Of the platform's commit.
    pub(crate) message: &'a str,
    pub(crate) hands: &'a dyn Sandbox,
    /// Names the command in the box and the folder on the host.
    pub(crate) name: &'a str,
}

impl Collecting<'_> {
    /// What differs from the task's base, as commits in the hub; nothing if nothing differs.
    pub(crate) async fn collect(&self) -> Result<Option<Collected>, Failure> {
        let (task, hands) = (self.task, self.hands);
        let base = &task.spec.repo.base;
        let date = format!("{} +0000", task.submitted_at.as_second());
        let argv =
            ["sh", "-c", COLLECT, "collect", base.as_str(), self.message, BUNDLE, &date].map(OsString::from).to_vec();
        let wanted = Wanted { argv, time_limit_ms: COLLECT_MS, max_output_bytes: 1 << 20 };
        let finished = run_command(hands, self.name, wanted, &|_| ()).await?;
        if !finished.end.succeeded() {
            let (end, tail) = (&finished.end, finished.tail());
            let why = match end {
                CommandEnd::Exited { code: 127 } | CommandEnd::NotStarted { .. } => NO_GIT.to_owned(),
                _ => format!("the result could not be put together in the sandbox ({end}): {}", tail.trim()),
            };
            // What the agent left can be mended by the agent.
            return Err(Failure::new(FailureClass::Final, FailureSource::Model, why));
        }
        let said = finished.tail();
        let left_out: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("left out ")).collect();
        if said.trim_end().ends_with("unchanged") {
            return Ok(None);
        }
        let folder = self.folder()?;
        let bundle = folder.join("result.bundle");
        let copied = hands.copy_out(&PathBuf::from(BUNDLE), &bundle, self.settings.max_bundle_bytes).await;
        let imported = match copied {
            Ok(_) => {
                let limits = ImportLimits { bundle_bytes: self.settings.max_bundle_bytes, ..ImportLimits::default() };
                let import = Import { task: self.owner, base, bundle: &bundle, limits };
                self.ports.forge.import(self.project, &import).await.map_err(Failure::from)
            }
            Err(error) => Err(Failure::from(error)),
        };
        let _ = std::fs::remove_dir_all(&folder);
        let Imported { head, notes, .. } = imported?;
        let left_out = left_out
            .into_iter()
            .map(|path| format!("{path} is a git repository without a commit inside the work tree; it was left out"));
        Ok(Some(Collected { head, notes: notes.iter().map(ToString::to_string).chain(left_out).collect() }))
    }

    /// A folder of this way's own, for the bundle.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let folder = self.settings.scratch.join(format!("{}-{}", self.task.id, self.name));
        let made = std::fs::remove_dir_all(&folder)
            .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
        made.and_then(|()| std::fs::create_dir_all(&folder))
            .map_err(|error| Failure::infra(format!("can't make {}: {error}", folder.display())))?;
        Ok(folder)
    }
}

/// The message of the platform's own commit.
pub(crate) fn commit_message(task: &Task) -> String {
    let goal = task.spec.goal.trim();
    let first: String = goal.lines().next().unwrap_or_default().chars().take(72).collect();
    let rest = if first.len() == goal.len() { String::new() } else { format!("\n{goal}\n") };
    format!(
        "{first}\n{rest}\nTask: {}\nAgent: {}\nRequested-by: {}",
        task.id,
        task.spec.agent.name(),
        task.requester.name
    )
}
