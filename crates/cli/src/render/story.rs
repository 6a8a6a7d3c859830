//! A task's events as a conversation that a person enjoys reading, also while it happens. Pure:
//! a state machine that takes stored events and live pieces and gives pieces to print.
//!
//! What streamed in is not printed again when its event arrives. Absent: where events come from,
//! and when to stop reading; that is `commands::logs`.

use std::collections::BTreeMap;

use domain::effect::{Effect, EffectResult};
use domain::event::{Envelope, Event, MessageSource};
use domain::evidence::Evidence;
use domain::id::EffectId;
use domain::task::{AgentEnd, AgentSpec, TaskSpec};
use jiff::Timestamp;
use server::api::LiveItem;

use effects::{in_words, says, speaks};
use failures::Failures;

use super::words::{agent, clock, command_line, count, duration, money, owner, who};
use crate::terminal::{Line, Page, Piece, Style, fit};
use tools::Fold;

pub mod effects;
mod failures;
pub mod tools;

/// How much of an output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Columns of the page.
    pub columns: usize,
    /// Whether nothing is folded.
    pub full: bool,
}

/// What the kept end of an output is called where lines of it are left out.
const OF_THE_TAIL: &str = " of its end";
/// Lines of one output that stream before the rest is kept back.
const STREAMED_LINES: usize = 200;

/// The conversation so far, as far as later events depend on it.
#[derive(Debug)]
pub struct Story {
    wishes: Wishes,
    began: Option<Timestamp>,
    open: BTreeMap<EffectId, Effect>,
    streamed: Streamed,
    last_said: String,
    is_program: bool,
    has_gates: bool,
    failures: Failures,
}

/// What has been printed of the effect at work, before its event.
#[derive(Debug, Default)]
struct Streamed {
    text: String,
    thinking: bool,
    output_lines: usize,
    output_bytes: usize,
}

/// Pieces under construction.
#[derive(Debug, Default)]
struct Out(Vec<Piece>);

impl Out {
    fn line(&mut self, line: Line) {
        self.0.push(Piece::Line(line));
    }
    fn page(&mut self, page: Page) {
        self.0.extend(page.lines.into_iter().map(Piece::Line));
    }
    fn prose(&mut self, style: Style, text: &str, wishes: Wishes) {
        let mut page = Page::new();
        page.prose(2, style, text, wishes.columns);
        self.page(page);
    }
    fn speech(&mut self, style: Style, text: &str) {
        self.0.push(Piece::Stream { indent: 2, wrap: true, style, text: text.to_owned() });
    }
    fn output(&mut self, text: &str) {
        self.0.push(Piece::Stream { indent: 4, wrap: false, style: Style::Dim, text: text.to_owned() });
    }
}

impl Story {
    /// A conversation of which nothing was shown yet.
    #[must_use]
    pub fn new(wishes: Wishes) -> Self {
        Self {
            wishes,
            began: None,
            open: BTreeMap::new(),
            streamed: Streamed::default(),
            last_said: String::new(),
            is_program: false,
            has_gates: false,
            failures: Failures::default(),
        }
    }

    /// What to print for a stored event.
    pub fn event(&mut self, envelope: &Envelope) -> Vec<Piece> {
        let mut out = Out::default();
        let began = *self.began.get_or_insert(envelope.at);
        let at = clock(began, envelope.at);
        match &envelope.event {
            Event::EffectStarted { id, effect } => {
                if speaks(effect) {
                    self.streamed = Streamed::default();
                }
                self.open.insert(id.clone(), effect.clone());
                self.started(effect, &at, &mut out);
            }
            Event::EffectEnded { id, result } => {
                if let Some(effect) = self.open.remove(id) {
                    self.ended(&effect, result, envelope, &mut out);
                    if speaks(&effect) {
                        self.streamed = Streamed::default();
                    }
                }
            }
            other => self.happened(other, envelope, &at, &mut out),
        }
        out.0
    }

