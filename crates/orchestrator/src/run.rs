//! One task's loop: fold, plan, do the first thing, store what came of it, again.
//!
//! The loop after a restart is the everyday loop. It has no state of its own but what can be had
//! again at any time: the project's hub and a place among the working tasks. A task's end, from
//! whichever side, drops what is being done; only a landing is finished first. Absent:
//! decisions. They are made by `plan`, `agent::turn`, `gates` and `policy`.

use std::sync::Arc;
use std::time::Duration;

use agent::native;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::event::{Event, MessageSource};
use domain::fold::effect_id;
use domain::id::{EffectId, SandboxId};
use domain::plan::{Action, plan};
use domain::principal::Principal;
use domain::task::{Outcome, Task, TaskState, Wait, WaitKind};
use forge::Project;
use jiff::Timestamp;
use policy::LandPermit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::choice::choose_gates;
use crate::doors;
use crate::effects::{Performance, perform};
use crate::failure::Failure;
use crate::handle::Shared;
use crate::hub::project_of;
use crate::journal::{after_ms, sleep_until};
use crate::live::Live;
use crate::log::{RecordError, TaskLog};
use crate::place::place_of;
use crate::ports::Settings;

/// Pause after a store error, before the loop looks again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Pause after the repository could not be read, before the loop looks again.
const REPOSITORY_RETRY: Duration = Duration::from_secs(5);

/// What one task's loop works with.
pub(crate) struct Runner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) log: Arc<TaskLog>,
}

