//! A build: setup commands in a box of its own, and what they changed as a layer.
//!
//! ```text
//! layer there? ─yes→ done
//!   │no   box of an earlier, interrupted build goes
//!   ▼
//! start → command → what it left running is named and ended → next …      (first failure: stop)
//!   ▼
//! caches, temporary files, histories removed → stop → forbidden values looked for → first layer
//!   ▼
//! start on that → git index refreshed → second layer, under the key → box goes
//! ```
//!
//! There are two layers because git remembers inode numbers, and a file that setup changed gets
//! another one when it becomes part of a layer: only a box on the finished layer sees what forks
//! will see. The layer under the key is the mark that everything is there.
//!
//! The box's id comes from the key, so whatever interrupts a build, the next call with the same key
//! finds what is left: nothing, the first layer, or both. A layer appears whole or not at all. The caller lets only one build of a key
//! run at a time. Absent: the clock (durations come from the box), where the log goes, and the way
//! out: a door is a folder here, and which hosts it leads to was decided by who opened it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::id::{Digest, SandboxId};

use super::clean;
use super::forbidden::{self, Forbidden};
use super::recipe::SetupCommand;
use crate::port::{
    Ended, ExecOutcome, ExecRequest, Limits, Provider, ReadOnlyBind, Root, Sandbox, SandboxError, SnapshotRef,
    StartSpec,
};

/// How much of a failed command's output is told with the failure.
const TAIL_BYTES: usize = 4096;
const TAIL_LINES: usize = 20;
/// How long the platform's own commands in the box may take.
const OWN_TIME_LIMIT: Duration = Duration::from_secs(300);
/// Bytes of output that one setup command may write when the caller has no wish.
pub const DEFAULT_OUTPUT_CAP_BYTES: u64 = 64 << 20;

/// Names what still runs in the box besides the hand and the asking shell, with the shell alone.
const WHO_RUNS: &str = "for p in /proc/[0-9]*; do n=${p#/proc/}; [ \"$n\" = 1 ] || [ \"$n\" = \"$$\" ] || \
    { read -r c < \"$p/comm\" && echo \"$c\"; }; done 2>/dev/null; exit 0";
/// After this the first `git status` of a fork reads no file. Nothing that the tree says is run.
const REFRESH: &str = "[ -e .git ] && command -v git >/dev/null || exit 0; \
    git -c core.fsmonitor=false -c core.hooksPath=/dev/null update-index -q --refresh >/dev/null 2>&1; exit 0";

/// One setup command with its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The command.
    pub command: SetupCommand,
    /// The folder of a proxy that lets it reach what [`super::Recipe::reach`] says; none for nothing.
    pub door: Option<PathBuf>,
}

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// The environment's key; the layer gets it.
    pub key: Digest,
    /// What it is built on: base and checkout.
    pub below: SnapshotRef,
    /// Whose programs the box sees.
    pub root: Root,
    /// Setup, in order.
    pub steps: Vec<Step>,
    /// Variables of the box: the recipe's, the image's, the proxy's.
    pub env: Vec<(String, String)>,
    /// Files under `/run` that programs need to find a way out; written at every start with one, and
    /// gone with `/run` in the end.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Host paths that the box reads.
    pub binds: Vec<ReadOnlyBind>,
    /// Limits of the box.
    pub limits: Limits,
    /// Where commands begin; absolute.
    pub workdir: PathBuf,
    /// Cache folders that stay.
    pub caches: Vec<PathBuf>,
    /// Bytes of output after which a command is ended.
    pub output_cap_bytes: u64,
    /// Values that must not be in the layer.
    pub forbidden: Vec<Forbidden>,
}

/// A finished build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// What attempts start from.
    pub snapshot: SnapshotRef,
    /// True if the layer was there already and nothing ran.
    pub found: bool,
    /// Wall time of the setup commands together, in milliseconds.
    pub setup_ms: u64,
    /// Programs that setup left running, by name; they were ended and are not in the snapshot. What
    /// has to run belongs under `start`.
    pub leftovers: Vec<String>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

/// A setup command that did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCommand {
    /// Which, counted from 0.
    pub number: usize,
    /// Its line.
    pub run: String,
    /// How it ended.
    pub ended: Ended,
    /// Wall time, in milliseconds.
    pub duration_ms: u64,
    /// Its last lines of output, both streams as they came.
    pub last_lines: Vec<String>,
}

