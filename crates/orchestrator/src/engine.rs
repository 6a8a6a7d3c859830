//! The engine: one loop per task that has something left to do.
//!
//! A signal gives speed (a command or a submission wakes the task), the store gives truth (at the
//! start and again every few seconds, each task that is due gets its loop). Absent: several nodes;
//! the data folder has one owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::id::TaskId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::builds::{self, Builds};
use crate::environment::Turns;
use crate::handle::{Handle, Shared, no_boxes};
use crate::keeping;
use crate::live::LiveHub;
use crate::log::{Logs, RecordError};
use crate::place::Places;
use crate::ports::{Ports, Settings};
use crate::run::Runner;

/// How often layers that nobody uses are removed.
const TIDY_EVERY: Duration = Duration::from_secs(15 * 60);

/// How long the last reports of doors may take at the end.
const LAST_REPORTS: Duration = Duration::from_secs(3);

/// The loops at work, by task.
type Running = HashMap<TaskId, tokio::task::Id>;

/// How often the store is asked which tasks are due, in case a signal was lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The engine, ready to run.
pub struct Engine {
    shared: Arc<Shared>,
    settings: Settings,
    slots: Arc<Semaphore>,
    woken: mpsc::UnboundedReceiver<TaskId>,
}

impl Engine {
    /// Puts the engine together and finds out whether boxes can be had here.
    pub async fn new(ports: Ports, settings: Settings) -> (Self, Handle) {
        let no_boxes = Mutex::new(no_boxes(&*ports.boxes).await);
        let live = LiveHub::default();
        let logs = Logs::new(ports.store.clone(), live.clone(), ports.clock.clone());
        let (wake, woken) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            ports,
            logs,
            live,
            settings: settings.clone(),
            places: Places::default(),
            turns: Turns::default(),
            builds: Builds::default(),
            reporters: Mutex::default(),
            works: Mutex::default(),
            wake,
            no_boxes,
        });
        let slots = Arc::new(Semaphore::new(settings.max_working.max(1)));
        (Self { shared: shared.clone(), settings, slots, woken }, Handle { shared })
    }

    /// Runs until `shutdown`. Tasks that are not done go on after the next start.
    ///
    /// # Errors
    /// If the store can't say what is unfinished.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), store::ReadError> {
        let unfinished = self.shared.ports.store.index.unfinished().await?;
        self.remove_orphans(&unfinished).await;
        self.recover_builds();
        self.close_doors().await;
        let mut running = Running::new();
        let mut loops: JoinSet<()> = JoinSet::new();
        for id in unfinished {
            self.run_task(id, &mut running, &mut loops).await;
        }
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tidy.tick() => self.tidy(),
                _ = look.tick() => self.run_due(&mut running, &mut loops).await,
                Some(id) = self.woken.recv() => self.run_task(id, &mut running, &mut loops).await,
                Some(done) = loops.join_next_with_id(), if !loops.is_empty() => {
                    let id = match &done {
                        Ok((id, ())) => *id,
                        Err(error) => {
                            tracing::error!(%error, "a task's loop broke off; it begins anew");
                            error.id()
                        }
                    };
                    running.retain(|_, loop_id| *loop_id != id);
                }
            }
        }
        loops.shutdown().await;
        let mut works = std::mem::take(&mut *self.shared.works());
        works.shutdown().await;
        // Doors close with the loops; what passed them last is still being written down.
        let mut reporters = std::mem::take(&mut *self.shared.reporters());
        let written = async { while reporters.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_REPORTS, written).await;
        self.rest_boxes().await;
        Ok(())
    }

    async fn run_due(&self, running: &mut Running, loops: &mut JoinSet<()>) {
        let due = self.shared.ports.store.index.due(self.shared.ports.clock.now()).await;
        for id in due.unwrap_or_default() {
            self.run_task(id, running, loops).await;
        }
    }

    async fn run_task(&self, id: TaskId, running: &mut Running, loops: &mut JoinSet<()>) {
        if running.contains_key(&id) {
            return;
        }
        match self.shared.logs.open(&id).await {
            Ok(log) => {
                let runner = Runner {
                    shared: self.shared.clone(),
                    settings: self.settings.clone(),
                    slots: self.slots.clone(),
                    log,
                };
                running.insert(id, loops.spawn(runner.run()).id());
            }
            Err(RecordError::NotFound(_)) => {}
            Err(error) => tracing::error!(task = %id, %error, "the task can't be worked on"),
        }
    }

    /// Removes what nobody needs, beside the loop: it walks over many files.
    fn tidy(&self) {
        let shared = self.shared.clone();
        self.shared.works().spawn(async move {
            match keeping::tidy(&shared).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed layers that nobody uses"),
                Err(failure) => tracing::warn!(why = failure.message, "layers could not be removed"),
            }
        });
    }

    /// What is left of doors whose boxes are gone.
    async fn close_doors(&self) {
        let boxes = self.shared.ports.boxes.list().await.unwrap_or_default();
        self.shared.ports.outside.forget_all_but(boxes.iter().map(|info| &info.id));
    }

    /// Builds that were under way when the program ended.
    fn recover_builds(&self) {
        if let Err(failure) = builds::recover(&self.shared) {
            tracing::warn!(why = failure.message, "the list of environments can't be read");
        }
    }

    /// Boxes whose task has ended or was never stored.
    async fn remove_orphans(&self, unfinished: &[TaskId]) {
        let boxes = match self.shared.ports.boxes.list().await {
            Ok(boxes) => boxes,
            Err(error) => {
                tracing::warn!(%error, "boxes could not be listed");
                return;
            }
        };
        let owned = |id: &str| unfinished.iter().any(|task| id.starts_with(&format!("{task}-")));
        for info in boxes.into_iter().filter(|info| !owned(info.id.as_str())) {
            match self.shared.ports.boxes.destroy(&info.id).await {
                Ok(()) => tracing::info!(sandbox = %info.id, "removed a box that nobody needs"),
                Err(error) => tracing::warn!(sandbox = %info.id, %error, "a box could not be removed"),
            }
        }
    }

    /// Ends the processes of all boxes; their files stay for the next start.
    async fn rest_boxes(&self) {
        for info in self.shared.ports.boxes.list().await.unwrap_or_default().into_iter().filter(|info| info.alive) {
            if let Err(error) = self.shared.ports.boxes.stop(&info.id).await {
                tracing::warn!(sandbox = %info.id, %error, "a box could not be stopped");
            }
        }
    }
}
