//! The fold's accounting: who is born, who dies, who is free. Design sections 1 and 3.

use crate::node::UNKNOWN;
use crate::row::{add, sub, unit};
use crate::tree::Tree;
use cow_format::entry::{Count, NodeState, Root};
use cow_format::{Gen, NodeId, mutant};

/// See [`Tree::kill`].
struct Judge {
    x: NodeId,
    parent: NodeId,
    /// Gen of the parent.
    above: Gen,
    /// What its walker has passed, and the grandparent's gen, while the parent is being walked.
    passed: Option<(u64, Gen)>,
}

impl Judge {
    /// Whose the block was that is free now; none while the parent has it too.
    fn owner(&self, birth: Gen, range_end: u64) -> Option<NodeId> {
        let equal = birth == self.above && birth > Gen(0) && mutant::is("killequal");
        if birth > self.above || equal {
            return Some(self.x);
        }
        let (cursor, grand) = self.passed?;
        (range_end <= cursor && birth > grand).then_some(self.parent)
    }
}

impl Tree {
    /// Nodes that no fold has seen, parents before children (R1): each must go through
    /// [`Tree::root_for_fold`] in this fold even if it has no layer.
    pub fn unrooted(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.unrooted.iter().copied().collect();
        ids.sort_by_key(|&id| (self.node(id).map(|node| node.entry.label_gen), id));
        ids
    }

    /// The root that a fold merges the node's layers into. A node that no fold has seen gets its
    /// parent's, as folded in this fold, and its mapped counts with it.
    pub fn root_for_fold(&mut self, id: NodeId) -> Root {
        let Some(node) = self.node(id) else { return Root::default() };
        if node.rooted {
            return node.entry.root;
        }
        let from = self.parent(id).map(|parent| {
            debug_assert!(parent.rooted, "a node is folded before its parent");
            (parent.entry.root, parent.entry.mapped)
        });
        self.unrooted.remove(&id);
        let Some(node) = self.node_mut(id) else { return Root::default() };
        node.rooted = true;
        if let Some((root, mapped)) = from {
            node.entry.root = root;
            node.entry.mapped = mapped;
        }
        node.entry.root
    }

    /// A fold wrote the node's map anew.
    pub fn set_root(&mut self, id: NodeId, root: Root) {
        if let Some(node) = self.node_mut(id) {
            debug_assert!(node.rooted, "a root for a node whose fold was not begun");
            node.entry.root = root;
            node.map_changes += 1;
        }
    }

    /// A content root was computed for the node's tree.
    pub fn set_merkle(&mut self, id: NodeId, merkle: [u8; 32]) {
        if let Some(node) = self.node_mut(id) {
            node.entry.merkle = Some(Box::new(merkle));
        }
    }

    /// Node `x` replaces or discards a pointer: to a map node or a data block, of this birth,
    /// whose range ends before block `range_end`. Returns whether the block is free; if not it
    /// is counted in the kill row.
    ///
    /// While the parent is being walked and its walker has passed the range, the pointer is
    /// judged against the grandparent: the walker kept it only because `x` had it (R4).
    pub fn kill(&mut self, x: NodeId, is_map: bool, birth: Gen, range_end: u64) -> bool {
        let Some(judge) = self.judge(x) else { return false };
        let owner = judge.owner(birth, range_end);
        self.assert_owner(x, birth, owner);
        match owner {
            Some(owner) => self.lose(owner, unit(is_map, 1)),
            None => self.count_kills(x, &[birth], is_map),
        }
        owner.is_some()
    }

    /// [`Tree::kill`] of several pointers, each given by its birth and the end of its range; `told`
    /// hears of each, in order, whether its block is free. What they have in common is looked up once:
    /// a leaf loses up to 256 in a row.
    pub fn kill_all(
        &mut self,
        x: NodeId,
        is_map: bool,
        pointers: impl IntoIterator<Item = (Gen, u64)>,
        mut told: impl FnMut(bool),
    ) {
        let Some(judge) = self.judge(x) else {
            return pointers.into_iter().for_each(|_| told(false));
        };
        let (mut own, mut parents, mut counted) = (0, 0, Vec::new());
        for (birth, range_end) in pointers {
            let owner = judge.owner(birth, range_end);
            self.assert_owner(x, birth, owner);
            match owner {
                Some(owner) if owner == x => own += 1,
                Some(_) => parents += 1,
                None => counted.push(birth),
            }
            told(owner.is_some());
        }
        self.lose(x, unit(is_map, own));
        self.lose(judge.parent, unit(is_map, parents));
        counted.sort_unstable();
        self.count_kills(x, &counted, is_map);
    }

