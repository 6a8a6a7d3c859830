//! What the recorded evidence of a commit amounts to.
//!
//! A gate counts as passed only if the newest evidence *of this very gate on this very commit* is a
//! pass: same name, same command, same limits (they are all in the gate's digest), same commit. No
//! such evidence is a failure like any other, and named as such. Nothing else is looked at, so
//! evidence of an earlier commit or of a loosened gate can never carry a change.
//!
//! The feedback goes to the agent as the next message: which gates failed, what was run, how it
//! ended, and the end of the output. Absent: repair hints. The platform says what it saw.

use std::fmt::Write as _;

use domain::evidence::{CommandEnd, Evidence, GateSpec};
use domain::id::CommitSha;
use domain::task::Judgement;

use crate::text::{last_lines, shortened, visible};

/// The most characters that feedback ever has.
pub const MAX_FEEDBACK_CHARS: usize = 6000;
/// Gates whose output is shown; of further ones only the names are.
const MAX_SHOWN: usize = 8;
/// Most characters of a command, and of the words on how it ended.
const MAX_LINE_CHARS: usize = 160;
/// Kept free for the first line and for the names of gates that are not shown.
const FRAME_CHARS: usize = 600;

/// Weighs recorded evidence.
///
/// Of several pieces of evidence for one gate on one commit the last in the slice counts, so
/// `evidence` is to be in the order of recording. `failed` of the result has the required gates
/// that did not pass, in the order of `gates`; gates that are not required are only mentioned in
/// the feedback. Without required gates the result is a pass that proves nothing; the feedback says so.
#[must_use]
pub fn judge(gates: &[GateSpec], evidence: &[Evidence], commit: &CommitSha) -> Judgement {
    let not_passed: Vec<Shortfall<'_>> = gates.iter().filter_map(|gate| shortfall(gate, evidence, commit)).collect();
    let failed: Vec<String> =
        not_passed.iter().filter(|s| s.gate.required).map(|shortfall| shortfall.gate.name.clone()).collect();
    Judgement {
        commit: commit.clone(),
        passed: failed.is_empty(),
        failed,
        feedback: feedback(gates, &not_passed, commit),
    }
}

/// A gate that did not pass, with the evidence of that if there is any.
struct Shortfall<'a> {
    gate: &'a GateSpec,
    evidence: Option<&'a Evidence>,
}

fn shortfall<'a>(gate: &'a GateSpec, evidence: &'a [Evidence], commit: &CommitSha) -> Option<Shortfall<'a>> {
    let digest = gate.digest();
    let newest = evidence.iter().rev().find(|e| e.commit == *commit && e.gate == *gate && e.gate_digest == digest);
    match newest {
        Some(evidence) if evidence.passed && evidence.end.succeeded() => None,
        evidence => Some(Shortfall { gate, evidence }),
    }
}

fn feedback(gates: &[GateSpec], not_passed: &[Shortfall<'_>], commit: &CommitSha) -> String {
    let commit = commit.short();
    if gates.is_empty() {
        return format!("There are no gates: nothing was proved about commit {commit}.");
    }
    let (all, of) = (gates.len(), not_passed.len());
    let noun = if all == 1 { "gate" } else { "gates" };
    if of == 0 {
        return format!("All {all} {noun} passed on commit {commit}.");
    }
    let mut text = format!("{of} of {all} {noun} did not pass on commit {commit}.\n");
    // Required gates first: they are what stands between the change and landing.
    let mut ordered: Vec<&Shortfall<'_>> = not_passed.iter().collect();
    ordered.sort_by_key(|shortfall| !shortfall.gate.required);
    let shown = ordered.len().min(MAX_SHOWN);
    let share_chars = (MAX_FEEDBACK_CHARS - FRAME_CHARS) / shown.max(1);
    for shortfall in ordered.iter().take(shown) {
        let _ = write!(text, "\n{}\n", describe(shortfall, share_chars.saturating_sub(2)));
    }
    let others: Vec<&str> = ordered.iter().skip(shown).map(|shortfall| shortfall.gate.name.as_str()).collect();
    if !others.is_empty() {
        let names = shortened(&others.join(", "), FRAME_CHARS / 2);
        let _ = write!(text, "\nAnd {} more: {names}\n", others.len());
    }
    shortened(&text, MAX_FEEDBACK_CHARS)
}

/// One gate's part of the feedback, in at most `max_chars`.
fn describe(shortfall: &Shortfall<'_>, max_chars: usize) -> String {
    let gate = shortfall.gate;
    let weight = if gate.required { "required" } else { "not required" };
    let command = shortened(&visible(&shell_words(&gate.command)), MAX_LINE_CHARS);
    let Some(evidence) = shortfall.evidence else {
        return format!(
            "Gate `{}` ({weight}): no evidence for this commit. It was not run on it, or not with this command.\nCommand: {command}",
            gate.name
        );
    };
    let end = shortened(&visible(&ended(evidence)), MAX_LINE_CHARS);
    let head = format!("Gate `{}` ({weight}) failed: {end}\nCommand: {command}", gate.name);
    let label = "\nThe end of its output:\n";
    let left = max_chars.saturating_sub(head.chars().count() + label.len());
    let tail = last_lines(&visible(&evidence.output_tail), left);
    if tail.is_empty() { format!("{head}\nIt wrote no output.") } else { format!("{head}{label}{tail}") }
}

fn ended(evidence: &Evidence) -> String {
    match &evidence.end {
        CommandEnd::NotStarted { why } => {
            format!(
                "it could not be started: {why}. The program is missing in the sandbox or the gate's command is wrong"
            )
        }
        end if end.succeeded() => "recorded as not passed although the command succeeded".to_owned(),
        end => end.to_string(),
    }
}

/// The command as one could type it.
fn shell_words(argv: &[String]) -> String {
    let plain =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b));
    let quoted = |word: &String| {
        if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