/// Why there is no environment. No box is left, and no part of a layer.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    /// A setup command failed or was ended.
    #[error("setup command {} of the environment, `{}`, {} after {} ms{}", .0.number + 1, .0.run, how(&.0.ended), .0.duration_ms, last_words(&.0.last_lines))]
    Command(Box<FailedCommand>),
    /// A forbidden value is in a file. Setup cannot have it from this platform.
    #[error("the value of the secret {name} is in {} of the environment; nothing was kept. Secrets are added outside the box, so look how it came in", .path.display())]
    SecretInSnapshot {
        /// Of the secret.
        name: String,
        /// In the box; of a file whose name is the value, the folder.
        path: PathBuf,
    },
    /// What must not stay could not be removed.
    #[error("what must not stay in the environment could not be removed: {detail}")]
    NotCleaned {
        /// What the box said.
        detail: String,
    },
    /// The box could not be had, or was lost.
    #[error("building the environment failed while {doing}: {source}")]
    Sandbox {
        /// What was tried.
        doing: &'static str,
        /// The cause.
        source: SandboxError,
    },
}

/// How a command ended, for people.
fn how(ended: &Ended) -> String {
    match ended {
        Ended::Exited { code } => format!("ended with exit code {code}"),
        Ended::Signaled { signal } => format!("was ended by signal {signal}"),
        Ended::TimedOut => "was ended at its time limit".into(),
        Ended::OutputCapReached => "was ended because it wrote more output than is allowed".into(),
        Ended::OutOfMemory => "was ended because the box was out of memory".into(),
        Ended::TooManyProcesses => "failed because the box had as many processes as it may have".into(),
        Ended::DiskFull => "was ended because the box's disk space was used up".into(),
        Ended::FileTooLarge => "was ended because a file became larger than is allowed".into(),
        Ended::Killed => "was ended from outside".into(),
        Ended::NotStarted { message } => format!("could not be started ({message})"),
    }
}

fn last_words(lines: &[String]) -> String {
    if lines.is_empty() { ", without a word".into() } else { format!("; its last lines:\n{}", lines.join("\n")) }
}

/// Takes the log: what runs, what it says, how it ended. Gives what may be told of it: the same bytes
/// without what nobody may read, perhaps later than they came.
///
/// Contract: must not block for long and must not panic.
pub type LogSink<'a> = &'a mut (dyn FnMut(&[u8]) -> Vec<u8> + Send);

/// The id of the box in which the environment of this key is built.
///
/// # Errors
/// Never for a digest; typed because ids are checked.
pub fn build_box(key: &Digest) -> Result<SandboxId, SandboxError> {
    let name = format!("env-{}", key.as_str().get(..24).unwrap_or_default());
    SandboxId::parse(&name).map_err(|error| SandboxError::Start { step: "id".into(), detail: error.to_string() })
}

/// The key of the layer with what setup made; the layer under the environment's own key lies on it.
fn files_key(key: &Digest) -> Digest {
    Digest::of(format!("environment files\n{key}").as_bytes())
}

/// Builds the environment, or finds it built. Dropping the future leaves the box; the next call with
/// the same key removes it.
///
/// # Errors
/// [`BuildFailure`] says what failed; the log has all of it.
pub async fn build(provider: &dyn Provider, spec: &BuildSpec, log: LogSink<'_>) -> Result<Built, BuildFailure> {
    let failed = |doing| move |source| BuildFailure::Sandbox { doing, source };
    let id = build_box(&spec.key).map_err(failed("naming its box"))?;
    provider.destroy(&id).await.map_err(failed("removing the box of an earlier try"))?;
    let there = |key: Digest| async move { provider.prepared(&key).await.map(|layer| layer.is_some()) };
    let files = files_key(&spec.key);
    let mut built = Built::default();
    let files_there = there(files.clone()).await.map_err(failed("looking for its files"))?;
    if files_there && there(spec.key.clone()).await.map_err(failed("looking for it"))? {
        let layers = spec.below.layers.iter().cloned().chain([files, spec.key.clone()]).collect();
        return Ok(Built { snapshot: SnapshotRef { layers }, found: true, ..built });
    }
    let run = Run { provider, spec, id: &id };
    let done = async {
        if !files_there {
            run.setup(&files, &mut built, log).await?;
        }
        run.refresh(&files, built).await
    };
    let done = done.await;
    let gone = provider.destroy(&id).await;
    match (&done, gone) {
        // The layer is there; its box is the sweeper's.
        (Ok(_), Err(error)) => tracing::warn!(%id, %error, "the box of a build is left for the sweeper"),
        (Err(_), Err(error)) => tracing::warn!(%id, %error, "the box of a failed build is left for the next try"),
        (_, Ok(())) => {}
    }
    done
}

