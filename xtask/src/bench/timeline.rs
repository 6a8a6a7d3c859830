//! Where a task's time went, out of its event log alone.
//!
//! An event's `at` is taken just before the event is made durable. A time between two events
//! therefore holds the commit of the first and not that of the second: "accepted → first request"
//! is short by the commit of the request's intent and long by that of the acceptance, which are
//! alike. Pure. Absent: everything after the task waits for its reviewer; the end of its sandbox is
//! only looked for.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Deserializer};

/// Nanoseconds since 1970, by the server's clock.
type Moment = i64;

/// The turns of the scripted task: a shell call, a write, an end.
pub const TURNS: usize = 3;
const TOOLS: [&str; 2] = ["run_tool_shell", "run_tool_write"];

/// One stored event, with the fields that are looked at here.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(deserialize_with = "moment")]
    at: Moment,
    event: Event,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    TaskSubmitted,
    GatesChosen,
    EffectStarted {
        id: String,
        effect: Effect,
    },
    EffectEnded {
        id: String,
        result: Ended,
    },
    GatesJudged {
        judgement: Judgement,
    },
    WaitStarted {
        wait: Wait,
    },
    TaskEnded {
        outcome: Outcome,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Effect {
    kind: String,
    tool: Option<String>,
}

impl Effect {
    /// The kind; for a tool with its name, since one tool waits for the sandbox and another does not.
    fn label(&self) -> String {
        self.tool.as_ref().map_or_else(|| self.kind.clone(), |tool| format!("{}_{tool}", self.kind))
    }
}

#[derive(Debug, Deserialize)]
struct Ended {
    kind: String,
    #[serde(default)]
    is_error: bool,
    message: Option<String>,
    evidence: Option<Evidence>,
}

#[derive(Debug, Deserialize)]
struct Evidence {
    passed: bool,
}

#[derive(Debug, Deserialize)]
struct Judgement {
    passed: bool,
}

#[derive(Debug, Deserialize)]
struct Wait {
    kind: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    message: String,
}

/// One scripted task, in milliseconds.
#[derive(Debug, PartialEq)]
pub struct Timeline {
    /// From its acceptance to the first request to the model.
    pub first_request_ms: f64,
    /// From its acceptance to the wait for its reviewer.
    pub task_ms: f64,
    /// How long each effect took, by kind (tools by name too).
    pub effects_ms: BTreeMap<String, Vec<f64>>,
    /// Before the first effect: project, gates, start of the attempt.
    pub before_effects_ms: f64,
    /// From its acceptance to its gates, which are read from the repository.
    pub choose_gates_ms: f64,
    /// From the first effect (the sandbox begins to open) to the first request.
    pub briefing_ms: f64,
    /// While no effect was under way, from its acceptance on.
    pub outside_effects_ms: f64,
    /// Events stored from its acceptance to the wait for its reviewer.
    pub events: usize,
}

/// Whether the log shows that the task's sandbox is gone, after which nothing of it runs.
pub fn is_cleared(log: &str) -> anyhow::Result<bool> {
    Ok(read(log)?
        .iter()
        .any(|line| matches!(&line.event, Event::EffectEnded { result, .. } if result.kind == "sandbox_closed")))
}

/// Reads a task's log, one event a line.
///
/// Fails if the task is not the one that was to be measured: all turns answered, both tools run,
/// its gate passed in evidence and in judgement, and then a wait for review.
pub fn of_log(log: &str) -> anyhow::Result<Timeline> {
    let lines = read(log)?;
    let accepted = match lines.first() {
        Some(line) if matches!(line.event, Event::TaskSubmitted) => line.at,
        _ => bail!("the log does not begin with the task's acceptance"),
    };
    let review = lines.iter().position(|line| matches!(&line.event, Event::WaitStarted { .. }));
    let review = review.with_context(|| never_waited(&lines))?;
    let (until, _) = lines.split_at(review + 1);
    let reviewed = until.last().map_or(accepted, |line| line.at);
    let mut effects = effects(&lines)?;
    effects.retain(|effect| effect.begun < reviewed);
    check(until, &effects)?;
    let chosen = until.iter().find(|line| matches!(line.event, Event::GatesChosen)).context("no gates were chosen")?;
    let begun = effects.first().context("nothing was done")?.begun;
    let asked = effects.iter().find(|effect| effect.label == "call_model").context("the model was never asked")?.begun;
    let spans = effects.iter().map(|effect| (effect.begun, effect.ended.min(reviewed))).collect();
    let mut effects_ms: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for effect in effects {
        effects_ms.entry(effect.label).or_default().push(ms(effect.begun, effect.ended));
    }
    Ok(Timeline {
        first_request_ms: ms(accepted, asked),
        task_ms: ms(accepted, reviewed),
        before_effects_ms: ms(accepted, begun),
        choose_gates_ms: ms(accepted, chosen.at),
        briefing_ms: ms(begun, asked),
        outside_effects_ms: ms(accepted, reviewed) - covered_ms(spans),
        events: until.len(),
        effects_ms,
    })
}

fn never_waited(lines: &[Line]) -> String {
    let end = lines.iter().rev().find_map(|line| match &line.event {
        Event::TaskEnded { outcome } => Some(outcome.message.as_str()),
        _ => None,
    });
    format!("the task never waited for anybody; {}", end.unwrap_or("it has not ended"))
}

fn read(log: &str) -> anyhow::Result<Vec<Line>> {
    let lines = log.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("an event can't be read: {line}"))).collect()
}

