//! The repository's own configuration: `.chargehand/config.toml` at the base commit.
//!
//! ```toml
//! version = 1                      # may be left out
//!
//! [[gate]]
//! name = "test"
//! command = ["cargo", "test"]      # or a line for the shell: "cargo test && ./e2e.sh"
//! required = true                  # may be left out
//! time_limit_s = 600               # may be left out
//! ```
//!
//! `gates = "none"` says that the repository has no gates. A file without a word on gates leaves
//! detection on. A file that can't be understood is an error and never "no gates": otherwise a
//! spelling mistake would let changes land unproved. The file is read from the base commit, so only
//! a person can mend it; the error is one for them, with line, column and what to write instead.
//!
//! Absent: reading the file, and any setting that is not about gates. An unknown field is an error.

use std::fmt;

use domain::evidence::GateSpec;
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

/// Where the file lies in a repository.
pub const CONFIG_PATH: &str = ".chargehand/config.toml";
/// The version of the file that this build reads.
pub const CONFIG_VERSION: i64 = 1;
/// How long a gate may take when nothing is said, in seconds.
pub const DEFAULT_TIME_LIMIT_S: u64 = 600;
/// The longest time limit that can be given: a day, in seconds.
pub const MAX_TIME_LIMIT_S: u64 = 24 * 60 * 60;

const GATE_LOOKS_LIKE: &str = "a gate looks like this:

[[gate]]
name = \"test\"
command = [\"cargo\", \"test\"]
required = true       # may be left out
time_limit_s = 600    # may be left out";

/// What a repository says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoConfig {
    /// Which gates it wants.
    pub gates: GateChoice,
}

/// Which gates a repository wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateChoice {
    /// Nothing is said: look at the files.
    Detect,
    /// None, in so many words.
    NoGates,
    /// These; at least one.
    Listed(Vec<GateSpec>),
}

/// Why a configuration file can't be used. The task fails with reason `user`: only a person can
/// change the base commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not text.
    #[error("{CONFIG_PATH} line {line}: not UTF-8 text; save the file as UTF-8 and commit it")]
    NotText {
        /// From 1.
        line: usize,
    },
    /// The file is not TOML, or has fields or types that it may not have.
    #[error("{CONFIG_PATH} line {line}, column {column}: {problem}; {instead}")]
    NotUnderstood {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        instead: String,
    },
    /// A value makes no sense.
    #[error("{CONFIG_PATH} line {line}, column {column}: {problem}")]
    BadValue {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: Option<Spanned<i64>>,
    gates: Option<Spanned<toml::Value>>,
    #[serde(default)]
    gate: Vec<Spanned<WrittenGate>>,
}

/// A gate as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGate {
    name: Spanned<String>,
    command: Spanned<WrittenCommand>,
    #[serde(default = "yes")]
    required: bool,
    time_limit_s: Option<Spanned<i64>>,
}

const fn yes() -> bool {
    true
}

/// An array of program and arguments, or a line for the shell.
struct WrittenCommand(Vec<String>);

impl<'de> Deserialize<'de> for WrittenCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = WrittenCommand;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of strings (program and arguments) or one string for the shell")
            }
            fn visit_str<E: de::Error>(self, line: &str) -> Result<Self::Value, E> {
                let shell = ["sh", "-c", line].map(str::to_owned);
                Ok(WrittenCommand(if line.trim().is_empty() { Vec::new() } else { shell.to_vec() }))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut argv = Vec::new();
                while let Some(argument) = seq.next_element()? {
                    argv.push(argument);
                }
                Ok(WrittenCommand(argv))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads the file's bytes.
///
/// # Errors
/// [`ConfigError`] with the place of the first mistake and what to write instead. The caller must
/// not go on as if there were no file.
pub fn parse(bytes: &[u8]) -> Result<RepoConfig, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        ConfigError::NotText { line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
    })?;
    let written: Written = toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        let problem = error.message().trim().replace('\n', ", ");
        ConfigError::NotUnderstood { line, column, instead: instead(&problem), problem }
    })?;
    let bad = |at: usize, problem: String| {
        let (line, column) = place(text, at);
        ConfigError::BadValue { line, column, problem }
    };
    if let Some(version) = &written.version
        && *version.as_ref() != CONFIG_VERSION
    {
        let given = version.as_ref();
        let problem = format!(
            "version {given} is not known to this Chargehand; write version = {CONFIG_VERSION} or leave it out"
        );
        return Err(bad(version.span().start, problem));
    }
    let none = match &written.gates {
        None => false,
        Some(gates) => says_none(gates.as_ref()).map_err(|problem| bad(gates.span().start, problem))?,
    };
    if let (true, Some(gate)) = (none, written.gate.first()) {
        let problem = "the file says gates = \"none\" and lists a gate; leave out one of the two".to_owned();
        return Err(bad(gate.span().start, problem));
    }
    let mut listed: Vec<GateSpec> = Vec::with_capacity(written.gate.len());
    for gate in &written.gate {
        let at = gate.as_ref().name.span().start;
        let gate = meant(gate.as_ref()).map_err(|(at, problem)| bad(at, problem))?;
        if listed.iter().any(|other| other.name == gate.name) {
            return Err(bad(at, format!("two gates are called `{}`; give each its own name", gate.name)));
        }
        listed.push(gate);
    }
    let gates = match (none, listed.is_empty()) {
        (true, _) => GateChoice::NoGates,
        (false, true) => GateChoice::Detect,
        (false, false) => GateChoice::Listed(listed),
    };
    Ok(RepoConfig { gates })
}

