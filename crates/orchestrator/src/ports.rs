//! What the engine is put together from, complete at construction.
//!
//! Absent: any choice of an adapter; `cli` makes it.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use model::Provider;

use crate::doors::Outside;
use crate::network::NetworkSettings;
use crate::place::EnvironmentSettings;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// What time it is.
    fn now(&self) -> Timestamp;
}

/// Draws random bits.
pub trait Random: Send + Sync {
    /// 64 of them, from a source that nobody can guess.
    fn bits(&self) -> u64;
}

/// A model that can be asked.
#[derive(Clone)]
pub struct ChosenModel {
    /// Where it is asked.
    pub provider: Arc<dyn Provider>,
    /// Its name there.
    pub model: String,
    /// The selection as people write it: provider and model.
    pub selection: String,
}

/// Finds models by what people call them.
pub trait Models: Send + Sync {
    /// The model of a selection, or the configured one.
    ///
    /// # Errors
    /// A sentence that says what is missing and the ways out.
    fn choose(&self, selection: Option<&str>) -> Result<ChosenModel, String>;
}

/// All of it.
#[derive(Clone)]
pub struct Ports {
    /// Events, lists, blobs.
    pub store: store::Store,
    /// Repositories.
    pub forge: Arc<dyn forge::Forge>,
    /// Boxes.
    pub boxes: Arc<dyn sandbox::Provider>,
    /// What lies outside of all boxes, and the secrets for it.
    pub outside: Arc<Outside>,
    /// Models.
    pub models: Arc<dyn Models>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
}

/// What the files of one box may take on disk.
const BOX_DISK_BYTES: u64 = 20 << 30;
/// What all layers together may take on disk.
const LAYERS_BUDGET_BYTES: u64 = 20 << 30;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tasks at work at once; others wait for a place.
    pub max_working: usize,
    /// How long a question or a review waits before the task ends.
    pub wait_ms: u64,
    /// What a box may use.
    pub limits: sandbox::Limits,
    /// What all layers together may take on disk before those that nobody needs go.
    pub layers_budget_bytes: u64,
    /// Most bytes of a result.
    pub max_bundle_bytes: u64,
    /// Most bytes of a gate's output.
    pub max_gate_output_bytes: u64,
    /// A folder for bundles on their way out of a box.
    pub scratch: PathBuf,
    /// What environments may be made of.
    pub environments: EnvironmentSettings,
    /// What boxes may reach.
    pub network: NetworkSettings,
}

impl Settings {
    /// The defaults, with a scratch folder.
    #[must_use]
    pub fn new(scratch: PathBuf) -> Self {
        Self {
            max_working: 8,
            wait_ms: 14 * 24 * 60 * 60 * 1000,
            limits: sandbox::Limits { disk_bytes: Some(BOX_DISK_BYTES), ..sandbox::Limits::default() },
            layers_budget_bytes: LAYERS_BUDGET_BYTES,
            max_bundle_bytes: 1 << 30,
            max_gate_output_bytes: 64 << 20,
            environments: EnvironmentSettings {
                records: scratch.join("environments"),
                ..EnvironmentSettings::default()
            },
            network: NetworkSettings::default(),
            scratch,
        }
    }
}
