//! Which layers nobody needs any more.
//!
//! Needed is what a box on disk is made of, what a call is at work with, and what the caller names.
//! Whatever else is found is only marked, and goes at the next look if it was not touched until
//! then; so the time between two looks is the grace, and no clock is read. Absent: the walks over
//! files that tell sizes, and the removal itself (layers are taken out of sight here, and removed by
//! whoever asked, without keeping starts waiting).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::id::Digest;

use crate::local::layout::{Layout, layer_name};
use crate::port::SandboxError;

/// The layers as far as this process has touched them, by their names.
#[derive(Debug, Default)]
pub struct Shelf {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many calls are at work with a layer.
    held: HashMap<String, usize>,
    /// Unused at the latest look, and not touched since.
    idle: HashSet<String>,
    /// At which touch each was touched last, the touches counted.
    touched: HashMap<String, u64>,
    touches: u64,
}

/// How much may stay although nobody needs it.
#[derive(Debug, Default)]
pub struct Budget {
    /// For all layers together; 0 for nothing.
    pub bytes: u64,
    /// What each layer takes, by name; not needed where nothing may stay.
    pub sizes: HashMap<String, u64>,
}

/// Keeps layers on the shelf until it is dropped; they then outlast the next look.
#[derive(Debug)]
pub struct Held<'a> {
    shelf: &'a Shelf,
    names: Vec<String>,
}

impl Shelf {
    /// Touches layers and keeps them, whether they are there yet or not.
    pub fn hold(&self, layers: &[Digest]) -> Held<'_> {
        let names: Vec<String> = layers.iter().map(|key| layer_name(key).to_owned()).collect();
        let mut state = self.state();
        state.touches += 1;
        let touch = state.touches;
        for name in &names {
            state.idle.remove(name);
            state.touched.insert(name.clone(), touch);
            *state.held.entry(name.clone()).or_default() += 1;
        }
        Held { shelf: self, names }
    }

    /// Takes layers out of sight that were not needed at the look before and are not now; gives
    /// what is then to be removed. Those that were touched last stay as long as all layers together
    /// are within the budget. No layer can be held meanwhile.
    pub fn clear<'a>(
        &self,
        layout: &Layout,
        keep: impl Iterator<Item = &'a Digest>,
        budget: &Budget,
    ) -> Result<Vec<PathBuf>, SandboxError> {
        let mut state = self.state();
        let mut needed: HashSet<String> = keep.map(|key| layer_name(key).to_owned()).collect();
        needed.extend(state.held.keys().cloned());
        for id in layout.boxes() {
            match layout.record(&id)? {
                Some(record) => {
                    needed.extend(record.layers.iter().chain(&record.pending).map(|key| layer_name(key).to_owned()));
                }
                None if layout.living(&id).is_some() => {
                    tracing::warn!(%id, "no layer is removed: it is not known of which ones this box is made");
                    return Ok(Vec::new());
                }
                None => {}
            }
        }
        let unused: HashSet<String> = layout.layer_names().into_iter().filter(|name| !needed.contains(name)).collect();
        let mut candidates: Vec<&String> = unused.intersection(&state.idle).collect();
        candidates.sort_by_key(|name| (state.touched.get(*name).copied().unwrap_or(0), *name));
        let size = |name: &String| budget.sizes.get(name).copied().unwrap_or(0);
        let mut total: u64 = budget.sizes.values().sum();
        let mut taken = Vec::new();
        let mut gone = HashSet::new();
        for name in candidates {
            if budget.bytes > 0 && total <= budget.bytes {
                break;
            }
            taken.extend(layout.take_layer_away(name)?);
            total = total.saturating_sub(size(name));
            gone.insert(name.clone());
        }
        state.touched.retain(|name, _| !gone.contains(name));
        state.idle = unused.difference(&gone).cloned().collect();
        Ok(taken)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.shelf.state();
        for name in &self.names {
            if let Some(count) = state.held.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(name);
                }
            }
        }
    }
}
