//! Carries out a tool call in the box, and runs commands there.
//!
//! Everything goes through the hand; nothing is read or written on the host. A refusal of the hand
//! (no such file, a folder) is an answer for the model; only a box that fails is an error. Absent:
//! what is stored of it.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use domain::evidence::CommandEnd;
use sandbox::{Ended, ExecRequest, OutputChunk, Sandbox, SandboxError, Stream};

use super::{DEFAULT_COMMAND_S, MAX_COMMAND_S, Search, Shell, ToolCall, numbered, parse, replace, shown};
use crate::conversation::PendingCall;

/// Most bytes of a file that a tool reads.
pub const MAX_FILE_BYTES: u64 = 8 << 20;
/// Most bytes of a tool command's output.
pub const MAX_TOOL_OUTPUT_BYTES: u64 = 16 << 20;
/// Most lines that a search gives.
pub const MAX_SEARCH_LINES: usize = 500;
/// Characters of a command's output that people see without asking for all of it.
const TAIL_CHARS: usize = 4_000;

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// What the model is shown.
    pub text: String,
    /// Whether it failed.
    pub is_error: bool,
    /// The whole output, where `text` is only a part.
    pub whole: Option<Vec<u8>>,
}

impl Returned {
    fn ok(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false, whole: None }
    }
    /// A failure that the model is told about.
    #[must_use]
    pub fn error(text: &str) -> Self {
        Self { text: text.to_owned(), is_error: true, whole: None }
    }
}

/// A command that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How.
    pub end: CommandEnd,
    /// Both streams in the order in which they came.
    pub output: Vec<u8>,
    /// How long it took.
    pub duration_ms: u64,
}

/// A command that is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// How long it may take.
    pub time_limit_ms: u64,
    /// Most bytes of output.
    pub max_output_bytes: u64,
}

impl Finished {
    /// A command from text.
    #[must_use]
    pub fn wanted(argv: &[String], time_limit_ms: u64, max_output_bytes: u64) -> Wanted {
        Wanted { argv: argv.iter().map(OsString::from).collect(), time_limit_ms, max_output_bytes }
    }

    /// The last lines of the output, as text.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.output);
        let chars = text.chars().count();
        text.chars().skip(chars.saturating_sub(TAIL_CHARS)).collect()
    }
}

/// Bytes that come in pieces, as text: a character that is cut between two pieces waits for its rest.
#[derive(Debug, Default)]
struct TextStream {
    rest: Vec<u8>,
}

impl TextStream {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let rest = self.rest.split_off(whole);
        String::from_utf8_lossy(&std::mem::replace(&mut self.rest, rest)).into_owned()
    }
}

/// Shows a piece of output.
pub type Show<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Runs a command to its end. The same `exec_id` never runs twice in one box.
///
/// # Errors
/// [`SandboxError`] if the box fails; a command that fails is an outcome.
pub async fn run_command(
    hands: &dyn Sandbox,
    exec_id: &str,
    wanted: Wanted,
    show: Show<'_>,
) -> Result<Finished, SandboxError> {
    let mut output = Vec::new();
    let mut text = TextStream::default();
    let mut request = ExecRequest::new(exec_id, wanted.argv);
    request.time_limit = Duration::from_millis(wanted.time_limit_ms);
    request.output_cap_bytes = wanted.max_output_bytes;
    let (limit_ms, limit_bytes) = (wanted.time_limit_ms, wanted.max_output_bytes);
    let mut sink = |chunk: OutputChunk| {
        show(&text.push(&chunk.bytes));
        output.extend_from_slice(&chunk.bytes);
    };
    let outcome = hands.exec(request, &mut sink).await?;
    Ok(Finished { end: command_end(outcome.ended, limit_ms, limit_bytes), output, duration_ms: outcome.duration_ms })
}

fn command_end(ended: Ended, limit_ms: u64, limit_bytes: u64) -> CommandEnd {
    match ended {
        Ended::Exited { code } => CommandEnd::Exited { code },
        Ended::Signaled { signal } => CommandEnd::Signaled { signal },
        Ended::TimedOut => CommandEnd::TimedOut { limit_ms },
        Ended::OutputCapReached => CommandEnd::OutputLimit { limit_bytes },
        Ended::Killed => CommandEnd::Signaled { signal: 9 },
        Ended::OutOfMemory => CommandEnd::OutOfMemory,
        Ended::TooManyProcesses => CommandEnd::TooManyProcesses,
        Ended::DiskFull => CommandEnd::DiskFull,
        Ended::FileTooLarge => CommandEnd::FileTooLarge,
        Ended::NotStarted { message } => CommandEnd::NotStarted { why: message },
    }
}