/// Whether `gates = …` means none.
fn says_none(value: &toml::Value) -> Result<bool, String> {
    match value {
        toml::Value::String(word) if word == "none" => Ok(true),
        toml::Value::Array(list) if !list.is_empty() => {
            Err(format!("gates are listed under `gate`, without an s; {GATE_LOOKS_LIKE}"))
        }
        toml::Value::Table(_) => Err(format!("gates are listed under `gate`, without an s; {GATE_LOOKS_LIKE}")),
        other => Err(format!(
            "gates = {other} says nothing; write gates = \"none\" if there shall be none, or list them; {GATE_LOOKS_LIKE}"
        )),
    }
}

/// A gate as meant, or where in the file it goes wrong and how.
fn meant(written: &WrittenGate) -> Result<GateSpec, (usize, String)> {
    let time_limit_s = match &written.time_limit_s {
        None => DEFAULT_TIME_LIMIT_S,
        Some(given) => {
            u64::try_from(*given.as_ref()).ok().filter(|s| (1..=MAX_TIME_LIMIT_S).contains(s)).ok_or_else(|| {
                let problem = format!("time_limit_s = {} must be 1 to {MAX_TIME_LIMIT_S} seconds", given.as_ref());
                (given.span().start, problem)
            })?
        }
    };
    let gate = GateSpec {
        name: written.name.as_ref().clone(),
        command: written.command.as_ref().0.clone(),
        required: written.required,
        time_limit_ms: time_limit_s.saturating_mul(1000),
        source: CONFIG_PATH.to_owned(),
    };
    let at =
        if gate.command.first().is_none_or(String::is_empty) { written.command.span() } else { written.name.span() };
    gate.check().map_err(|problem| (at.start, problem))?;
    Ok(gate)
}

/// What to write instead, for a mistake that the TOML reader found.
fn instead(problem: &str) -> String {
    if problem.contains("expected a sequence") {
        return format!("write `[[gate]]` with two brackets; {GATE_LOOKS_LIKE}");
    }
    if problem.contains("duplicate key") {
        return format!("write one `[[gate]]` for each gate; {GATE_LOOKS_LIKE}");
    }
    GATE_LOOKS_LIKE.to_owned()
}

