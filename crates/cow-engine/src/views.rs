//! Views of heads: maps as a fold published them, with the pins that keep their blocks.

use crate::core::Core;
use crate::seal_state::HeadMap;
use cow_snaptree::Tree;

impl Core {
    /// Keeps what any head has now from being given out again.
    pub(crate) fn hold_view(&mut self) -> u64 {
        let id = self.seal.new_view();
        let epoch = self.pin();
        self.seal.held.insert(id, epoch);
        id
    }

    pub(crate) fn release_view(&mut self, id: u64) {
        if let Some(epoch) = self.seal.held.remove(&id) {
            self.unpin(epoch);
        }
    }

    /// Somebody needs space: who looks at heads has to give up.
    pub(crate) fn break_views(&mut self) {
        for id in self.seal.held.keys().copied().collect::<Vec<_>>() {
            self.release_view(id);
        }
    }

    /// A fold publishes `tree`, in which no record after its freeze is applied yet.
    pub(crate) fn publish_views(&mut self, tree: &Tree) {
        let began = self.fold.started;
        let mut filled = Vec::new();
        for (&id, wanted) in &mut self.seal.wanted {
            if wanted.since >= began || wanted.found.is_some() {
                continue;
            }
            let Some(node) = tree.node(wanted.node).filter(|node| node.rooted) else { continue };
            wanted.found = Some(HeadMap {
                root: node.entry.root,
                family: node.entry.family,
                label: node.entry.label_gen,
                size_bytes: node.entry.size_bytes,
            });
            filled.push(id);
        }
        for id in filled {
            let epoch = self.pin();
            self.seal.held.insert(id, epoch);
        }
    }
}