/// An effect with its result.
struct Done {
    label: String,
    begun: Moment,
    ended: Moment,
}

/// All effects that have ended, in the order in which they began.
fn effects(lines: &[Line]) -> anyhow::Result<Vec<Done>> {
    let mut done = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let Event::EffectStarted { id, effect } = &line.event else { continue };
        let answer = lines.iter().skip(place).find_map(|later| match &later.event {
            Event::EffectEnded { id: of, result } if of == id => Some((later.at, result)),
            _ => None,
        });
        let Some((ended, result)) = answer else { continue };
        if result.kind == "failed" || result.is_error {
            bail!("{} did not work: {}", effect.label(), result.message.as_deref().unwrap_or("the log says more"));
        }
        if result.evidence.as_ref().is_some_and(|evidence| !evidence.passed) {
            bail!("the gate did not pass");
        }
        done.push(Done { label: effect.label(), begun: line.at, ended });
    }
    Ok(done)
}

fn check(until: &[Line], effects: &[Done]) -> anyhow::Result<()> {
    if let Some(Line { event: Event::WaitStarted { wait }, .. }) = until.last()
        && wait.kind != "review"
    {
        bail!("the task waits for {} instead of a review: {}", wait.kind, wait.reason);
    }
    let count = |label: &str| effects.iter().filter(|effect| effect.label == label).count();
    if count("call_model") != TURNS || TOOLS.iter().any(|tool| count(tool) != 1) || count("publish") != 1 {
        let done: Vec<&str> = effects.iter().map(|effect| effect.label.as_str()).collect();
        bail!("this is not the scripted task of {TURNS} turns; it did: {}", done.join(", "));
    }
    let judged = until.iter().rev().find_map(|line| match &line.event {
        Event::GatesJudged { judgement } => Some(judgement.passed),
        _ => None,
    });
    if count("run_gate") != 1 || judged != Some(true) {
        bail!("the task reached its review without one passed gate");
    }
    Ok(())
}

/// How long at least one of the spans was under way.
fn covered_ms(mut spans: Vec<(Moment, Moment)>) -> f64 {
    spans.sort_unstable();
    let mut covered = 0.0;
    let mut until = Moment::MIN;
    for (begun, ended) in spans {
        if ended > until {
            covered += ms(begun.max(until), ended);
            until = ended;
        }
    }
    covered
}

#[expect(clippy::cast_precision_loss, reason = "the time of one task in nanoseconds fits a float's mantissa")]
fn ms(from: Moment, to: Moment) -> f64 {
    (to - from) as f64 / 1e6
}

fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Moment, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a moment in UTC")))
}

