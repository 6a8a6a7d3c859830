//! The one place from which forge starts git, and what git is allowed to notice when it does.
//!
//! Each call names its place, and the place decides whose settings count:
//!
//! | place | repository | whose settings |
//! |---|---|---|
//! | [`Git::hub`] | a bare repository that the host owns | ours alone |
//! | [`Git::fresh`] | a work tree that the host is just making and nobody else has yet | ours alone |
//! | [`Git::read_origin`] | the person's own repository, read only | its own, with everything that runs a program overridden |
//! | [`Git::nowhere`] | none | ours alone |
//! | [`Git::person`] | the person's own work tree, when they asked for it to move along | the person's, hooks and monitor aside |
//!
//! Fetches and pushes start in the hub; at their far end `git upload-pack` or `git receive-pack`
//! runs in the origin with the origin's own settings. Upload-pack runs nothing from there; for
//! receive-pack see `push`.
//!
//! Absent: any call in a tree that an agent could have written. There is no constructor for one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run::{self, Job, Limits, RunError};

/// The oldest git that has what is needed here (`merge-tree --write-tree`, `worktree list -z`).
pub const MIN_GIT: (u32, u32) = (2, 39);

/// What overrides settings in every place but the person's own.
const HARDENING: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.askPass", ""),
    ("core.pager", "cat"),
    ("credential.helper", ""),
    ("protocol.allow", "never"),
    ("protocol.ext.allow", "never"),
    ("protocol.file.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.http.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("protocol.git.allow", "always"),
    ("transfer.fsckObjects", "true"),
    ("fetch.unpackLimit", "1"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
    ("push.gpgSign", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.logAllRefUpdates", "false"),
    ("core.quotePath", "false"),
    ("core.bigFileThreshold", "16m"),
    ("http.followRedirects", "initial"),
];

/// Why a git command gave no answer. All but `Failed` are about this machine, not the repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no such program.
    #[error("git was not found (looked for `{}`): install git {}.{} or newer", program.display(), MIN_GIT.0, MIN_GIT.1)]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// The program is too old, or doesn't say what it is.
    #[error("git {}.{} or newer is needed, but `{}` says `{found}`", MIN_GIT.0, MIN_GIT.1, program.display())]
    TooOld {
        /// Which program.
        program: PathBuf,
        /// What it printed.
        found: String,
    },
    /// It could not be started.
    #[error("`{command}` could not be started")]
    Start {
        /// The command, shortened.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection to it broke.
    #[error("`{command}` could not be followed")]
    Pipe {
        /// The command, shortened.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long and was ended.
    #[error("`{command}` was not done after {limit_s} s and was ended{}", said(stderr))]
    TimedOut {
        /// The command, shortened.
        command: String,
        /// The limit.
        limit_s: u64,
        /// The end of its standard error.
        stderr: String,
    },
    /// It said more than is taken.
    #[error("`{command}` printed more than {limit_bytes} bytes and was ended")]
    TooMuchOutput {
        /// The command, shortened.
        command: String,
        /// The limit.
        limit_bytes: usize,
    },
    /// It failed.
    #[error("`{command}` failed ({end}){}", said(stderr))]
    Failed {
        /// The command, shortened.
        command: String,
        /// Its exit code or signal.
        end: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// It succeeded but printed something else than it should.
    #[error("`{command}` printed something unexpected: {what}")]
    Unexpected {
        /// The command, shortened.
        command: String,
        /// What.
        what: String,
    },
}

fn said(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl GitError {
    /// The end of git's standard error where the command itself failed, else nothing.
    pub(crate) fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } => stderr,
            _ => "",
        }
    }
}

/// The git program and what it is given to see of this machine.
#[derive(Debug)]
pub(crate) struct Git {
    pub program: PathBuf,
    /// An empty folder.
    pub home: PathBuf,
    pub search_path: OsString,
    /// Variables of the person whose origins these are; see `ForgeConfig::person_env`.
    pub person_env: Vec<(OsString, OsString)>,
    pub time_limit: Duration,
}

/// Whose settings a call sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    OursAlone,
    Persons,
}

/// One git command, put together.
pub(crate) struct Call<'g> {
    git: &'g Git,
    cwd: PathBuf,
    seen: Seen,
    env: Vec<(OsString, OsString)>,
    config: Vec<(OsString, OsString)>,
    args: Vec<OsString>,
    stdin: Vec<u8>,
    limits: Limits,
    secret: Option<String>,
}

