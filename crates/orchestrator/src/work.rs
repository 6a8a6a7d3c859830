//! The agent's own part of a task's loop: its box, its door, its journal, and what may still run after a
//! restart.
//!
//! Absent: everything the platform does itself (`run`, `effects`), and the agent's decisions.

use std::sync::{Arc, Mutex};

use agent::conversation::PendingCall;
use agent::port::JournalError;
use agent::{command, native};
use domain::effect::Effect;
use domain::id::{EffectId, SandboxId};
use domain::principal::Principal;
use domain::task::{AgentSpec, Task};
use forge::Project;
use sandbox::Sandbox;
use tokio::sync::watch;

use crate::boxes::BoxHands;
use crate::doors::{self, OpenDoor, Report};
use crate::environment::Ground;
use crate::failure::Failure;
use crate::files;
use crate::fork;
use crate::journal::TaskJournal;
use crate::log::RecordError;
use crate::place::{Place, place_of};
use crate::run::{Runner, ends_at};

impl Runner {
    pub(crate) async fn run_agent(&self, task: &Task, project: &Project, attempt: u32) -> Result<(), RecordError> {
        let Some(id) = task.attempt_sandbox() else { return Ok(()) };
        let (place, door) = match self.place_and_door(task, project, &id).await {
            Ok(both) => both,
            Err(failure) => return self.cannot(task, failure).await,
        };
        let journal = self.journal(task, door.as_ref());
        let hands = BoxHands {
            ground: Ground { ports: &self.shared.ports, project, place: &place, shared: &self.shared },
            id,
            attempt,
            keep_lowest: files::keep_lowest(task),
            log: &self.log,
            door: door.as_ref(),
            ready: watch::Sender::new(None),
        };
        let driven = match &task.spec.agent {
            AgentSpec::Native { model } => self.run_native(task, project, model, (&journal, &hands)).await,
            AgentSpec::Command { argv } => {
                let program = command::Program {
                    journal: &journal,
                    attempt,
                    argv,
                    time_limit_ms: task.spec.contract.budget.wall_ms,
                };
                futures_util::future::join(hands.open(&journal), command::drive(&program, &hands)).await.1
            }
        };
        drop(hands);
        if let Some(door) = door {
            // What passed is on record before the result counts.
            door.close().await;
        }
        self.after_agent(driven)
    }

    /// The box opens while the model already reads the task.
    async fn run_native(
        &self,
        task: &Task,
        project: &Project,
        model: &str,
        (journal, hands): (&TaskJournal, &BoxHands<'_>),
    ) -> Result<(), JournalError> {
        use agent::port::Journal as _;
        let chosen = match self.shared.ports.models.choose(Some(model)) {
            Ok(chosen) => chosen,
            Err(why) => return journal.finish(hands.attempt, native::cannot_begin(why), task.seq).await.map(|_| ()),
        };
        let driving = async {
            let instructions = crate::choice::instructions(&self.shared.ports, project, task).await;
            let instructions = instructions.map_err(|failure| JournalError::Failed(failure.message))?;
            let gates = task.gates.as_deref().unwrap_or_default();
            let briefing = agent::prompt::Briefing {
                spec: &task.spec,
                gates,
                instructions: instructions.as_ref().map(|(file, text)| (file.as_str(), text.as_str())),
            };
            let first = agent::prompt::first_message(&briefing);
            let beginning = fork::beginning(&self.shared.logs, task, first).await;
            let beginning = beginning.map_err(|error| JournalError::Failed(error.to_string()))?;
            let native = native::Native {
                journal,
                hands,
                provider: &*chosen.provider,
                rules: agent::turn::Rules {
                    model: chosen.model.clone(),
                    budget: task.spec.contract.budget.clone(),
                    expires_at: ends_at(task),
                    on_ambiguity: task.spec.contract.autonomy.on_ambiguity,
                },
                beginning,
            };
            native::drive(&native).await
        };
        futures_util::future::join(hands.open(journal), driving).await.1
    }

    /// Follows what the agent's box may still be doing.
    pub(crate) async fn recover_in_box(
        &self,
        task: &Task,
        id: &EffectId,
        effect: &Effect,
        journal: &TaskJournal,
    ) -> Result<(), JournalError> {
        use agent::port::Journal as _;
        let alive = self.living_box(task).await;
        if let Some(call) = PendingCall::of_effect(effect) {
            let result = native::recovered_tool(journal, alive.as_deref(), id, &call).await;
            return journal.end(id, result).await;
        }
        let Effect::RunCommand { attempt, argv } = effect else { return Ok(()) };
        let time_limit_ms = task.spec.contract.budget.wall_ms;
        let program = command::Program { journal, attempt: *attempt, argv, time_limit_ms };
        command::recover(&program, id, alive.as_deref()).await
    }

    /// The attempt's box, if it lived on while the platform did not.
    async fn living_box(&self, task: &Task) -> Option<Arc<dyn Sandbox>> {
        self.shared.ports.boxes.attach(&task.attempt_sandbox()?).await.ok().flatten()
    }

    /// Where the task's boxes stand, and the open door of one of them, if there is anything to reach.
    pub(crate) async fn place_and_door(
        &self,
        task: &Task,
        project: &Project,
        sandbox: &SandboxId,
    ) -> Result<(Arc<Place>, Option<OpenDoor>), Failure> {
        let shared = &self.shared;
        let place = place_of(shared, project, task).await?;
        let repo = &task.spec.repo.origin;
        let allow = &place.recipe().task_network;
        let wish = doors::Wish { sandbox, issuer: sandbox, allow, told: allow, repo, environment: None };
        let door = doors::open(shared, &wish, Report::Task(self.log.clone())).await?;
        Ok((place, door))
    }

    pub(crate) fn journal(&self, task: &Task, door: Option<&OpenDoor>) -> TaskJournal {
        TaskJournal {
            shared: self.shared.clone(),
            log: self.log.clone(),
            actor: Principal::agent(task.spec.agent.name(), &task.requester),
            wait_ms: self.settings.wait_ms,
            known: door.map(|door| door.known.clone()).unwrap_or_default(),
            streaming: Mutex::default(),
        }
    }

    /// A task that ended meanwhile is no error.
    pub(crate) fn after_agent(&self, done: Result<(), JournalError>) -> Result<(), RecordError> {
        match done {
            Ok(()) | Err(JournalError::Ended) => Ok(()),
            Err(JournalError::Failed(why)) => Err(RecordError::Agent { task: self.log.id().clone(), why }),
        }
    }
}
