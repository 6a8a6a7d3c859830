//! The tools of a native agent: what the model is told about them, and what a call means.
//!
//! Input from a model is data of unknown shape: [`parse`] turns it into a typed [`ToolCall`] or into
//! a sentence that tells the model what to write instead. What the model is shown of long output is
//! bounded; the whole output of a command is kept by the caller. Pure, but for [`run`]. Absent: network, and any tool
//! that acts outside the box.

use domain::contract::OnAmbiguity;
use model::{RawJson, ToolSpec};
use serde::Deserialize;

pub mod run;

/// The tool that asks a person.
pub const ASK: &str = "ask";
/// The tool that replaces text.
pub const EDIT: &str = "edit";
/// Most characters of a tool's output that the model is shown.
pub const MAX_SHOWN_CHARS: usize = 30_000;
/// Most lines that `read` gives at once.
pub const MAX_READ_LINES: u64 = 2_000;
/// Time limit of a command that sets none.
pub const DEFAULT_COMMAND_S: u64 = 120;
/// Longest time limit that a command may set.
pub const MAX_COMMAND_S: u64 = 3_600;

/// Run a command by `sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shell {
    /// The command line.
    pub command: String,
    /// Time limit in seconds.
    #[serde(default)]
    pub timeout_s: Option<u64>,
}

/// Read lines of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The file.
    pub path: String,
    /// First line, from 1.
    #[serde(default)]
    pub first_line: Option<u64>,
    /// How many lines.
    #[serde(default)]
    pub lines: Option<u64>,
}

/// Make or replace a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The file.
    pub path: String,
    /// All of its content.
    pub content: String,
}

/// Replace text in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The file.
    pub path: String,
    /// The text as it stands there.
    pub old: String,
    /// The text that takes its place.
    pub new: String,
    /// Whether every occurrence is meant.
    #[serde(default)]
    pub all: bool,
}

/// Search the tree.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// An extended regular expression.
    pub pattern: String,
    /// Only below this folder, or this file.
    #[serde(default)]
    pub path: Option<String>,
    /// Only in files whose path matches this pattern.
    #[serde(default)]
    pub glob: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    question: String,
}

/// A call that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolCall {
    /// Run a command.
    Shell(Shell),
    /// Read lines.
    Read(Read),
    /// Make or replace a file.
    Write(Write),
    /// Replace text.
    Edit(Edit),
    /// Search.
    Search(Search),
    /// Ask a person.
    Ask(String),
}

/// What the model is told. The `ask` tool is offered only where somebody will answer.
#[must_use]
pub fn specs(on_ambiguity: OnAmbiguity) -> Vec<ToolSpec> {
    let mut specs = vec![
        spec(
            "shell",
            "Run a command with `sh -c` in /workspace and see its output and exit code. Output beyond 30,000 characters is cut in the middle.",
            SHELL,
        ),
        spec("read", "Read lines of a text file, numbered.", READ),
        spec("write", "Make a file, or replace all of its content. Missing folders are made.", WRITE),
        spec(
            EDIT,
            "Replace text in a file. `old` must stand in the file exactly as given, and only once unless `all` is true.",
            EDIT_SCHEMA,
        ),
        spec(
            "search",
            "Search the files of the repository for an extended regular expression; gives path:line:text.",
            SEARCH,
        ),
    ];
    if on_ambiguity != OnAmbiguity::Proceed {
        specs.push(spec(ASK, "Ask the person who gave the task, and wait for the answer. Only for a choice that changes the result and that the repository does not settle.", ASK_SCHEMA));
    }
    specs
}

fn spec(name: &str, description: &str, schema: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: RawJson::parse(schema).unwrap_or_else(|_| RawJson::empty_object()),
    }
}

const SHELL: &str = r#"{"type":"object","properties":{"command":{"type":"string","description":"The command line"},"timeout_s":{"type":"integer","description":"Seconds it may take; 120 if left out, at most 3600"}},"required":["command"],"additionalProperties":false}"#;
const READ: &str = r#"{"type":"object","properties":{"path":{"type":"string","description":"Relative to /workspace, or absolute"},"first_line":{"type":"integer","description":"From 1"},"lines":{"type":"integer","description":"How many; at most 2000"}},"required":["path"],"additionalProperties":false}"#;
const WRITE: &str = r#"{"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"}},"required":["path","content"],"additionalProperties":false}"#;
const EDIT_SCHEMA: &str = r#"{"type":"object","properties":{"path":{"type":"string"},"old":{"type":"string"},"new":{"type":"string"},"all":{"type":"boolean","description":"Replace every occurrence"}},"required":["path","old","new"],"additionalProperties":false}"#;
const SEARCH: &str = r#"{"type":"object","properties":{"pattern":{"type":"string"},"path":{"type":"string","description":"Folder or file to search in"},"glob":{"type":"string","description":"For example *.rs"}},"required":["pattern"],"additionalProperties":false}"#;
const ASK_SCHEMA: &str = r#"{"type":"object","properties":{"question":{"type":"string"}},"required":["question"],"additionalProperties":false}"#;

/// What a call means.
///
/// # Errors
/// A sentence for the model: which tool or field is wrong and what would be right.
pub fn parse(tool: &str, input_json: &str) -> Result<ToolCall, String> {
    fn input<'a, T: Deserialize<'a>>(tool: &str, json: &'a str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| format!("the input of `{tool}` is wrong: {error}"))
    }
    match tool {
        "shell" => input(tool, input_json).map(ToolCall::Shell),
        "read" => input(tool, input_json).map(ToolCall::Read),
        "write" => input(tool, input_json).map(ToolCall::Write),
        EDIT => input(tool, input_json).map(ToolCall::Edit),
        "search" => input(tool, input_json).map(ToolCall::Search),
        ASK => input::<Ask>(tool, input_json).map(|ask| ToolCall::Ask(ask.question)),
        other => Err(format!(
            "there is no tool `{other}`; there are shell, read, write, edit and search, and ask where somebody answers"
        )),
    }
}

