//! What the engine knows of content roots: those that no checkpoint has yet, pages that are kept in
//! memory, and views of heads that somebody hashes.

use crate::wait::WaitList;
use cow_format::entry::Root;
use cow_format::{BLOCK_SIZE, FamilyId, Gen, NodeId};
use cow_merkle::Page;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Pages by level and index; one that is not there has zeros only, unless it is below the floor.
pub(crate) type PageMap = BTreeMap<(u8, u64), Rc<Page>>;

/// Whose pages: a node at one moment. A map never changes, so node, root of the map and size say
/// which; without a root it is a node that cannot change any more, read through its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagesOf {
    pub(crate) node: NodeId,
    pub(crate) map: Option<Root>,
    pub(crate) size_bytes: u64,
}

/// The pages of one state of a volume, as far as they are kept.
pub(crate) struct PageSet {
    pub(crate) of: PagesOf,
    pub(crate) label: Gen,
    /// The content root.
    pub(crate) root: [u8; 32],
    /// The lowest level that is kept.
    pub(crate) floor: u8,
    pub(crate) pages: PageMap,
}

impl PageSet {
    fn bytes(&self) -> usize {
        self.pages.len() * BLOCK_SIZE
    }
}

/// A head's map as a fold has published it.
#[derive(Clone, Copy)]
pub(crate) struct HeadMap {
    pub(crate) root: Root,
    pub(crate) family: FamilyId,
    pub(crate) label: Gen,
    pub(crate) size_bytes: u64,
}

/// Somebody waits for a head's map as of a fold that begins after now.
pub(crate) struct Wanted {
    pub(crate) node: NodeId,
    /// Folds that had begun then.
    pub(crate) since: u64,
    pub(crate) found: Option<HeadMap>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct SealState {
    /// Roots of snapshots that no checkpoint has yet. Losing one costs time, never truth.
    pub(crate) unsaved: BTreeMap<NodeId, [u8; 32]>,
    /// Pages, those used last at the end.
    sets: VecDeque<Rc<PageSet>>,
    pub(crate) wanted: BTreeMap<u64, Wanted>,
    /// Views of heads and the epochs of their pins: what a head lets go of is not given out again
    /// as long as one stands.
    pub(crate) held: BTreeMap<u64, u64>,
    next_view: u64,
    /// Somebody hashes because he was asked to. One at a time, as each needs memory.
    pub(crate) busy: bool,
    pub(crate) wait: WaitList,
    /// There may be snapshots to seal unasked.
    pub(crate) look: bool,
    /// The task that does so runs.
    pub(crate) sealing: bool,
    /// Snapshots that could not be sealed: not tried again until the pool is opened anew.
    pub(crate) failed: std::collections::BTreeSet<NodeId>,
}

impl SealState {
    /// Whether anything here goes on by time alone.
    pub(crate) fn wants_tick(&self) -> bool {
        self.look || self.sealing || !self.unsaved.is_empty()
    }

    pub(crate) fn new_view(&mut self) -> u64 {
        self.next_view += 1;
        self.next_view
    }

    /// The pages of this state, if they are here.
    pub(crate) fn find(&mut self, of: PagesOf) -> Option<Rc<PageSet>> {
        let at = self.sets.iter().position(|set| set.of == of)?;
        let set = self.sets.remove(at)?;
        self.sets.push_back(Rc::clone(&set));
        Some(set)
    }

    /// Keeps pages, and forgets others that were used longer ago until all fit `limit` bytes.
    /// Pages that two sets share count twice.
    pub(crate) fn keep(&mut self, set: Rc<PageSet>, limit: usize) {
        self.sets.retain(|other| other.of != set.of);
        self.sets.push_back(set);
        while self.sets.iter().map(|set| set.bytes()).sum::<usize>() > limit {
            self.sets.pop_front();
        }
    }
}
