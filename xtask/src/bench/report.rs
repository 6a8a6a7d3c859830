//! What `bench engine` says: flat figures with their units for machines, rows for people.
//!
//! Absent: measuring.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::scripted::Ran;
use super::server::Memory;
use super::stats::{Percentiles, rounded};
use super::timeline::{TURNS, Timeline};

/// Aim for the first request, at the median.
const FIRST_REQUEST_AIM_MS: f64 = 50.0;
/// Aim for the idle server.
const IDLE_AIM_MB: f64 = 40.0;
/// In this order the effects happen; any other follows.
const ORDER: [&str; 7] =
    ["open_sandbox", "call_model", "run_tool_shell", "run_tool_write", "collect", "run_gate", "publish"];

/// The fields that are used here of what the store's `append_bench` prints as its last line.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct AppendBench {
    append_events_per_s_1: f64,
    append_events_per_s_16: f64,
    append_events_per_s_64: f64,
    fdatasync_floor_ms_p50: f64,
    fdatasync_floor_after_ms_p50: f64,
}

/// Everything that was measured in this run.
pub struct Measured {
    pub profile: &'static str,
    /// How busy the processors were with other work, just before the tasks.
    pub others_cpu_percent: f64,
    pub ready_ms: f64,
    pub idle: Memory,
    pub after_tasks: Memory,
    pub spawns_ms: Vec<f64>,
    pub tasks: Vec<Ran>,
    pub append: AppendBench,
}

/// Everything, for machines.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    profile: &'static str,
    cores: usize,
    runs: usize,
    others_cpu_percent: f64,
    first_request_p50_ms: f64,
    first_request_p95_ms: f64,
    three_turn_task_p50_ms: f64,
    three_turn_task_p95_ms: f64,
    run_returns_p50_ms: f64,
    run_returns_p95_ms: f64,
    append_events_per_s_full: f64,
    append_events_per_s_1: f64,
    append_events_per_s_16: f64,
    fdatasync_floor_ms: f64,
    fdatasync_floor_after_ms: f64,
    spawn_floor_p50_ms: f64,
    server_ready_ms: f64,
    idle_rss_mb: f64,
    idle_pss_mb: f64,
    rss_after_tasks_mb: f64,
    pss_after_tasks_mb: f64,
    /// Events of one task until its review.
    task_events: usize,
    /// By step, `…_p50_ms`: how long each takes, however many there are in a task.
    effects: BTreeMap<String, f64>,
    #[serde(skip)]
    per_task: BTreeMap<String, usize>,
}

impl Report {
    /// Puts the figures together; fails without tasks.
    pub fn of(measured: &Measured) -> anyhow::Result<Self> {
        let tasks = &measured.tasks;
        let over = |figure: &dyn Fn(&Ran) -> f64| {
            let all: Vec<f64> = tasks.iter().map(figure).collect();
            let found = Percentiles::of(&all).context("no task was run")?;
            Ok::<_, anyhow::Error>(Percentiles { p50: rounded(found.p50), p95: rounded(found.p95) })
        };
        let first_request = over(&|ran| ran.timeline.first_request_ms)?;
        let task = over(&|ran| ran.timeline.task_ms)?;
        let run_returns = over(&|ran| ran.run_returns_ms)?;
        let spawn = Percentiles::of(&measured.spawns_ms).context("the spawn floor was not measured")?;
        let mut effects = BTreeMap::new();
        for (name, _, figure) in STEPS {
            effects.insert(format!("{name}_p50_ms"), over(&|ran| figure(&ran.timeline))?.p50);
        }
        let mut by_kind: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (kind, taken) in tasks.iter().flat_map(|ran| &ran.timeline.effects_ms) {
            by_kind.entry(kind).or_default().extend(taken);
        }
        for (kind, taken) in &by_kind {
            if let Some(found) = Percentiles::of(taken) {
                effects.insert(format!("{kind}_p50_ms"), rounded(found.p50));
            }
        }
        let task_events = tasks.first().map_or(0, |ran| ran.timeline.events);
        if let Some(other) = tasks.iter().find(|ran| ran.timeline.events != task_events) {
            bail!(
                "the tasks are not alike, so they can't be compared: {task_events} events and {}",
                other.timeline.events
            );
        }
        let append = measured.append;
        Ok(Self {
            bench: "engine",
            profile: measured.profile,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            runs: tasks.len(),
            others_cpu_percent: rounded(measured.others_cpu_percent),
            first_request_p50_ms: first_request.p50,
            first_request_p95_ms: first_request.p95,
            three_turn_task_p50_ms: task.p50,
            three_turn_task_p95_ms: task.p95,
            run_returns_p50_ms: run_returns.p50,
            run_returns_p95_ms: run_returns.p95,
            append_events_per_s_full: append.append_events_per_s_64,
            append_events_per_s_1: append.append_events_per_s_1,
            append_events_per_s_16: append.append_events_per_s_16,
            fdatasync_floor_ms: append.fdatasync_floor_ms_p50,
            fdatasync_floor_after_ms: append.fdatasync_floor_after_ms_p50,
            spawn_floor_p50_ms: rounded(spawn.p50),
            server_ready_ms: rounded(measured.ready_ms),
            idle_rss_mb: mb(measured.idle.rss_bytes),
            idle_pss_mb: mb(measured.idle.pss_bytes),
            rss_after_tasks_mb: mb(measured.after_tasks.rss_bytes),
            pss_after_tasks_mb: mb(measured.after_tasks.pss_bytes),
            task_events,
            per_task: by_kind
                .into_iter()
                .map(|(kind, taken)| (kind.to_owned(), taken.len() / tasks.len().max(1)))
                .collect(),
            effects,
        })
    }