    /// What to print for a live piece.
    pub fn live(&mut self, item: &LiveItem) -> Vec<Piece> {
        let mut out = Out::default();
        // Stored events may overtake what passes by; what comes late was told already.
        let passes = matches!(item, LiveItem::Progress { .. });
        if !passes && !self.open.values().any(|effect| says(effect, item)) {
            return out.0;
        }
        match item {
            LiveItem::TextDelta { text, .. } => {
                if std::mem::take(&mut self.streamed.thinking) {
                    out.speech(Style::Plain, "\n");
                }
                self.streamed.text.push_str(text);
                out.speech(Style::Plain, text);
            }
            LiveItem::ThinkingDelta { text, .. } => {
                self.streamed.thinking = true;
                out.speech(Style::Dim, text);
            }
            LiveItem::Output { text, .. } => {
                let room = STREAMED_LINES.saturating_sub(self.streamed.output_lines);
                self.streamed.output_lines += text.bytes().filter(|byte| *byte == b'\n').count();
                self.streamed.output_bytes += text.len();
                if self.wishes.full {
                    out.output(text);
                } else if room > 0 {
                    text.split_inclusive('\n').take(room).for_each(|line| out.output(line));
                    if self.streamed.output_lines >= STREAMED_LINES {
                        out.line(Line::new().dim("    ⋮ more is coming; it is kept, and not shown here"));
                    }
                }
            }
            LiveItem::Progress { text } => out.0.push(Piece::Status(format!("  … {text}"))),
        }
        out.0
    }

    fn started(&self, effect: &Effect, at: &str, out: &mut Out) {
        let failed = self.failures.of(effect);
        if failed > 0 {
            out.0.push(Piece::Status(format!("  … {} again (try {})", in_words(effect), failed + 1)));
            return;
        }
        match effect {
            Effect::CallModel { turn, .. } => heading(out, &format!("turn {turn}"), at, None),
            Effect::RunTool { tool, input_json, .. } => out.page(tools::call(tool, input_json, self.wishes)),
            Effect::RunCommand { argv, .. } => {
                out.line(
                    Line::new()
                        .with(Style::Accent, "  ▸ command ")
                        .text(fit(&command_line(argv), self.wishes.columns.saturating_sub(12))),
                );
            }
            Effect::RunGate { gate, commit } => {
                let what = format!("{}  on {}", command_line(&gate.command), commit.short());
                heading(out, &format!("gate {}", gate.name), at, Some(&what));
            }
            Effect::Land { branch, commit, .. } => {
                heading(out, &format!("landing {} on {branch}", commit.short()), at, None)
            }
            Effect::MergeBase { onto, .. } => {
                heading(out, "merging", at, Some(&format!("the base branch has moved to {}", onto.short())));
            }
            Effect::BuildEnvironment { .. } => {
                heading(out, "environment", at, Some("is built in a sandbox of its own"))
            }
            Effect::OpenSandbox { .. }
            | Effect::CloseSandbox { .. }
            | Effect::Snapshot { .. }
            | Effect::Collect { .. }
            | Effect::Publish { .. } => {}
        }
    }