/// Line and column, both from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<GateSpec> {
        match parse(text.as_bytes()).unwrap().gates {
            GateChoice::Listed(gates) => gates,
            other => panic!("no gates in {other:?}"),
        }
    }

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_array_is_run_as_it_is_and_a_string_by_the_shell() {
        let gates = listed(
            "version = 1\n[[gate]]\nname = \"unit\"\ncommand = [\"cargo\", \"test\"]\n\n[[gate]]\nname = \"e2e\"\ncommand = \"make && ./e2e\"\nrequired = false\ntime_limit_s = 90\n",
        );
        assert_eq!(gates[0].command, ["cargo", "test"]);
        assert!(gates[0].required);
        assert_eq!(gates[1].command, ["sh", "-c", "make && ./e2e"]);
        assert_eq!((gates[1].required, gates[1].time_limit_ms), (false, 90_000));
        assert_eq!(gates[1].source, CONFIG_PATH);
    }

    #[test]
    fn the_default_time_limit_is_the_domains() {
        let spec: domain::contract::Contract =
            toml::from_str("[[gates]]\nname = \"a\"\ncommand = [\"true\"]\n").unwrap();
        assert_eq!(spec.gates[0].time_limit_ms, DEFAULT_TIME_LIMIT_S * 1000);
    }

    #[test]
    fn only_the_word_none_switches_gates_off() {
        assert_eq!(parse(b"gates = \"none\"").unwrap().gates, GateChoice::NoGates);
        for empty in ["", "# nothing\n", "version = 1\n"] {
            assert_eq!(parse(empty.as_bytes()).unwrap().gates, GateChoice::Detect, "{empty:?}");
        }
        for unclear in ["gates = []", "gates = false", "gates = \"off\"", "gates = \"None\""] {
            assert!(error(unclear).contains("gates = \"none\""), "{unclear}: {}", error(unclear));
        }
    }

    #[test]
    fn none_beside_a_listed_gate_is_a_contradiction() {
        let text = "gates = \"none\"\n[[gate]]\nname = \"a\"\ncommand = \"true\"\n";
        assert!(error(text).contains("leave out one of the two"), "{}", error(text));
    }

    #[test]
    fn a_spelling_mistake_is_an_error_with_its_place_and_an_example() {
        insta::assert_snapshot!(error("[[gate]]\nname = \"unit\"\ncomand = \"cargo test\"\n"), @r#"
        .chargehand/config.toml line 3, column 1: unknown field `comand`, expected one of `name`, `command`, `required`, `time_limit_s`; a gate looks like this:

        [[gate]]
        name = "test"
        command = ["cargo", "test"]
        required = true       # may be left out
        time_limit_s = 600    # may be left out
        "#);
        assert!(error("[[gat]]\nname = \"a\"\n").contains("unknown field `gat`"));
    }

    #[test]
    fn one_bracket_or_an_s_too_many_is_told_apart() {
        let single = error("[gate]\nname = \"a\"\ncommand = \"true\"\n");
        assert!(single.contains("line 1") && single.contains("two brackets"), "{single}");
        let plural = error("[[gates]]\nname = \"a\"\ncommand = \"true\"\n");
        assert!(plural.contains("without an s"), "{plural}");
    }

    #[test]
    fn a_missing_name_or_command_is_an_error() {
        assert!(error("[[gate]]\ncommand = \"true\"\n").contains("missing field `name`"));
        assert!(error("[[gate]]\nname = \"a\"\n").contains("missing field `command`"));
    }

    #[test]
    fn a_command_without_a_program_is_an_error_at_the_command() {
        for empty in ["[]", "\"\"", "\"  \"", "[\"\"]"] {
            let text = format!("[[gate]]\nname = \"a\"\ncommand = {empty}\n");
            assert!(error(&text).contains("line 3, column 11: gate `a` has no command"), "{}", error(&text));
        }
        assert!(error("[[gate]]\nname = \"a\"\ncommand = 5\n").contains("one string for the shell"));
        assert!(error("[[gate]]\nname = \"a\"\ncommand = [\"a\", 5]\n").contains("line 3, column 17"));
    }

    #[test]
    fn a_time_limit_outside_a_second_and_a_day_is_an_error() {
        for bad in ["0", "-5", "86401"] {
            let text = format!("[[gate]]\nname = \"a\"\ncommand = \"true\"\ntime_limit_s = {bad}\n");
            assert!(error(&text).contains("must be 1 to 86400 seconds"), "{}", error(&text));
        }
    }

    #[test]
    fn a_name_twice_or_with_odd_characters_is_an_error() {
        let gate = |name: &str| format!("[[gate]]\nname = \"{name}\"\ncommand = \"true\"\n");
        assert!(error(&format!("{}{}", gate("a"), gate("a"))).contains("line 5, column 8: two gates are called `a`"));
        assert!(error(&gate("a b")).contains("line 2, column 8"), "{}", error(&gate("a b")));
    }

    #[test]
    fn another_version_is_refused_and_broken_text_is_placed() {
        assert!(error("\nversion = 2\n").contains("line 2, column 11: version 2"));
        assert!(error("[[gate]\n").contains("line 1"));
        assert_eq!(parse(b"version = 1\n\xff\n").unwrap_err(), ConfigError::NotText { line: 2 });
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(place("ä = x", 5), (1, 5));
    }
}