/// What git answered. The exit code is looked at by whoever asked for it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub truncated: bool,
    pub stderr: String,
    command: String,
}

impl Answer {
    /// This answer as a failure.
    pub fn failure(self) -> GitError {
        let end = if self.code >= 0 { format!("exit {}", self.code) } else { format!("signal {}", -self.code) };
        GitError::Failed { command: self.command, end, stderr: self.stderr }
    }
    /// The answer to a yes/no question: exit 0 or 1.
    pub fn yes_or_no(self) -> Result<bool, GitError> {
        match self.code {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(self.failure()),
        }
    }
    /// Standard output without the last line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }
}

impl Git {
    /// A call in a bare repository of the host.
    pub fn hub(&self, hub: &Path) -> Call<'_> {
        self.call(hub, Seen::OursAlone).env("GIT_DIR", hub)
    }

    /// A call in a work tree that the host is making and has given to nobody yet.
    pub fn fresh(&self, tree: &Path) -> Call<'_> {
        self.call(tree, Seen::OursAlone).env("GIT_DIR", tree.join(".git")).env("GIT_WORK_TREE", tree)
    }

    /// A call that reads the person's own repository. It takes no locks and writes nothing.
    pub fn read_origin(&self, dir: &Path) -> Call<'_> {
        self.call(dir, Seen::OursAlone).env("GIT_OPTIONAL_LOCKS", "0")
    }

    /// A call outside any repository.
    pub fn nowhere(&self) -> Call<'_> {
        self.call(&self.home, Seen::OursAlone).env("GIT_DIR", "/dev/null")
    }

    /// A call in the person's own work tree with the person's own settings, so that line ends and
    /// large-file filters come out as they would by hand. Hooks stay off: a hook folder inside the
    /// tree would be content of the commit that is just arriving.
    pub fn person(&self, tree: &Path) -> Call<'_> {
        self.call(tree, Seen::Persons)
    }

    fn call(&self, cwd: &Path, seen: Seen) -> Call<'_> {
        Call {
            git: self,
            cwd: cwd.to_owned(),
            seen,
            env: Vec::new(),
            config: Vec::new(),
            args: Vec::new(),
            stdin: Vec::new(),
            limits: Limits {
                time: self.time_limit,
                stdout_bytes: 64 << 20,
                truncate: false,
                memory_and_file_bytes: None,
            },
            secret: None,
        }
    }

    /// The version, if it is new enough.
    pub async fn version(&self) -> Result<(u32, u32), GitError> {
        let text = self.nowhere().args(["version"]).text().await?;
        let mut numbers = text.trim_start_matches("git version ").split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= MIN_GIT => Ok((major, minor)),
            _ => Err(GitError::TooOld { program: self.program.clone(), found: text.chars().take(80).collect() }),
        }
    }
}