    fn ended(&mut self, effect: &Effect, result: &EffectResult, envelope: &Envelope, out: &mut Out) {
        let failed = self.failures.of(effect);
        // A box comes and goes beside what the agent does.
        let is_box =
            matches!(effect, Effect::OpenSandbox { .. } | Effect::CloseSandbox { .. } | Effect::Snapshot { .. });
        if !is_box && !matches!(result, EffectResult::Failed { .. }) {
            self.failures.over();
        }
        match result {
            EffectResult::ModelAnswered { message_json, usage, cost_micro_usd, duration_ms } => {
                self.answered(message_json, out);
                let mut facts = vec![duration(*duration_ms)];
                if let Some(usage) = usage {
                    let read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
                    facts.push(format!("{} tokens in, {} out", count(read), count(usage.output_tokens)));
                }
                facts.extend(cost_micro_usd.map(money));
                facts.extend((failed > 0).then(|| format!("at try {}", failed + 1)));
                out.line(Line::new().dim(format!("  · {}", facts.join(", "))));
            }
            EffectResult::ToolReturned { text, is_error, output_digest, duration_ms } => {
                if matches!(effect, Effect::RunTool { tool, .. } if tool == tools::ASK) {
                    out.line(
                        Line::new().text("  ").bold(format!("{} answers: ", who(&envelope.actor))).text(text.as_str()),
                    );
                    return;
                }
                let part = if output_digest.is_some() { " of what the model was shown" } else { "" };
                self.output(text, part, out);
                out.line(ending(!is_error, &duration(*duration_ms)));
            }
            EffectResult::CommandEnded { end, output_tail, duration_ms, .. } => {
                self.output(output_tail, OF_THE_TAIL, out);
                out.line(ending(end.succeeded(), &format!("{end} in {}", duration(*duration_ms))));
            }
            EffectResult::GateRan { evidence } => self.gate_ran(evidence, out),
            EffectResult::SandboxOpened { resumed, duration_ms } => {
                // A box may come up in the middle of a sentence, which goes on behind it.
                if self.is_speaking() {
                    return;
                }
                let word = if *resumed { "the sandbox goes on with its files" } else { "the sandbox is up" };
                out.line(Line::new().dim(format!("  · {word}, {}", duration(*duration_ms))));
            }
            EffectResult::SandboxClosed | EffectResult::SnapshotTaken { .. } => {}
            EffectResult::EnvironmentBuilt { reused, duration_ms, notes, .. } => {
                let word = if *reused { "found, built before" } else { "built" };
                out.line(ending(true, &format!("{word}, {}", duration(*duration_ms))));
                notes.iter().for_each(|note| remark(note, out));
            }
            EffectResult::Collected { commit, notes } => {
                match commit {
                    Some(commit) => out.line(Line::new().text("  the result left the box as ").bold(commit.short())),
                    None => out.line(Line::new().with(Style::Warn, "  no file was changed")),
                }
                notes.iter().for_each(|note| remark(note, out));
            }
            EffectResult::Published { branch } => {
                out.line(Line::new().text("  it can be seen in the repository as branch ").accent(branch.as_str()))
            }
            EffectResult::BaseMerged { commit } => {
                out.line(Line::new().text("  merged as ").bold(commit.short()).text("; the gates run again on that"))
            }
            EffectResult::Landed { commit, previous, worktree_updated } => {
                let along = if *worktree_updated { "; the work tree moved along" } else { "" };
                out.line(
                    Line::new()
                        .with(Style::Good, format!("  ✓ landed: {} → {}{along}", previous.short(), commit.short())),
                );
            }
            EffectResult::Failed { class, source, message, .. } => {
                out.line(self.failures.failed(effect, message, (*class, *source), self.wishes));
            }
        }
    }

    /// The answer's text, unless it streamed in already.
    fn answered(&mut self, message_json: &str, out: &mut Out) {
        let Ok(message) = serde_json::from_str::<model::AssistantMessage>(message_json) else {
            out.line(Line::new().with(Style::Warn, "  an answer that this version can't read; `logs --raw` shows it"));
            return;
        };
        let text = message.text();
        let shown = std::mem::take(&mut self.streamed.text);
        if !self.streamed.thinking && shown.is_empty() {
            for block in &message.blocks {
                if let model::BlockView::Thinking { text } = &block.view {
                    let fold = Fold { head: 2, tail: 0, part: "" };
                    out.page(tools::folded(text, fold, self.wishes, Style::Dim));
                }
            }
        }
        if shown.is_empty() {
            out.prose(Style::Plain, &text, self.wishes);
        } else if let Some(rest) = text.strip_prefix(shown.as_str()) {
            if !rest.is_empty() {
                out.speech(Style::Plain, rest);
            }
        } else if text.trim() != shown.trim() {
            out.line(Line::new().dim("  · some of it was missed; the whole answer:"));
            out.prose(Style::Plain, &text, self.wishes);
        }
        self.last_said = text;
    }