impl Runner {
    /// Runs until nothing is left to do for the task.
    pub(crate) async fn run(self) {
        let mut slot: Option<OwnedSemaphorePermit> = None;
        loop {
            let task = self.log.task().await;
            let now = self.now();
            let Some(action) = plan(&task, now).into_iter().next() else { break };
            if let Action::WakeAt(until) = action {
                slot = None;
                self.rest(&task).await;
                tokio::select! {
                    () = sleep_until(now, until) => {}
                    () = self.log.grown_past(task.seq) => {}
                }
                continue;
            }
            if slot.is_none() && needs_place(&task, &action) {
                slot = self.place(&task).await;
                continue;
            }
            if let Err(error) = self.step(&task, action).await {
                let raced = matches!(error, RecordError::Illegal(_)) && self.log.task().await.seq != task.seq;
                if !raced {
                    tracing::error!(task = %task.id, %error, "the task's next step could not be made");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
        drop(slot);
        self.sweep().await;
    }

    /// While a task waits for a person, what its agent left running uses no processor time. Whatever is
    /// asked of the box wakes it.
    async fn rest(&self, task: &Task) {
        let Some(sandbox) = task.attempt_sandbox().filter(|sandbox| task.sandboxes.contains(sandbox)) else { return };
        if task.wait.is_some()
            && let Err(error) = self.shared.ports.boxes.suspend(&sandbox).await
        {
            tracing::debug!(task = %task.id, %error, "the box does not rest");
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.ports.clock.now()
    }

    /// A place among the working tasks, or nothing if something happened to the task meanwhile.
    async fn place(&self, task: &Task) -> Option<OwnedSemaphorePermit> {
        if self.slots.available_permits() == 0 {
            self.shared.live.tell(&task.id, Live::Progress { text: "waits for other tasks to finish".to_owned() });
        }
        tokio::select! {
            slot = self.slots.clone().acquire_owned() => slot.ok(),
            () = self.log.grown_past(task.seq) => None,
            () = self.passed(ends_at(task)) => None,
        }
    }

    /// Does one thing, unless the task ends or its time runs out first.
    async fn step(&self, task: &Task, action: Action) -> Result<(), RecordError> {
        let lands = matches!(&action, Action::Land | Action::Recover { effect: Effect::Land { .. }, .. });
        if task.state.is_terminal() || lands {
            return self.act(task, action).await;
        }
        let deadline = ends_at(task);
        tokio::select! {
            biased;
            done = self.act(task, action) => done,
            () = self.log.ended() => Ok(()),
            () = self.passed(deadline) => Ok(()),
        }
    }

    async fn passed(&self, at: Timestamp) {
        loop {
            let now = self.now();
            if now >= at {
                return;
            }
            sleep_until(now, at).await;
        }
    }

    async fn act(&self, task: &Task, action: Action) -> Result<(), RecordError> {
        match action {
            Action::WakeAt(_) => Ok(()),
            Action::StartAttempt { attempt } => self.decided(task, Event::AttemptStarted { attempt }).await,
            Action::AskReview { reason } => self.ask_review(task, reason).await,
            Action::End { state, outcome } => self.decided(task, Event::TaskEnded { state, outcome }).await,
            Action::GiveFeedback { source, text } => self.decided(task, Event::MessageAdded { source, text }).await,
            Action::Judge { commit } => {
                let judgement = gates::judge(task.gates.as_deref().unwrap_or_default(), &task.evidence, &commit);
                self.decided(task, Event::GatesJudged { judgement }).await
            }
            Action::Decide { .. } => self.decide(task).await,
            Action::ChooseGates
            | Action::RunAgent { .. }
            | Action::Recover { .. }
            | Action::Perform(_)
            | Action::Land => self.act_on_repository(task, action).await,
        }
    }

    async fn act_on_repository(&self, task: &Task, action: Action) -> Result<(), RecordError> {
        if task.state.is_terminal() {
            return self.close(task, action).await;
        }
        let project = match project_of(&*self.shared.ports.forge, task).await {
            Ok(project) => project,
            Err(failure) => return self.cannot(task, failure).await,
        };
        match action {
            Action::ChooseGates => match self.choose(&project, task).await {
                Ok(events) => self.all_decided(task, events).await,
                Err(failure) => self.cannot(task, failure).await,
            },
            Action::RunAgent { attempt } => self.run_agent(task, &project, attempt).await,
            Action::Recover { id, effect } => self.recover(task, &project, &id, effect).await,
            Action::Perform(effect) => self.begin(task, &project, effect).await,
            Action::Land => self.land(task, &project).await,
            _ => Ok(()),
        }
    }

    /// What the base commit says about the task: its environment and its gates.
    async fn choose(&self, project: &Project, task: &Task) -> Result<Vec<Event>, Failure> {
        let ports = &self.shared.ports;
        let place = self.shared.places.of(ports, &self.settings, project, &task.spec.repo.base);
        let (place, gates) = futures_util::future::try_join(place, choose_gates(ports, project, task)).await?;
        let remarks = doors::remarks(&self.shared, &place.recipe().task_network, &task.spec.repo.origin).await?;
        let notes = remarks.into_iter().map(|text| Event::Noted { text });
        Ok([Event::EnvironmentChosen { environment: place.choice.clone() }, gates].into_iter().chain(notes).collect())
    }

    /// All that is left to do after the end: boxes go away, also when the repository is gone.
    async fn close(&self, task: &Task, action: Action) -> Result<(), RecordError> {
        let (id, effect) = match action {
            Action::Perform(effect) => (effect_id(task), effect),
            Action::Recover { id, effect } => (id, effect),
            _ => return Ok(()),
        };
        let Effect::CloseSandbox { sandbox } = &effect else { return Ok(()) };
        if !task.open_effects.contains_key(&id) {
            self.decided(task, Event::EffectStarted { id: id.clone(), effect: effect.clone() }).await?;
        }
        let result = match self.shared.ports.boxes.destroy(sandbox).await {
            Ok(()) => {
                doors::forget(&self.shared.ports.outside, sandbox);
                EffectResult::SandboxClosed
            }
            Err(error) => Failure::from(error).result(),
        };
        self.record(vec![Event::EffectEnded { id, result }]).await
    }

    /// Something that is not an effect of its own does not work: later again, or the end.
    pub(crate) async fn cannot(&self, task: &Task, failure: Failure) -> Result<(), RecordError> {
        if failure.class == FailureClass::Retry {
            tracing::warn!(task = %task.id, why = failure.message, "tried again");
            self.shared.live.tell(&task.id, Live::Progress { text: failure.message });
            tokio::time::sleep(REPOSITORY_RETRY).await;
            return Ok(());
        }
        let outcome = Outcome { reason: failure.source.into(), message: failure.message };
        self.decided(task, Event::TaskEnded { state: TaskState::Failed, outcome }).await
    }

    /// Stores what was planned for the task as it stood. If something happened to it meanwhile, nothing
    /// is stored: the next plan knows.
    async fn decided(&self, task: &Task, event: Event) -> Result<(), RecordError> {
        self.all_decided(task, vec![event]).await
    }

    async fn all_decided(&self, task: &Task, events: Vec<Event>) -> Result<(), RecordError> {
        let platform = Principal::platform();
        let recorded = self.log.record(&platform, |now| {
            let events = if now.seq == task.seq { events.clone() } else { Vec::new() };
            Ok::<_, RecordError>((events, ()))
        });
        recorded.await.map(|_| ())
    }

    /// Stores what has happened, whatever else happened meanwhile.
    async fn record(&self, events: Vec<Event>) -> Result<(), RecordError> {
        let platform = Principal::platform();
        self.log.record(&platform, |_| Ok::<_, RecordError>((events.clone(), ()))).await.map(|_| ())
    }

    async fn ask_review(&self, task: &Task, reason: String) -> Result<(), RecordError> {
        let since = self.now();
        let wait = Wait {
            kind: WaitKind::Review,
            owner: task.requester.to_string(),
            reason,
            since,
            expires_at: after_ms(since, self.settings.wait_ms),
            effect: None,
        };
        self.decided(task, Event::WaitStarted { wait }).await
    }

    async fn decide(&self, task: &Task) -> Result<(), RecordError> {
        let (Some(change), Some(judgement)) = (&task.change, &task.judgement) else { return Ok(()) };
        let gates = task.gates.as_deref().unwrap_or_default();
        let evidence = gates.iter().filter_map(|gate| task.evidence_for(gate, &change.commit)).collect();
        let facts = policy::ChangeFacts { commit: &change.commit, judgement, evidence };
        self.decided(task, Event::Decided { decision: policy::decide(&facts) }).await
    }

    /// Stores the intent of an effect, performs it and stores what came of it.
    async fn begin(&self, task: &Task, project: &Project, effect: Effect) -> Result<(), RecordError> {
        let platform = Principal::platform();
        let (task, id) = self
            .log
            .record(&platform, |now| {
                let id = effect_id(now);
                // Somebody else's event came between plan and intent: plan again.
                let events = if now.seq == task.seq {
                    vec![Event::EffectStarted { id: id.clone(), effect: effect.clone() }]
                } else {
                    vec![]
                };
                Ok::<_, RecordError>((events, id))
            })
            .await?;
        if !task.open_effects.contains_key(&id) {
            return Ok(());
        }
        self.finish(&task, project, &id, &effect).await
    }

    async fn finish(&self, task: &Task, project: &Project, id: &EffectId, effect: &Effect) -> Result<(), RecordError> {
        let Ok(gate_box) = SandboxId::parse(&format!("{}-{id}", task.id)) else { return Ok(()) };
        self.shared.live.tell(&task.id, Live::Progress { text: progress(effect) });
        let permit = match effect {
            Effect::Land { .. } => match self.permit(task) {
                Ok(permit) => Some(permit),
                Err(denied) => {
                    let failure = Failure::new(FailureClass::NeedsPerson, FailureSource::User, denied.to_string());
                    let ended = Event::EffectEnded { id: id.clone(), result: failure.result() };
                    return self.record(vec![ended, denial(&denied)]).await;
                }
            },
            _ => None,
        };
        let (shared, settings) = (&self.shared, &self.settings);
        let performed = async {
            let place = place_of(shared, project, task).await?;
            let log = &self.log;
            let performance = Performance { shared, settings, project, place: &place, log, task, id, gate_box, permit };
            perform(&performance, effect).await
        };
        match performed.await {
            Ok(result) => self.record(vec![Event::EffectEnded { id: id.clone(), result }]).await,
            Err(failure) => {
                let ended = Event::EffectEnded { id: id.clone(), result: failure.result() };
                let told = failure.tell_agent.map(|text| Event::MessageAdded { source: MessageSource::Platform, text });
                self.record(std::iter::once(ended).chain(told).collect()).await
            }
        }
    }

    /// The permit for what the task proposes now, made from its recorded evidence.
    fn permit(&self, task: &Task) -> Result<LandPermit, policy::Denied> {
        let request = task.land_request.as_ref().ok_or(policy::Denied::Undecided)?;
        policy::permit(task, &request.by)
    }

    async fn recover(&self, task: &Task, project: &Project, id: &EffectId, effect: Effect) -> Result<(), RecordError> {
        use agent::port::Journal as _;
        let recovered = match &effect {
            Effect::OpenSandbox { .. } | Effect::CallModel { .. } => {
                self.journal(task, None).end(id, native::unknown("the platform was restarted meanwhile")).await
            }
            Effect::RunTool { .. } | Effect::RunCommand { .. } => {
                let Some(sandbox) = task.attempt_sandbox() else { return Ok(()) };
                // What still runs in the box finds its way out again.
                let (_place, door) = match self.place_and_door(task, project, &sandbox).await {
                    Ok(both) => both,
                    Err(failure) => return self.cannot(task, failure).await,
                };
                let journal = self.journal(task, door.as_ref());
                self.recover_in_box(task, id, &effect, &journal).await
            }
            _ => return self.finish(task, project, id, &effect).await,
        };
        self.after_agent(recovered)
    }

    /// Asks for the permit; merges a base that moved, or lands.
    async fn land(&self, task: &Task, project: &Project) -> Result<(), RecordError> {
        let (Some(request), Some(change)) = (&task.land_request, &task.change) else { return Ok(()) };
        let permit = match self.permit(task) {
            Ok(permit) => permit,
            Err(denied) => return self.decided(task, denial(&denied)).await,
        };
        let stands = self.shared.ports.forge.branch_head(project, permit.branch()).await;
        let effect = match stands {
            Ok(Some(now)) if now != change.onto && now != change.commit => {
                Effect::MergeBase { commit: change.head.clone(), onto: now }
            }
            // Whatever else is wrong with the branch, landing says it best.
            Ok(_) | Err(_) => Effect::Land {
                commit: permit.commit().clone(),
                branch: permit.branch().to_owned(),
                expected_base: permit.expected_base().clone(),
                update_worktree: request.update_worktree,
            },
        };
        self.begin(task, project, effect).await
    }

    /// Removes boxes that an effect left behind when it was dropped.
    async fn sweep(&self) {
        let prefix = format!("{}-", self.log.id());
        let boxes = match self.shared.ports.boxes.list().await {
            Ok(boxes) => boxes,
            Err(error) => {
                tracing::warn!(task = %self.log.id(), %error, "boxes could not be listed");
                return;
            }
        };
        for info in boxes.into_iter().filter(|info| info.id.as_str().starts_with(&prefix)) {
            doors::forget(&self.shared.ports.outside, &info.id);
            if let Err(error) = self.shared.ports.boxes.destroy(&info.id).await {
                tracing::warn!(sandbox = %info.id, %error, "a box could not be removed");
            }
        }
    }
}

/// When the task ends if nobody does anything.
pub(crate) fn ends_at(task: &Task) -> Timestamp {
    task.spec.contract.deadline.unwrap_or(Timestamp::MAX).min(task.wall_expires_at())
}

/// Whether this is work that takes turns with other tasks' work.
fn needs_place(task: &Task, action: &Action) -> bool {
    let works = matches!(
        action,
        Action::StartAttempt { .. }
            | Action::RunAgent { .. }
            | Action::Recover { .. }
            | Action::Perform(_)
            | Action::Land
    );
    works && !task.state.is_terminal()
}

fn denial(denied: &policy::Denied) -> Event {
    Event::Denied { action: "land".to_owned(), rule: denied.rule().to_owned(), reason: denied.to_string() }
}

fn progress(effect: &Effect) -> String {
    match effect {
        Effect::Collect { .. } => "collects the result".to_owned(),
        Effect::RunGate { gate, commit } => format!("runs gate {} on {} in a clean sandbox", gate.name, commit.short()),
        Effect::Publish { .. } => "publishes the branch".to_owned(),
        Effect::MergeBase { .. } => "merges the base, which moved".to_owned(),
        Effect::Land { branch, .. } => format!("lands on {branch}"),
        Effect::CloseSandbox { .. } => "removes the sandbox".to_owned(),
        Effect::OpenSandbox { .. } => "starts the sandbox".to_owned(),
        Effect::BuildEnvironment { .. } => "builds the environment".to_owned(),
        Effect::Snapshot { .. } => "keeps the files".to_owned(),
        Effect::CallModel { .. } | Effect::RunTool { .. } | Effect::RunCommand { .. } => "works".to_owned(),
    }
}