/// `2026-11-21T17:18:26.63506919Z`; the event log has no other form.
fn parse(text: &str) -> Option<Moment> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date.split('-'))?;
    let [hour, minute, second] = numbers(clock.split(':'))?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some((((day_number(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}

fn numbers<'t>(mut parts: impl Iterator<Item = &'t str>) -> Option<[i64; 3]> {
    let mut next = || parts.next()?.parse().ok();
    let three = [next()?, next()?, next()?];
    parts.next().is_none().then_some(three)
}

/// Days since 1970, by years that begin in March, so that the leap day is the last one.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: &str, event: &str) -> String {
        format!(
            "{{\"v\":1,\"task\":\"t\",\"seq\":1,\"at\":\"2026-11-21T17:00:{at}Z\",\"actor\":{{\"kind\":\"platform\",\"name\":\"p\"}},\"event\":{event}}}\n"
        )
    }
    fn started(at: &str, id: &str, kind: &str) -> String {
        let (kind, tool) =
            kind.split_once(' ').map_or((kind, String::new()), |(kind, tool)| (kind, format!(",\"tool\":\"{tool}\"")));
        line(at, &format!("{{\"type\":\"effect_started\",\"id\":\"{id}\",\"effect\":{{\"kind\":\"{kind}\"{tool}}}}}"))
    }
    fn ended(at: &str, id: &str, result: &str) -> String {
        line(at, &format!("{{\"type\":\"effect_ended\",\"id\":\"{id}\",\"result\":{{\"kind\":{result}}}}}"))
    }

    fn whole() -> String {
        [
            line("00", "{\"type\":\"task_submitted\",\"spec\":{\"goal\":\"g\"},\"notes\":[]}"),
            line("00.010", "{\"type\":\"gates_chosen\",\"gates\":[],\"config_digest\":null}"),
            line("00.011", "{\"type\":\"attempt_started\",\"attempt\":1}"),
            started("00.012", "e1", "open_sandbox"),
            started("00.020", "e2", "call_model"),
            ended("00.030", "e2", "\"model_answered\""),
            started("00.031", "e3", "run_tool shell"),
            ended("00.080", "e1", "\"sandbox_opened\""),
            ended("00.090", "e3", "\"tool_returned\",\"is_error\":false"),
            started("00.100", "e4", "call_model"),
            ended("00.101", "e4", "\"model_answered\""),
            started("00.102", "e5", "run_tool write"),
            ended("00.104", "e5", "\"tool_returned\",\"is_error\":false"),
            started("00.105", "e6", "call_model"),
            ended("00.106", "e6", "\"model_answered\""),
            started("00.107", "e7", "collect"),
            ended("00.207", "e7", "\"collected\""),
            started("00.208", "e8", "run_gate"),
            ended("00.308", "e8", "\"gate_ran\",\"evidence\":{\"passed\":true}"),
            line("00.309", "{\"type\":\"gates_judged\",\"judgement\":{\"passed\":true}}"),
            started("00.310", "e9", "publish"),
            ended("00.360", "e9", "\"published\""),
            line("00.361", "{\"type\":\"wait_started\",\"wait\":{\"kind\":\"review\",\"reason\":\"ready\"}}"),
        ]
        .concat()
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
    }

    #[test]
    fn a_tasks_times_come_from_its_events() {
        let timeline = of_log(&whole()).unwrap();
        near(timeline.first_request_ms, 20.0);
        near(timeline.task_ms, 361.0);
        near(timeline.choose_gates_ms, 10.0);
        near(timeline.before_effects_ms, 12.0);
        near(timeline.briefing_ms, 8.0);
        near(timeline.effects_ms["open_sandbox"][0], 68.0);
        near(timeline.effects_ms["run_tool_shell"][0], 59.0);
        assert_eq!(timeline.effects_ms["call_model"].len(), 3);
        // 12 before, 10 after the first tool, 1 between each of the other steps, twice at the end.
        near(timeline.outside_effects_ms, 361.0 - 78.0 - 1.0 - 2.0 - 1.0 - 100.0 - 100.0 - 50.0);
        assert_eq!(timeline.events, 23);
    }

    #[test]
    fn what_comes_after_the_review_is_no_part_of_the_task() {
        let closed = [started("05", "e20", "close_sandbox"), ended("06", "e20", "\"sandbox_closed\"")].concat();
        let timeline = of_log(&(whole() + &closed)).unwrap();
        near(timeline.task_ms, 361.0);
        assert_eq!(timeline.events, 23);
        assert!(!timeline.effects_ms.contains_key("close_sandbox"));
        near(timeline.outside_effects_ms, of_log(&whole()).unwrap().outside_effects_ms);
        assert!(is_cleared(&(whole() + &closed)).unwrap() && !is_cleared(&whole()).unwrap());
    }

    #[test]
    fn a_task_that_did_not_work_gives_no_figures() {
        for (from, to, why) in [
            ("\"kind\":\"review\"", "\"kind\":\"question\"", "waits for question"),
            ("\"judgement\":{\"passed\":true}", "\"judgement\":{\"passed\":false}", "without one passed gate"),
            ("\"evidence\":{\"passed\":true}", "\"evidence\":{\"passed\":false}", "gate did not pass"),
            ("\"is_error\":false", "\"is_error\":true", "run_tool_shell did not work"),
            ("\"sandbox_opened\"", "\"failed\",\"message\":\"no namespaces\"", "no namespaces"),
            ("\"run_tool\",\"tool\":\"write\"", "\"run_tool\",\"tool\":\"read\"", "not the scripted task"),
            ("wait_started", "noted", "never waited"),
            ("\"wait_started\",", "\"task_ended\",\"outcome\":{\"message\":\"no answer left\"},", "no answer left"),
            ("task_submitted", "noted", "acceptance"),
            ("17:00:00.361Z", "yesterday", "yesterday"),
        ] {
            let log = whole();
            assert!(log.contains(from), "{from}");
            let error = format!("{:#}", of_log(&log.replace(from, to)).unwrap_err());
            assert!(error.contains(why), "{error} does not say {why}");
        }
    }

    #[test]
    fn moments_are_read_to_the_nanosecond_and_across_midnight_and_leap_days() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2001-09-09T01:46:40.00000001Z"), Some(1_000_000_000_000_000_010));
        let midnight = parse("2028-03-01T00:00:00Z").unwrap() - parse("2028-02-29T23:59:59.999999999Z").unwrap();
        assert_eq!(midnight, 1);
        for bad in ["2026-11-21T17:00:00+01:00", "2026-11-21", "2026-11-21T17:00Z", "2026-11-21T17:00:00.1234567891Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn effects_that_overlap_count_once() {
        near(
            covered_ms(vec![(4_000_000, 6_000_000), (0, 3_000_000), (1_000_000, 2_000_000), (5_000_000, 7_000_000)]),
            6.0,
        );
        near(covered_ms(vec![]), 0.0);
    }
}