/// The question of an `ask` call, if it has one.
#[must_use]
pub fn question(input_json: &str) -> Option<String> {
    match parse(ASK, input_json) {
        Ok(ToolCall::Ask(question)) if !question.trim().is_empty() => Some(question),
        _ => None,
    }
}

/// Text with one occurrence of `old`, or all of them, replaced.
///
/// # Errors
/// A sentence for the model: not found, found more than once, or nothing to do.
pub fn replace(text: &str, edit: &Edit) -> Result<String, String> {
    if edit.old.is_empty() {
        return Err("`old` is empty; use `write` to make a file".to_owned());
    }
    if edit.old == edit.new {
        return Err("`old` and `new` are the same".to_owned());
    }
    match text.matches(edit.old.as_str()).count() {
        0 => Err(format!(
            "`old` does not stand in {}; read the file again and copy the text exactly, spaces included",
            edit.path
        )),
        1 => Ok(text.replacen(&edit.old, &edit.new, 1)),
        _ if edit.all => Ok(text.replace(&edit.old, &edit.new)),
        n => Err(format!("`old` stands in {} {n} times; give more of the text around it, or set `all`", edit.path)),
    }
}

/// What the model is shown of an output, and whether that is all of it. The middle is cut, because
/// the beginning says what ran and the end says what came of it.
#[must_use]
pub fn shown(output: &str) -> (String, bool) {
    let chars = output.chars().count();
    if chars <= MAX_SHOWN_CHARS {
        return (output.to_owned(), true);
    }
    let (head, tail) = (MAX_SHOWN_CHARS / 3, MAX_SHOWN_CHARS - MAX_SHOWN_CHARS / 3);
    let first: String = output.chars().take(head).collect();
    let last: String = output.chars().skip(chars - tail).collect();
    (format!("{first}\n[… {} characters are not shown …]\n{last}", chars - head - tail), false)
}

/// Lines of a text, numbered, with a remark where there are more.
///
/// # Errors
/// A sentence for the model, if the file has no such line.
pub fn numbered(text: &str, read: &Read) -> Result<String, String> {
    let total = text.lines().count() as u64;
    let first = read.first_line.unwrap_or(1).max(1);
    let wanted = read.lines.unwrap_or(MAX_READ_LINES).clamp(1, MAX_READ_LINES);
    if total == 0 {
        return Ok("(the file is empty)".to_owned());
    }
    if first > total {
        return Err(format!("{} has {total} lines; there is no line {first}", read.path));
    }
    let mut out = String::new();
    let skip = usize::try_from(first - 1).unwrap_or(usize::MAX);
    for (number, line) in (first..).zip(text.lines().skip(skip).take(usize::try_from(wanted).unwrap_or(usize::MAX))) {
        out.push_str(&format!("{number:>6}\t{line}\n"));
    }
    let last = (first + wanted - 1).min(total);
    if last < total {
        out.push_str(&format!("[lines {first} to {last} of {total}]\n"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(old: &str, new: &str, all: bool) -> Edit {
        Edit { path: "a.rs".into(), old: old.into(), new: new.into(), all }
    }

    #[test]
    fn every_schema_is_an_object_that_names_what_is_required() {
        for spec in specs(OnAmbiguity::Pause) {
            let schema: serde_json::Value = serde_json::from_str(spec.input_schema.as_str()).unwrap();
            assert!(schema["required"].as_array().is_some_and(|fields| !fields.is_empty()), "{}", spec.name);
        }
    }

    #[test]
    fn nobody_is_offered_to_ask_where_nobody_answers() {
        assert!(specs(OnAmbiguity::Proceed).iter().all(|spec| spec.name != ASK));
    }

    #[test]
    fn an_edit_that_is_not_unique_changes_nothing_and_says_so() {
        assert_eq!(replace("a b", &edit("b", "c", false)).unwrap(), "a c");
        assert!(replace("a a", &edit("a", "c", false)).unwrap_err().contains("2 times"));
        assert_eq!(replace("a a", &edit("a", "c", true)).unwrap(), "c c");
        assert!(replace("a", &edit("z", "c", false)).unwrap_err().contains("does not stand"));
        assert!(replace("a", &edit("", "c", false)).is_err());
    }

    #[test]
    fn a_wrong_input_tells_the_model_which_field() {
        assert!(parse("shell", r#"{"cmd":"ls"}"#).unwrap_err().contains("cmd"));
        assert!(parse("rm", "{}").unwrap_err().contains("there is no tool"));
    }

    #[test]
    fn long_output_keeps_its_beginning_and_its_end() {
        let long = format!("begin{}end", "x".repeat(MAX_SHOWN_CHARS * 2));
        let (text, whole) = shown(&long);
        assert!(
            !whole
                && text.starts_with("begin")
                && text.ends_with("end")
                && text.chars().count() < MAX_SHOWN_CHARS + 100
        );
    }

    #[test]
    fn reading_past_the_end_says_how_long_the_file_is() {
        let read = |first| Read { path: "a".into(), first_line: Some(first), lines: Some(1) };
        assert_eq!(numbered("x\ny\n", &read(2)).unwrap(), "     2\ty\n");
        assert!(numbered("x\ny\n", &read(3)).unwrap_err().contains("2 lines"));
    }
}