/// Runs a tool call.
///
/// # Errors
/// [`SandboxError`] if the box fails; everything else is an answer for the model.
pub async fn run_tool(
    hands: &dyn Sandbox,
    exec_id: &str,
    call: &PendingCall,
    show: Show<'_>,
) -> Result<Returned, SandboxError> {
    let parsed = match parse(&call.tool, &call.input_json) {
        Ok(parsed) => parsed,
        Err(sentence) => return Ok(Returned::error(&sentence)),
    };
    let ran = match parsed {
        ToolCall::Shell(shell) => run_shell(hands, exec_id, &shell, show).await,
        ToolCall::Read(read) => match text_of(hands, &read.path).await {
            Ok(Ok(text)) => Ok(numbered(&text, &read).map_or_else(|sentence| Returned::error(&sentence), Returned::ok)),
            Ok(Err(sentence)) => Ok(Returned::error(&sentence)),
            Err(error) => Err(error),
        },
        ToolCall::Write(write) => {
            let bytes = write.content.as_bytes();
            let wrote = hands.write(Path::new(&write.path), bytes, None).await;
            wrote.map(|()| Returned::ok(format!("wrote {} bytes to {}", bytes.len(), write.path)))
        }
        ToolCall::Edit(edit) => match text_of(hands, &edit.path).await {
            Ok(Ok(text)) => match replace(&text, &edit) {
                Ok(changed) => {
                    let wrote = hands.write(Path::new(&edit.path), changed.as_bytes(), None).await;
                    wrote.map(|()| Returned::ok(format!("edited {}", edit.path)))
                }
                Err(sentence) => Ok(Returned::error(&sentence)),
            },
            Ok(Err(sentence)) => Ok(Returned::error(&sentence)),
            Err(error) => Err(error),
        },
        ToolCall::Search(search) => run_search(hands, exec_id, &search).await,
        ToolCall::Ask(_) => Ok(Returned::ok(
            "Nobody answers questions in this task. Decide yourself, and say in your summary what you decided.",
        )),
    };
    match ran {
        Err(SandboxError::Refused(failure)) => Ok(Returned::error(&failure.message)),
        Err(error @ SandboxError::TooLarge { .. }) => Ok(Returned::error(&error.to_string())),
        other => other,
    }
}

async fn run_shell(
    hands: &dyn Sandbox,
    exec_id: &str,
    shell: &Shell,
    show: Show<'_>,
) -> Result<Returned, SandboxError> {
    let seconds = shell.timeout_s.unwrap_or(DEFAULT_COMMAND_S).clamp(1, MAX_COMMAND_S);
    let argv = ["sh", "-c", shell.command.as_str()].map(OsString::from).to_vec();
    let wanted = Wanted { argv, time_limit_ms: seconds * 1000, max_output_bytes: MAX_TOOL_OUTPUT_BYTES };
    let finished = run_command(hands, exec_id, wanted, show).await?;
    let output = String::from_utf8_lossy(&finished.output).into_owned();
    let (part, whole) = shown(&output);
    let newline = if part.is_empty() || part.ends_with('\n') { "" } else { "\n" };
    Ok(Returned {
        text: format!("{part}{newline}[{}]", finished.end),
        is_error: !finished.end.succeeded(),
        whole: (!whole).then_some(finished.output),
    })
}

/// A file's text, or a sentence on why it has none.
async fn text_of(hands: &dyn Sandbox, path: &str) -> Result<Result<String, String>, SandboxError> {
    let file = hands.read(Path::new(path), 0, MAX_FILE_BYTES).await?;
    if file.file_bytes > MAX_FILE_BYTES {
        return Ok(Err(format!(
            "{path} has {} bytes, more than the {MAX_FILE_BYTES} that can be read at once; use `shell`",
            file.file_bytes
        )));
    }
    Ok(String::from_utf8(file.bytes).map_err(|_| format!("{path} is not UTF-8 text; use `shell` to look at it")))
}

/// `git grep` sees what belongs to the repository, new files included, and nothing that is ignored.
async fn run_search(hands: &dyn Sandbox, exec_id: &str, search: &Search) -> Result<Returned, SandboxError> {
    let mut argv: Vec<OsString> =
        ["git", "--no-pager", "-c", "core.quotePath=false", "grep", "--untracked", "--no-color", "-nIE", "-e"]
            .map(OsString::from)
            .to_vec();
    argv.push(OsString::from(&search.pattern));
    argv.push("--".into());
    match (&search.path, &search.glob) {
        (Some(path), Some(glob)) => argv.push(format!(":(glob){}/**/{glob}", path.trim_end_matches('/')).into()),
        (Some(path), None) => argv.push(path.into()),
        (None, Some(glob)) => argv.push(format!(":(glob)**/{glob}").into()),
        (None, None) => {}
    }
    let wanted = Wanted { argv, time_limit_ms: DEFAULT_COMMAND_S * 1000, max_output_bytes: MAX_TOOL_OUTPUT_BYTES };
    let mut found = Vec::new();
    let mut said = Vec::new();
    let mut request = ExecRequest::new(exec_id, wanted.argv);
    request.time_limit = Duration::from_millis(wanted.time_limit_ms);
    request.output_cap_bytes = wanted.max_output_bytes;
    let mut sink = |chunk: OutputChunk| match chunk.stream {
        Stream::Stdout => found.extend_from_slice(&chunk.bytes),
        Stream::Stderr => said.extend_from_slice(&chunk.bytes),
    };
    let outcome = hands.exec(request, &mut sink).await?;
    match outcome.ended {
        Ended::Exited { code: 0 } => {
            let text = String::from_utf8_lossy(&found);
            let lines = text.lines().count();
            let part: Vec<&str> = text.lines().take(MAX_SEARCH_LINES).collect();
            let (mut part, _) = shown(&part.join("\n"));
            if lines > MAX_SEARCH_LINES {
                part.push_str(&format!("\n[{lines} lines match; the first {MAX_SEARCH_LINES} are shown]"));
            }
            Ok(Returned::ok(part))
        }
        Ended::Exited { code: 1 } => Ok(Returned::ok("nothing matches")),
        other => {
            let end = command_end(other, wanted.time_limit_ms, wanted.max_output_bytes);
            Ok(Returned::error(&format!("{}[{end}]", String::from_utf8_lossy(&said))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_between_two_pieces_is_shown_once_and_whole() {
        let mut stream = TextStream::default();
        let text: String = "aé€😀z".as_bytes().iter().map(|byte| stream.push(&[*byte])).collect();
        assert_eq!(text, "aé€😀z");
        assert_eq!(stream.push(b"\xff!"), "\u{fffd}!");
    }
}
