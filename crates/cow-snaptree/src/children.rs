//! Which nodes have a node as their parent. Nearly all have one child: that needs no memory beside
//! the node, which a pool with many snapshots has many of.

use cow_format::NodeId;
use std::ops::Deref;

/// Ids, ascending.
#[derive(Clone, Debug)]
pub struct Children(Kept);

#[derive(Clone, Debug)]
enum Kept {
    One(NodeId),
    Any(Vec<NodeId>),
}

impl Children {
    pub(crate) const NONE: Self = Self(Kept::Any(Vec::new()));

    /// Them all.
    pub fn as_slice(&self) -> &[NodeId] {
        match &self.0 {
            Kept::One(child) => std::slice::from_ref(child),
            Kept::Any(children) => children,
        }
    }

    pub(crate) fn insert(&mut self, child: NodeId) {
        let Err(at) = self.binary_search(&child) else { return };
        match &mut self.0 {
            Kept::One(other) => {
                let mut both = vec![*other];
                both.insert(at, child);
                self.0 = Kept::Any(both);
            }
            Kept::Any(children) if children.is_empty() => self.0 = Kept::One(child),
            Kept::Any(children) => children.insert(at, child),
        }
    }

    pub(crate) fn remove(&mut self, child: NodeId) {
        let Ok(at) = self.binary_search(&child) else { return };
        match &mut self.0 {
            Kept::One(_) => *self = Self::NONE,
            Kept::Any(children) => drop(children.remove(at)),
        }
    }
}

impl Deref for Children {
    type Target = [NodeId];

    fn deref(&self) -> &[NodeId] {
        self.as_slice()
    }
}

/// How they are kept makes no difference.
impl PartialEq for Children {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Children {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn they_are_a_set_however_they_are_kept() {
        let (mut children, mut plain, mut rng) = (Children::NONE, BTreeSet::new(), Rng(1));
        for round in 0..2000 {
            let child = NodeId(rng.next() % 6);
            // Mostly few, then mostly many.
            if rng.below(4) < [1, 3][round / 1000] {
                children.insert(child);
                plain.insert(child);
            } else {
                children.remove(child);
                plain.remove(&child);
            }
            assert!(children.iter().eq(&plain), "{children:?}, not {plain:?}");
            let mut again = Children::NONE;
            plain.iter().for_each(|&child| again.insert(child));
            assert_eq!(children, again);
        }
    }
}
