//! What can be asked of stacks of layers beyond making them: whether a box added anything, and the
//! same view in fewer layers. Absent: the snapshot itself (a change of a box's life).

use std::path::Path;

use domain::id::{Digest, SandboxId};

use crate::error::StorageContext as _;
use crate::local::boxes::{Boxes, Users};
use crate::local::flatten;
use crate::local::stack::{Dialect, Stack};
use crate::port::{Root, SandboxError, SnapshotRef};

impl Boxes {
    /// Whether a box's own changes are any.
    pub fn changed(&self, id: &SandboxId) -> Result<bool, SandboxError> {
        let Some(record) = self.settled(id)? else { return Ok(false) };
        if record.boot != self.layout.boot() {
            return Ok(false);
        }
        let upper = self.layout.run(id).join("u");
        let below = self.stack_of(&record.layers, 0);
        flatten::says_anything(&upper, &below, &record.points).doing("look through", &upper)
    }

    /// The same view with the layers above the lowest `keep_lowest` merged into one, the layer `key`.
    pub fn flatten(
        &self,
        snapshot: &SnapshotRef,
        keep_lowest: usize,
        key: &Digest,
    ) -> Result<SnapshotRef, SandboxError> {
        let all = &snapshot.layers;
        let merged = all.len().saturating_sub(keep_lowest);
        if merged < 2 {
            return Ok(snapshot.clone());
        }
        let _held = (self.shelf.hold(all), self.shelf.hold(std::slice::from_ref(key)));
        let flat = SnapshotRef { layers: all.iter().take(keep_lowest).chain([key]).cloned().collect() };
        if self.layout.layer(key).exists() {
            return Ok(flat);
        }
        if let Some(layer) = all.iter().find(|layer| !self.layout.layer(layer).exists()) {
            return Err(SandboxError::LayerMissing { layer: layer.clone() });
        }
        let holder = self.layout.new_holder()?;
        let written = flatten::flatten(&self.stack_of(all, merged), self.dialect(), &holder.join("root"));
        match written.and_then(|()| self.layout.publish(&holder, key)) {
            Ok(()) => Ok(flat),
            Err(error) => {
                self.layout.discard(&holder);
                Err(error)
            }
        }
    }

    /// Layers (lowest first) over the skeleton that they are started on, of which the topmost `above`
    /// are not the base. A root of its own is known by the programs in its lowest layer: beside the
    /// host's programs there can be none.
    fn stack_of(&self, layers: &[Digest], above: usize) -> Stack {
        let place = |layer: &Digest| self.layout.layer(layer).join("root");
        let programs = |root: &Path| ["bin", "usr"].iter().any(|name| root.join(name).symlink_metadata().is_ok());
        let own = layers.first().is_some_and(|lowest| programs(&place(lowest)));
        let skeleton = self.skeletons.of(if own { Root::Own } else { Root::Host });
        Stack::new(layers.iter().rev().chain([skeleton]).map(place).collect(), above, self.dialect())
    }

    const fn dialect(&self) -> Dialect {
        match self.users {
            Users::Range { .. } => Dialect::Trusted,
            Users::Single { .. } => Dialect::User,
        }
    }
}