    /// The report for people.
    pub fn rows(&self) -> String {
        let appends = format!(
            "{:.0} /s (64), {:.0} /s (16), {:.0} /s (1)",
            self.append_events_per_s_full, self.append_events_per_s_16, self.append_events_per_s_1
        );
        let memory = |rss: f64, pss: f64| format!("RSS {rss:.1} MB, PSS {pss:.1} MB");
        let head = format!(
            "engine, {} build, {} cores, {:.0} % busy with other work, {} scripted tasks of {TURNS} turns\n",
            self.profile, self.cores, self.others_cpu_percent, self.runs
        );
        let rows = [
            row(
                "accepted to first model request",
                &both(self.first_request_p50_ms, self.first_request_p95_ms),
                &format!("aim: p50 within {FIRST_REQUEST_AIM_MS:.0} ms"),
            ),
            row(
                "accepted to review",
                &both(self.three_turn_task_p50_ms, self.three_turn_task_p95_ms),
                &format!("{} events", self.task_events),
            ),
            self.effect_rows(),
            row(
                "`chargehand run` returns",
                &both(self.run_returns_p50_ms, self.run_returns_p95_ms),
                &format!("floor: spawn of /bin/true {:.2} ms", self.spawn_floor_p50_ms),
            ),
            row(
                "appends at FULL (producers)",
                &appends,
                &format!(
                    "floor: fdatasync {} ms before, {} ms after",
                    self.fdatasync_floor_ms, self.fdatasync_floor_after_ms
                ),
            ),
            row("idle server", &memory(self.idle_rss_mb, self.idle_pss_mb), &format!("aim: under {IDLE_AIM_MB:.0} MB")),
            row("the same after the tasks", &memory(self.rss_after_tasks_mb, self.pss_after_tasks_mb), ""),
            row("server start to healthy", &format!("{:.0} ms", self.server_ready_ms), ""),
        ];
        head + &rows.concat()
    }

    /// Where a task's time goes: steps, then effects in the order in which they happen.
    fn effect_rows(&self) -> String {
        let figure = |key: &str| self.effects.get(&format!("{key}_p50_ms"));
        let steps = STEPS.iter().map(|(key, name, _)| (*key, (*name).to_owned()));
        let known = ORDER.iter().map(|kind| (*kind, kind.replace('_', " ")));
        let others = self.per_task.keys().filter(|kind| !ORDER.contains(&kind.as_str()));
        let others = others.map(|kind| (kind.as_str(), kind.replace('_', " ")));
        let rows = steps.chain(known).chain(others).filter_map(|(key, name)| {
            let times = match self.per_task.get(key) {
                Some(count) if *count != 1 => format!("{count} in a task"),
                _ => String::new(),
            };
            Some(row(&format!("  {name}"), &format!("p50 {:.1} ms", figure(key)?), &times))
        });
        rows.collect()
    }
}

/// What a task's time is made of beside its effects: key, what it is, where it stands.
type Step = (&'static str, &'static str, fn(&Timeline) -> f64);

const STEPS: [Step; 4] = [
    ("choose_gates", "accepted to gates chosen", |timeline| timeline.choose_gates_ms),
    ("before_effects", "accepted to the first effect", |timeline| timeline.before_effects_ms),
    ("briefing", "first effect to first request", |timeline| timeline.briefing_ms),
    ("outside_effects", "no effect under way, in all", |timeline| timeline.outside_effects_ms),
];