impl Call<'_> {
    /// Adds arguments. Anything from outside goes after `--end-of-options` or `--`.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds one argument.
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Overrides a setting. The key may contain anything.
    pub fn config(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.config.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives bytes on standard input.
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = bytes;
        self
    }

    /// Sets how much output is taken before the call fails.
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.limits.stdout_bytes = bytes;
        self
    }

    /// Sets how much output is taken before it is cut off.
    pub fn truncate_output(mut self, bytes: usize) -> Self {
        self.limits.stdout_bytes = bytes;
        self.limits.truncate = true;
        self
    }

    /// Limits the private memory of each process and the size of each file that it writes.
    pub fn restrict(mut self, memory_bytes: u64, file_bytes: u64) -> Self {
        self.limits.memory_and_file_bytes = Some((memory_bytes, file_bytes));
        self
    }

    /// Lets this call reach an origin: with the person's variables (agent socket, proxy, home
    /// folder for ssh and .netrc), and without this secret in anything that is shown.
    pub fn towards_origin(mut self, secret: Option<&str>) -> Self {
        let persons = self.git.person_env.iter().filter(|(name, _)| !name.as_bytes().starts_with(b"GIT_CONFIG"));
        self.env.extend(persons.cloned());
        self.env.push(("GIT_SSH_COMMAND".into(), "ssh -o BatchMode=yes".into()));
        self.secret = secret.map(str::to_owned);
        self
    }

    /// Runs it, whatever the exit code.
    pub async fn run(self) -> Result<Answer, GitError> {
        let args = self.all_args();
        let env = self.all_env();
        let command = self.shown();
        let job = Job {
            program: &self.git.program,
            args: &args,
            cwd: &self.cwd,
            env: &env,
            stdin: &self.stdin,
            limits: self.limits,
        };
        tracing::trace!(command, cwd = %self.cwd.display(), "git");
        match run::run(&job).await {
            Ok(ran) => Ok(Answer {
                code: ran.status.code().unwrap_or_else(|| -ran.status.signal().unwrap_or(1)),
                stdout: ran.stdout,
                truncated: ran.truncated,
                stderr: self.redact(&ran.stderr_tail),
                command,
            }),
            Err(RunError::Missing(program)) => Err(GitError::Missing { program }),
            Err(RunError::Start(source)) => Err(GitError::Start { command, source }),
            Err(RunError::Pipe(source)) => Err(GitError::Pipe { command, source }),
            Err(RunError::TimedOut { stderr_tail }) => Err(GitError::TimedOut {
                command,
                limit_s: self.limits.time.as_secs(),
                stderr: self.redact(&stderr_tail),
            }),
            Err(RunError::TooMuchOutput) => {
                Err(GitError::TooMuchOutput { command, limit_bytes: self.limits.stdout_bytes })
            }
        }
    }

    /// Runs it; anything but exit 0 (or output cut off on purpose) is an error.
    pub async fn ok(self) -> Result<Answer, GitError> {
        let answer = self.run().await?;
        if answer.code == 0 || answer.truncated { Ok(answer) } else { Err(answer.failure()) }
    }

    /// Runs it and gives standard output as text without the last line end.
    pub async fn text(self) -> Result<String, GitError> {
        Ok(self.ok().await?.text())
    }

    fn all_args(&self) -> Vec<OsString> {
        let mut all = vec![OsString::from("--no-pager")];
        let mut set = |key: &str, value: &str| {
            all.push("-c".into());
            all.push(format!("{key}={value}").into());
        };
        match self.seen {
            Seen::OursAlone => HARDENING.iter().for_each(|(key, value)| set(key, value)),
            Seen::Persons => {
                set("core.hooksPath", "/dev/null");
                set("core.fsmonitor", "false");
                set("submodule.recurse", "false");
                set("gc.auto", "0");
            }
        }
        all.extend(self.args.iter().cloned());
        all
    }

    fn all_env(&self) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |name: &str, value: &OsStr| all.push((name.into(), value.to_owned()));
        set("PATH", &self.git.search_path);
        set("HOME", self.git.home.as_os_str());
        set("LC_ALL", OsStr::new("C"));
        set("GIT_TERMINAL_PROMPT", OsStr::new("0"));
        set("GIT_LITERAL_PATHSPECS", OsStr::new("1"));
        match self.seen {
            Seen::OursAlone => {
                set("GIT_NO_LAZY_FETCH", OsStr::new("1"));
                set("GIT_CONFIG_NOSYSTEM", OsStr::new("1"));
                set("GIT_CONFIG_GLOBAL", OsStr::new("/dev/null"));
                set("GIT_ATTR_NOSYSTEM", OsStr::new("1"));
            }
            Seen::Persons => all.extend(self.git.person_env.iter().cloned()),
        }
        all.extend(self.env.iter().cloned());
        if !self.config.is_empty() {
            all.push(("GIT_CONFIG_COUNT".into(), self.config.len().to_string().into()));
            for (number, (key, value)) in self.config.iter().enumerate() {
                all.push((format!("GIT_CONFIG_KEY_{number}").into(), key.clone()));
                all.push((format!("GIT_CONFIG_VALUE_{number}").into(), value.clone()));
            }
        }
        all
    }

    /// The command as a person may read it: without the hardening, not endless, without secrets.
    fn shown(&self) -> String {
        let mut text = String::from("git");
        for arg in &self.args {
            if text.len() > 200 {
                text.push_str(" …");
                break;
            }
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        self.redact(text.as_bytes())
    }

    fn redact(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        match &self.secret {
            Some(secret) if !secret.is_empty() => text.replace(secret, "***"),
            _ => text,
        }
    }
}