    fn is_speaking(&self) -> bool {
        self.streamed.thinking || !self.streamed.text.is_empty() || self.streamed.output_bytes > 0
    }

    /// An output, unless it streamed in already. `part` says what `text` is when it is not all.
    fn output(&self, text: &str, part: &'static str, out: &mut Out) {
        if self.streamed.output_bytes == 0 {
            let fold = Fold { head: 3, tail: 8, part };
            out.page(tools::folded(text, fold, self.wishes, Style::Dim));
        } else if self.streamed.output_lines > STREAMED_LINES && !self.wishes.full {
            out.line(Line::new().dim(format!("    ⋮ {} lines in all", count(self.streamed.output_lines as u64))));
        }
    }

    fn gate_ran(&self, evidence: &Evidence, out: &mut Out) {
        if !evidence.passed {
            self.output(&evidence.output_tail, OF_THE_TAIL, out);
        }
        let facts = format!("{} in {}", evidence.end, duration(evidence.duration_ms));
        let word = if evidence.passed { "passed" } else { "failed" };
        out.line(ending(evidence.passed, &format!("{word}: {facts}")));
    }

    /// Everything that is no effect.
    fn happened(&mut self, event: &Event, envelope: &Envelope, at: &str, out: &mut Out) {
        match event {
            Event::TaskSubmitted { spec, notes } => self.submitted(spec, notes, envelope, out),
            Event::Noted { text } => remark(text, out),
            Event::GatesChosen { gates, .. } if gates.is_empty() => {
                remark("no gate was found, so nothing will be proved", out)
            }
            Event::GatesChosen { gates, .. } => {
                self.has_gates = true;
                for gate in gates {
                    let source = if gate.source.is_empty() { "the contract" } else { gate.source.as_str() };
                    out.line(Line::new().dim(format!(
                        "  gate {}: {} ({source})",
                        gate.name,
                        command_line(&gate.command)
                    )));
                }
            }
            Event::EnvironmentChosen { environment } => super::egress::chosen(environment, &mut |line| out.line(line)),
            Event::EgressReported { requests, unlisted, .. } => {
                super::egress::reported(requests, *unlisted, &mut |line| out.line(line));
            }
            Event::AttemptStarted { attempt: 1 } => {}
            Event::AttemptStarted { attempt } => heading(out, &format!("attempt {attempt}"), at, None),
            Event::AgentEnded { end, .. } => self.agent_ended(end, out),
            Event::MessageAdded { source, text } => {
                let (who, style) = match source {
                    MessageSource::Person => (envelope.actor.name.as_str(), Style::Plain),
                    MessageSource::Gates => ("the gates", Style::Dim),
                    MessageSource::Platform => ("chargehand", Style::Dim),
                };
                heading(out, &format!("{who} to the agent"), at, None);
                let (head, tail) = if *source == MessageSource::Gates { (4, 0) } else { (12, 6) };
                out.page(tools::folded(text, Fold { head, tail, part: "" }, self.wishes, style));
            }
            Event::WaitStarted { wait } => {
                heading(out, &format!("waits for {}", owner(wait)), at, None);
                out.prose(Style::Warn, &self.failures.unsaid(&wait.reason), self.wishes);
            }
            Event::GatesJudged { judgement } if judgement.passed && !self.has_gates => {
                out.line(Line::new().with(Style::Warn, "  ! nothing was proved: there is no gate"));
            }
            Event::GatesJudged { judgement } if judgement.passed => {
                out.line(
                    Line::new()
                        .with(Style::Good, "  ✓ every required gate passed")
                        .dim(format!(" on {}", judgement.commit.short())),
                );
            }
            Event::GatesJudged { judgement } => {
                out.line(Line::new().with(Style::Bad, format!("  ✗ not proved: {}", judgement.failed.join(", "))));
            }
            Event::Decided { decision } => {
                out.line(
                    Line::new()
                        .text("  policy: ")
                        .bold(decision.tier.name())
                        .text(format!(", {}", decision.reason))
                        .dim(format!(" ({})", decision.rule)),
                );
            }
            Event::Approved { head, comment } => {
                let comment = if comment.is_empty() { String::new() } else { format!(": “{comment}”") };
                out.line(
                    Line::new()
                        .with(Style::Good, format!("  ✓ {} approved {}", who(&envelope.actor), head.short()))
                        .text(comment),
                );
            }
            Event::LandRequested { head, .. } => {
                out.line(Line::new().text(format!("  {} wants {} landed", who(&envelope.actor), head.short())))
            }
            Event::Denied { action, rule, reason } => {
                out.line(
                    Line::new()
                        .with(Style::Bad, format!("  ✗ denied: {action}"))
                        .text(format!(": {reason}"))
                        .dim(format!(" ({rule})")),
                );
            }
            Event::CancelRequested { reason } => out.line(
                Line::new()
                    .with(Style::Warn, format!("  {} calls it off", who(&envelope.actor)))
                    .text(format!(": {reason}")),
            ),
            Event::TaskEnded { state, outcome } => {
                let (style, word) = super::words::state(*state, None, Some(outcome.reason));
                out.line(Line::new());
                out.line(Line::new().with(style, word).dim(format!("  after {at}")));
                out.prose(Style::Plain, &self.failures.unsaid(&outcome.message), self.wishes);
            }
            Event::WaitEnded { .. } | Event::EffectStarted { .. } | Event::EffectEnded { .. } => {}
        }
    }