    /// What kills by `x` are judged by.
    fn judge(&self, x: NodeId) -> Option<Judge> {
        let parent = self.node(x)?.entry.parent;
        let node = self.node(parent);
        let walked = node.filter(|node| node.entry.state == NodeState::Walking);
        let passed = walked.filter(|_| !mutant::is("nocursor"));
        let passed = passed.map(|node| (node.entry.cursor, self.parent_gen(parent)));
        let above = node.map_or(Gen(0), |node| node.entry.label_gen);
        Some(Judge { x, parent, above, passed })
    }

    fn assert_owner(&self, x: NodeId, birth: Gen, owner: Option<NodeId>) {
        debug_assert!(
            self.node(x).is_none_or(|node| birth <= node.entry.label_gen),
            "a pointer from the future"
        );
        debug_assert!(
            owner.is_none_or(|owner| mutant::is("killequal") || owner == self.owner(x, birth)),
            "a freed pointer has another owner"
        );
    }

    /// So many blocks that `owner` owned are free.
    fn lose(&mut self, owner: NodeId, count: Count) {
        if count == Count::default() {
            return;
        }
        if let Some(node) = self.node_mut(owner) {
            node.entry.own = sub(node.entry.own, count);
            let born = sub(node.entry.born, count);
            self.set_born(owner, born);
        }
    }

    /// Pointers of these births, in order, that the parent of `x` has and `x` no more.
    fn count_kills(&mut self, x: NodeId, births: &[Gen], is_map: bool) {
        if births.is_empty() {
            return;
        }
        let Some(node) = self.node_cache_mut(x) else { return };
        for same in births.chunk_by(|a, b| a == b) {
            node.row.add(same[0], unit(is_map, same.len() as u64));
        }
        node.row_changes += 1;
        let parent = node.entry.parent;
        self.dirty_rows.insert(x);
        self.untrim(parent);
        // The parent's own figure goes with it while `x` is its only child.
        let grand = self.parent_gen(parent);
        let young = births.len() - births.partition_point(|&birth| birth <= grand);
        if young > 0
            && let Some(above) = self.node(parent)
            && above.children.len() == 1
            && above.entry.unique != UNKNOWN
            && !mutant::is("uniquestale")
            && let Some(above) = self.node_mut(parent)
        {
            above.entry.unique = add(above.entry.unique, unit(is_map, young as u64));
        }
    }

    /// The fold wrote `count` new blocks on behalf of `x`.
    pub fn note_born(&mut self, x: NodeId, is_map: bool, count: u64) {
        if let Some(node) = self.node_mut(x) {
            node.entry.own = add(node.entry.own, unit(is_map, count));
            let born = add(node.entry.born, unit(is_map, count));
            self.set_born(x, born);
        }
    }

    /// The map of `x` has `delta` more blocks: one less for each kill, one more for each block
    /// born, and what damage takes away.
    pub fn note_mapped_delta(&mut self, x: NodeId, is_map: bool, delta: i64) {
        if let Some(node) = self.node_mut(x) {
            let count = unit(is_map, delta.unsigned_abs());
            let mapped = node.entry.mapped;
            node.entry.mapped = if delta < 0 { sub(mapped, count) } else { add(mapped, count) };
        }
    }

    /// The walker of `walked` freed blocks of these births.
    pub fn note_walk_freed(
        &mut self,
        walked: NodeId,
        is_map: bool,
        births: impl IntoIterator<Item = Gen>,
    ) {
        let mut freed = 0;
        for birth in births {
            debug_assert_eq!(
                self.owner(walked, birth),
                walked,
                "a walker frees what its node owns"
            );
            freed += 1;
        }
        if let Some(node) = self.node(walked).filter(|_| freed > 0) {
            let born = sub(node.entry.born, unit(is_map, freed));
            self.set_born(walked, born);
        }
    }
}