fn row(name: &str, values: &str, beside: &str) -> String {
    format!("  {}\n", format!("{name:<33}{values:<44}{beside}").trim_end())
}

fn both(p50: f64, p95: f64) -> String {
    format!("p50 {p50:.1} ms    p95 {p95:.1} ms")
}

#[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
fn mb(bytes: u64) -> f64 {
    (bytes as f64 / 1e5).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(first_request_ms: f64) -> Ran {
        let effects_ms = [
            ("call_model", vec![1.0, 2.0, 3.0]),
            ("run_gate", vec![150.0]),
            ("open_sandbox", vec![90.0]),
            ("zzz_new", vec![5.0]),
        ];
        Ran {
            run_returns_ms: 30.0,
            timeline: Timeline {
                first_request_ms,
                task_ms: 600.0,
                effects_ms: effects_ms.map(|(kind, taken)| (kind.to_owned(), taken)).into(),
                before_effects_ms: 12.0,
                choose_gates_ms: 10.0,
                briefing_ms: 8.0,
                outside_effects_ms: 44.0,
                events: 25,
            },
        }
    }

    fn measured(tasks: Vec<Ran>) -> Measured {
        let append = r#"{"append_events_per_s_1":700.0,"append_ms_p50_1":1.3,"append_events_per_s_16":5000,"append_events_per_s_64":9000,"event_bytes":400,"fdatasync_floor_ms_p50":0.9,"fdatasync_floor_ms_p99":2.0,"fdatasync_floor_after_ms_p50":1.1,"optimized":true}"#;
        Measured {
            profile: "release",
            others_cpu_percent: 12.0,
            ready_ms: 35.0,
            idle: Memory { pss_bytes: 21_000_000, rss_bytes: 30_000_000 },
            after_tasks: Memory { pss_bytes: 25_040_000, rss_bytes: 34_000_000 },
            spawns_ms: vec![0.8, 0.7, 0.9],
            tasks,
            append: serde_json::from_str(append).unwrap(),
        }
    }

    #[test]
    fn machines_get_flat_figures_with_their_units() {
        let report = Report::of(&measured(vec![ran(12.0), ran(10.0), ran(11.0)])).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        for (key, figure) in [
            ("first_request_p50_ms", 11.0),
            ("first_request_p95_ms", 12.0),
            ("three_turn_task_p50_ms", 600.0),
            ("three_turn_task_p95_ms", 600.0),
            ("run_returns_p50_ms", 30.0),
            ("append_events_per_s_full", 9000.0),
            ("append_events_per_s_1", 700.0),
            ("append_events_per_s_16", 5000.0),
            ("fdatasync_floor_ms", 0.9),
            ("fdatasync_floor_after_ms", 1.1),
            ("spawn_floor_p50_ms", 0.8),
            ("idle_rss_mb", 30.0),
            ("idle_pss_mb", 21.0),
            ("rss_after_tasks_mb", 34.0),
            ("pss_after_tasks_mb", 25.0),
        ] {
            assert_eq!(json[key], figure, "{key}");
        }
        assert_eq!(json["effects"]["open_sandbox_p50_ms"], 90.0);
        assert_eq!(json["effects"]["call_model_p50_ms"], 2.0);
        assert_eq!(json["effects"]["outside_effects_p50_ms"], 44.0);
        assert_eq!((&json["runs"], &json["profile"]), (&3.into(), &"release".into()));
        assert!(json["cores"].as_u64().unwrap() >= 1);
    }

    #[test]
    fn people_get_rows_with_floors_and_aims_and_effects_in_the_order_in_which_they_happen() {
        let text = Report::of(&measured(vec![ran(12.0), ran(10.0), ran(11.0)])).unwrap().rows();
        for expected in [
            "12 % busy with other work",
            "p50 11.0 ms    p95 12.0 ms",
            "aim: p50 within 50 ms",
            "9000 /s (64), 5000 /s (16), 700 /s (1)",
            "fdatasync 0.9 ms before, 1.1 ms after",
            "RSS 30.0 MB, PSS 21.0 MB",
            "3 in a task",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in\n{text}"));
        assert!(place("open sandbox") < place("call model") && place("call model") < place("run gate"));
        assert!(place("run gate") < place("zzz new"), "an effect that is new here is shown too");
    }

    #[test]
    fn no_tasks_or_tasks_that_are_not_alike_give_no_figures() {
        assert!(Report::of(&measured(vec![])).is_err());
        let mut odd = ran(10.0);
        odd.timeline.events = 27;
        assert!(Report::of(&measured(vec![ran(10.0), odd])).err().unwrap().to_string().contains("25 events and 27"));
    }
}
