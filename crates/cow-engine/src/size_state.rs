//! What is known of sizes: from the counts where nothing branches, else from walks (`exact.rs`), whose
//! results are kept until something that they depend on has changed.

use cow_format::NodeId;
use cow_format::entry::Count;
use cow_snaptree::{Component, Tree};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Results that are kept.
const MAX_KNOWN: usize = 1 << 14;

/// What is known of sizes that need a walk, and what is to be found out.
#[derive(Default)]
pub(crate) struct Sizes {
    /// By the nodes that go: the stamp of their component, and data blocks.
    known: HashMap<Vec<NodeId>, (u64, u64)>,
    pub(crate) queue: VecDeque<NodeId>,
    pub(crate) queued: BTreeSet<NodeId>,
    pub(crate) running: bool,
}

/// Bounds of what a set frees, in blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) freed: Count,
    pub(crate) most: u64,
    pub(crate) exact: bool,
}

impl Sizes {
    /// Walks have been made before for some of these components; the sizes of all of them.
    pub(crate) fn bounds(&self, tree: &Tree, ids: &[NodeId]) -> Bounds {
        let whole = tree.set_size(ids);
        if whole.exact {
            return Bounds { freed: whole.freed, most: whole.upper.data, exact: true };
        }
        let mut sum = Bounds { exact: true, ..Bounds::default() };
        for part in tree.components(ids) {
            let part = self.part(tree, &part);
            sum.freed.data += part.freed.data;
            sum.freed.map += part.freed.map;
            sum.most += part.most;
            sum.exact &= part.exact;
        }
        sum
    }

    pub(crate) fn part(&self, tree: &Tree, part: &Component) -> Bounds {
        let size = tree.set_size(&part.wanted);
        let mut bounds = Bounds { freed: size.freed, most: size.upper.data, exact: size.exact };
        if let Some(&(_, data)) =
            self.known.get(&part.wanted).filter(|(stamp, _)| !size.exact && *stamp == part.stamp)
        {
            bounds.freed.data = data;
            bounds.most = data;
            bounds.exact = true;
        }
        bounds
    }

    pub(crate) fn remember(&mut self, part: Component, blocks: u64) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(part.wanted, (part.stamp, blocks));
    }
}

/// The size of one node, if its rows are in memory.
pub(crate) fn unique(sizes: &Sizes, tree: &Tree, id: NodeId) -> Option<Bounds> {
    let (freed, exact) = tree.unique(id)?;
    if exact {
        return Some(Bounds { freed, most: freed.data, exact });
    }
    Some(sizes.bounds(tree, &[id]))
}