/// One build under way.
struct Run<'a> {
    provider: &'a dyn Provider,
    spec: &'a BuildSpec,
    id: &'a SandboxId,
}

impl Run<'_> {
    /// Runs setup on what is below and keeps the result as the layer `files`.
    async fn setup(&self, files: &Digest, built: &mut Built, log: LogSink<'_>) -> Result<(), BuildFailure> {
        let failed = |doing| move |source| BuildFailure::Sandbox { doing, source };
        let below = &self.spec.below;
        let mut open: Option<(Option<PathBuf>, Arc<dyn Sandbox>)> = None;
        for (number, step) in self.spec.steps.iter().enumerate() {
            let sandbox = match open.take().filter(|(door, _)| *door == step.door) {
                Some((_, sandbox)) => sandbox,
                None => {
                    // Another way out needs other processes; the files stay.
                    self.provider.stop(self.id).await.map_err(failed("changing its way out"))?;
                    self.start(below, step.door.clone()).await?
                }
            };
            built.setup_ms += self.command(&sandbox, number, &step.command, log).await?;
            for name in self.end_leftovers(&sandbox, number).await? {
                log(format!("chargehand: `{name}` was left running and is ended\n").as_bytes());
                built.leftovers.push(name);
            }
            open = Some((step.door.clone(), sandbox));
        }
        let sandbox = match open {
            Some((_, sandbox)) => sandbox,
            None => self.start(below, None).await?,
        };
        self.clean(&sandbox, &mut built.notes).await?;
        drop(sandbox);
        self.provider.stop(self.id).await.map_err(failed("stopping its box"))?;
        self.look_for_secrets().await?;
        self.provider.snapshot(self.id, files).await.map(drop).map_err(failed("keeping what was made"))
    }

    /// Makes git look at the files as forks will see them, and keeps that under the key.
    async fn refresh(&self, files: &Digest, built: Built) -> Result<Built, BuildFailure> {
        let failed = |doing| move |source| BuildFailure::Sandbox { doing, source };
        let layers = self.spec.below.layers.iter().cloned().chain([files.clone()]).collect();
        let sandbox = self.start(&SnapshotRef { layers }, None).await?;
        self.own(&sandbox, "refresh", REFRESH).await?;
        drop(sandbox);
        let snapshot = self.provider.snapshot(self.id, &self.spec.key).await.map_err(failed("finishing it"))?;
        Ok(Built { snapshot, ..built })
    }

    async fn start(&self, snapshot: &SnapshotRef, door: Option<PathBuf>) -> Result<Arc<dyn Sandbox>, BuildFailure> {
        let spec = self.spec;
        let files = if door.is_some() { spec.files.as_slice() } else { &[] };
        let start = StartSpec {
            id: self.id.clone(),
            snapshot: snapshot.clone(),
            root: spec.root,
            door,
            limits: spec.limits,
            env: spec.env.clone(),
            binds: spec.binds.clone(),
            workdir: spec.workdir.clone(),
        };
        let failed = |source| BuildFailure::Sandbox { doing: "starting its box", source };
        let sandbox = self.provider.start(start).await.map_err(failed)?.sandbox;
        for (path, bytes) in files {
            sandbox.write(path, bytes, None).await.map_err(failed)?;
        }
        Ok(sandbox)
    }

    /// Runs one setup command; gives its wall time in milliseconds.
    async fn command(
        &self,
        sandbox: &Arc<dyn Sandbox>,
        number: usize,
        command: &SetupCommand,
        log: LogSink<'_>,
    ) -> Result<u64, BuildFailure> {
        log(format!("$ {}\n", command.run).as_bytes());
        let request = ExecRequest {
            time_limit: Duration::from_secs(command.time_limit_s),
            output_cap_bytes: self.spec.output_cap_bytes,
            ..ExecRequest::shell(exec_id(number), &command.run)
        };
        let mut tail = Tail::default();
        let outcome = sandbox
            .exec(request, &mut |chunk| {
                tail.push(&log(&chunk.bytes));
            })
            .await
            .map_err(|source| BuildFailure::Sandbox { doing: "running a setup command", source })?;
        if outcome.ended == (Ended::Exited { code: 0 }) {
            return Ok(outcome.duration_ms);
        }
        // What was held back because more of it might have come.
        tail.push(&log(b"\n"));
        log(format!("chargehand: the command {} after {} ms\n", how(&outcome.ended), outcome.duration_ms).as_bytes());
        Err(BuildFailure::Command(Box::new(FailedCommand {
            number,
            run: command.run.clone(),
            ended: outcome.ended,
            duration_ms: outcome.duration_ms,
            last_lines: tail.lines(),
        })))
    }

    /// Names and ends what a command left running.
    async fn end_leftovers(&self, sandbox: &Arc<dyn Sandbox>, number: usize) -> Result<Vec<String>, BuildFailure> {
        let failed = |source| BuildFailure::Sandbox { doing: "ending what setup left running", source };
        let command = exec_id(number);
        let mut names = Vec::new();
        if self.provider.busy(self.id, "").await.map_err(failed)? {
            let mut said = Vec::new();
            let request =
                ExecRequest { time_limit: OWN_TIME_LIMIT, ..ExecRequest::shell(format!("who-{number}"), WHO_RUNS) };
            sandbox.exec(request, &mut |chunk| said.extend(chunk.bytes)).await.map_err(failed)?;
            names = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
        }
        sandbox.kill(&command).await.map_err(failed)?;
        sandbox.acknowledge(&command).await.map_err(failed)?;
        Ok(names)
    }

    /// Removes what must not stay.
    async fn clean(&self, sandbox: &Arc<dyn Sandbox>, notes: &mut Vec<String>) -> Result<(), BuildFailure> {
        let script = clean::script(&clean::what_goes(&self.spec.caches));
        let (outcome, said) = self.own(sandbox, "clean", &script).await?;
        match outcome.ended {
            Ended::Exited { code: 0 } => Ok(()),
            Ended::Exited { code: 127 } | Ended::NotStarted { .. } => {
                notes.push("the root has no shell or no rm; temporary files and caches stay in the environment".into());
                Ok(())
            }
            other => Err(BuildFailure::NotCleaned { detail: format!("{}: {said}", how(&other)) }),
        }
    }

    /// Runs one of the platform's own shell lines in the box.
    async fn own(
        &self,
        sandbox: &Arc<dyn Sandbox>,
        name: &str,
        line: &str,
    ) -> Result<(ExecOutcome, String), BuildFailure> {
        let mut said = Tail::default();
        let request = ExecRequest { time_limit: OWN_TIME_LIMIT, ..ExecRequest::shell(name, line) };
        let outcome = sandbox.exec(request, &mut |chunk| said.push(&chunk.bytes)).await;
        let outcome = outcome.map_err(|source| BuildFailure::Sandbox { doing: "making it ready to keep", source })?;
        Ok((outcome, said.lines().join("\n")))
    }

    async fn look_for_secrets(&self) -> Result<(), BuildFailure> {
        let forms = forbidden::forms(&self.spec.forbidden);
        let patterns = forms.iter().map(|(_, form)| form.clone()).collect();
        let found = self.provider.search(self.id, patterns).await;
        let found = found.map_err(|source| BuildFailure::Sandbox { doing: "looking for secrets in it", source })?;
        let Some(found) = found else { return Ok(()) };
        let secret = forms.get(found.pattern).and_then(|(number, _)| self.spec.forbidden.get(*number));
        let name = secret.map(|secret| secret.name.clone()).unwrap_or_default();
        // The value may be the name of the file: then its folder is told.
        let path = Path::new("/").join(found.path);
        let told = path.ancestors().find(|path| !forbidden::shows(path, &forms)).unwrap_or(Path::new("/"));
        Err(BuildFailure::SecretInSnapshot { name, path: told.to_owned() })
    }
}

fn exec_id(number: usize) -> String {
    format!("setup-{number}")
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let fresh = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        self.bytes.extend_from_slice(fresh);
        let over = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.bytes.drain(..over);
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let last = lines.len().saturating_sub(TAIL_LINES);
        lines.get(last..).unwrap_or_default().iter().map(|line| (*line).to_owned()).collect()
    }
}