    fn submitted(&mut self, spec: &TaskSpec, notes: &[String], envelope: &Envelope, out: &mut Out) {
        self.is_program = matches!(spec.agent, AgentSpec::Command { .. });
        out.line(Line::new().bold(envelope.task.short()).text(format!("  asked by {}", who(&envelope.actor))));
        out.prose(Style::Bold, &spec.goal, self.wishes);
        let repo = &spec.repo;
        out.line(Line::new().dim(format!("  {}, branch {} at {}", repo.origin, repo.base_branch, repo.base.short())));
        out.line(Line::new().dim(format!("  {}", agent(&spec.agent))));
        if let Some(fork) = &spec.fork {
            let from = format!("  begins where {} stood after turn {}", fork.task.short(), fork.turn);
            out.line(Line::new().text(from));
        }
        notes.iter().for_each(|note| remark(note, out));
    }

    fn agent_ended(&mut self, end: &AgentEnd, out: &mut Out) {
        match end {
            // How a program ended stands just above.
            AgentEnd::Finished { .. } if self.is_program => {}
            AgentEnd::Finished { summary } if summary.trim() == self.last_said.trim() || summary.trim().is_empty() => {
                out.line(Line::new().dim("  · the agent says that it is done"));
            }
            AgentEnd::Finished { summary } => {
                out.line(Line::new().dim("  · the agent says that it is done:"));
                out.prose(Style::Plain, summary, self.wishes);
            }
            AgentEnd::Stopped { reason, message } => {
                let unsaid = self.failures.unsaid(message);
                out.line(
                    Line::new().with(Style::Bad, format!("  ✗ stopped ({})", reason.name())).text(after_colon(&unsaid)),
                );
            }
            AgentEnd::Lost { message } => {
                let unsaid = self.failures.unsaid(message);
                out.line(Line::new().with(Style::Warn, "  the agent's work was lost").text(after_colon(&unsaid)));
            }
        }
    }
}

fn heading(out: &mut Out, title: &str, at: &str, more: Option<&str>) {
    out.line(Line::new());
    let line = Line::new().bold(title).dim(format!("  {at}"));
    out.line(match more {
        Some(more) => line.text(format!("  {more}")),
        None => line,
    });
}

fn ending(good: bool, text: &str) -> Line {
    let line = Line::new().text("    ");
    if good {
        line.with(Style::Good, "✓").dim(format!(" {text}"))
    } else {
        line.with(Style::Bad, "✗").text(format!(" {text}"))
    }
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn remark(text: &str, out: &mut Out) {
    out.line(Line::new().with(Style::Warn, "  note: ").text(text));
}
