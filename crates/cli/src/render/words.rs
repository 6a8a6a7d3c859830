//! Numbers, times and states in the words that people use. Pure.

use domain::principal::{Principal, PrincipalKind};
use domain::task::{AgentSpec, OutcomeReason, TaskState, TaskSummary, Wait, WaitKind};

use crate::terminal::Style;

/// Bytes, as a person reads them: `0 B`, `12 kB`, `3.4 MB`, `1.2 GB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut scaled = n;
    let mut tenths = 0;
    let mut unit = 0;
    while scaled >= 1000 && unit + 1 < UNITS.len() {
        tenths = scaled % 1000 / 100;
        scaled /= 1000;
        unit += 1;
    }
    let word = UNITS.get(unit).unwrap_or(&"B");
    if unit < 2 || scaled >= 100 { format!("{scaled} {word}") } else { format!("{scaled}.{tenths} {word}") }
}

/// A length of time as people say it.
#[must_use]
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{s}.{} s", ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// How long ago, in one unit.
#[must_use]
pub fn age(now: jiff::Timestamp, then: jiff::Timestamp) -> String {
    let s = now.duration_since(then).as_secs().max(0);
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// Time since the task began, as a clock that starts at `0:00`.
#[must_use]
pub fn clock(since: jiff::Timestamp, at: jiff::Timestamp) -> String {
    let s = at.duration_since(since).as_secs().max(0);
    if s < 3600 {
        format!("{}:{:02}", s / 60, s % 60)
    } else {
        format!("{}:{:02}:{:02}", s / 3600, s % 3600 / 60, s % 60)
    }
}

/// Money. Small amounts keep the digits that matter.
#[must_use]
pub fn money(micro_usd: u64) -> String {
    match micro_usd {
        0 => "$0".to_owned(),
        1..100 => "<$0.0001".to_owned(),
        100..1_000_000 => {
            let text = format!("{:.4}", f64::from(u32::try_from(micro_usd).unwrap_or(u32::MAX)) / 1e6);
            let short = text.trim_end_matches('0');
            let keep = short.len().max(4);
            format!("${}", text.get(..keep).unwrap_or(&text))
        }
        _ => format!("${}.{:02}", micro_usd / 1_000_000, micro_usd % 1_000_000 / 10_000),
    }
}

/// A number with its thousands set apart.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 gate`, `2 gates`.
#[must_use]
pub fn plural(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// So many tasks that have not ended; the server counts them up to a limit.
#[must_use]
pub fn open_tasks(open: u64) -> String {
    let or_more = if open >= u64::from(server::api::MAX_COUNTED) { " or more" } else { "" };
    if open == 1 { "1 task".to_owned() } else { format!("{open}{or_more} tasks") }
}

/// What a task does, in a word or two, and how it looks.
#[must_use]
pub fn state(state: TaskState, wait: Option<WaitKind>, outcome: Option<OutcomeReason>) -> (Style, String) {
    match state {
        TaskState::Submitted => (Style::Accent, "queued".to_owned()),
        TaskState::Working => (Style::Accent, "working".to_owned()),
        TaskState::InputRequired => (Style::Warn, wait.map_or("waits", wait_word).to_owned()),
        TaskState::AuthRequired => (Style::Warn, "needs a key".to_owned()),
        TaskState::Completed => (Style::Good, "done".to_owned()),
        TaskState::Failed => {
            (Style::Bad, outcome.map_or("failed".to_owned(), |reason| format!("failed: {}", reason.name())))
        }
        TaskState::Canceled => (Style::Dim, "canceled".to_owned()),
        TaskState::Rejected => (Style::Bad, "rejected".to_owned()),
    }
}

const fn wait_word(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Question => "asks you",
        WaitKind::Plan => "plan to agree",
        WaitKind::Tool => "tool to allow",
        WaitKind::Review => "to review",
        WaitKind::Auth => "needs a key",
        WaitKind::Budget => "budget is used up",
        WaitKind::Paused => "paused",
    }
}

/// Gates as marks, or as a count where there are many.
#[must_use]
pub fn gates(task: &TaskSummary) -> String {
    let (passed, total) = (task.gates_passed as usize, task.gates_total as usize);
    match total {
        0 => "-".to_owned(),
        1..=5 => {
            let passed = passed.min(total);
            let failed = (task.gates_failed as usize).min(total - passed);
            "✓".repeat(passed) + &"✗".repeat(failed) + &"·".repeat(total - passed - failed)
        }
        _ if task.gates_failed > 0 => format!("{passed}/{total} ✗"),
        _ => format!("{passed}/{total}"),
    }
}

/// What a task cost, in cents, where something is known of it.
#[must_use]
pub fn cost(task: &TaskSummary) -> String {
    match task.cost_micro_usd {
        0 => "-".to_owned(),
        1..10_000 => "<$0.01".to_owned(),
        n => format!("${}.{:02}", n / 1_000_000, n % 1_000_000 / 10_000),
    }
}

/// An actor, as people speak of it.
#[must_use]
pub fn who(actor: &Principal) -> String {
    match (actor.kind, &actor.on_behalf_of) {
        (PrincipalKind::Person, _) => actor.name.clone(),
        (PrincipalKind::Platform, _) => "chargehand".to_owned(),
        (PrincipalKind::Agent, Some(person)) => format!("the agent {} (for {person})", actor.name),
        (PrincipalKind::Agent, None) => format!("the agent {}", actor.name),
        (PrincipalKind::Trigger, _) => format!("the trigger {}", actor.name),
    }
}

/// Who can end a wait; owners are written as principals are.
#[must_use]
pub fn owner(wait: &Wait) -> &str {
    wait.owner.strip_prefix("person:").unwrap_or(&wait.owner)
}

/// What does the work.
#[must_use]
pub fn agent(agent: &AgentSpec) -> String {
    match agent {
        AgentSpec::Native { model } => format!("native, model {model}"),
        AgentSpec::Command { argv } => format!("command: {}", command_line(argv)),
    }
}

/// Arguments as they could be typed into a shell.
#[must_use]
pub fn command_line(argv: &[String]) -> String {
    let quoted: Vec<String> = argv
        .iter()
        .map(|word| {
            let plain =
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@+%".contains(&b));
            if plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
        })
        .collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_amounts_read_as_people_say_them() {
        let durations = [42, 2_340, 72_000, 7_500_000].map(duration);
        assert_eq!(durations, ["42 ms", "2.3 s", "1 min 12 s", "2 h 5 min"]);
        let amounts = [0, 5, 4_100, 40_000, 500_000, 1_250_000].map(money);
        assert_eq!(amounts, ["$0", "<$0.0001", "$0.0041", "$0.04", "$0.50", "$1.25"]);
        assert_eq!([0, 999, 1_204, 1_234_567].map(count), ["0", "999", "1,204", "1,234,567"]);
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        let argv = ["cargo", "test", "a b", "it's", ""].map(str::to_owned);
        assert_eq!(command_line(&argv), r"cargo test 'a b' 'it'\''s' ''");
    }
}
