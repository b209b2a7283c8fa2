//! The sequential specification: what one operation after the other does.

use super::op::{Call, Cell, Node, SnapId, Token, VolumeId};
use crate::rng::mix;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a volume or snapshot holds; zeros are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    cells: BTreeMap<Cell, Token>,
    hash: u64,
}

impl Content {
    fn get(&self, cell: Cell) -> Token {
        self.cells.get(&cell).copied().unwrap_or(0)
    }

    fn set(&mut self, cell: Cell, token: Token) {
        let term = |token| if token == 0 { 0 } else { mix(mix(u64::from(cell)) ^ token) };
        let old =
            if token == 0 { self.cells.remove(&cell) } else { self.cells.insert(cell, token) };
        self.hash = self.hash.wrapping_add(term(token)).wrapping_sub(term(old.unwrap_or(0)));
    }
}

#[derive(Clone, Debug, Default)]
struct Volume {
    rollbacks: u64,
    head: Arc<Content>,
    snaps: BTreeMap<SnapId, Arc<Content>>,
}

/// Volumes with their snapshots. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub struct State {
    volumes: BTreeMap<VolumeId, Volume>,
}

impl State {
    /// Volumes that hold zeros.
    #[must_use]
    pub fn of(volumes: impl IntoIterator<Item = VolumeId>) -> Self {
        Self { volumes: volumes.into_iter().map(|id| (id, Volume::default())).collect() }
    }

    /// A word that stands for all of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = 0;
        for (&id, volume) in &self.volumes {
            hash = mix(hash ^ mix(u64::from(id)) ^ volume.rollbacks) ^ mix(volume.head.hash);
            for (&snap, content) in &volume.snaps {
                hash = mix(hash ^ mix(u64::from(snap)).rotate_left(17) ^ content.hash);
            }
        }
        hash
    }

    fn content(&self, node: Node) -> Option<&Content> {
        let volume = self.volumes.get(&node.volume())?;
        match node {
            Node::Head(_) => Some(&volume.head),
            Node::Snap(_, snap) => volume.snaps.get(&snap).map(|content| &**content),
        }
    }

    /// What a sector holds.
    #[must_use]
    pub fn get(&self, node: Node, cell: Cell) -> Option<Token> {
        Some(self.content(node)?.get(cell))
    }

    /// Whether the handle of a head is not fenced.
    fn is_valid(&self, volume: VolumeId, fence: u64) -> bool {
        self.volumes.get(&volume).is_some_and(|volume| volume.rollbacks == fence)
    }

    /// Whether it is a write that can never happen any more.
    #[must_use]
    pub fn is_fenced(&self, call: &Call) -> bool {
        let Call::Write { volume, fence, .. } = call else { return false };
        self.volumes.get(volume).is_some_and(|volume| volume.rollbacks > *fence)
    }

    /// Whether an operation that changes nothing has the right answer in this state.
    #[must_use]
    pub fn agrees(&self, call: &Call) -> bool {
        match call {
            Call::Read { node, fence, cells } => {
                let head = matches!(node, Node::Head(_));
                let holds = |content: &Content| {
                    cells.iter().all(|&(cell, token)| content.get(cell) == token)
                };
                (!head || self.is_valid(node.volume(), *fence))
                    && self.content(*node).is_some_and(holds)
            }
            Call::Fenced { volume, fence } => !self.is_valid(*volume, *fence),
            Call::Opened { node, fence } => {
                let head = matches!(node, Node::Head(_));
                self.content(*node).is_some() && (!head || self.is_valid(node.volume(), *fence))
            }
            Call::Missing(node) => self.content(*node).is_none(),
            Call::SnapshotRefused(volume, snap) => {
                self.volumes.get(volume).is_none_or(|volume| volume.snaps.contains_key(snap))
            }
            _ => self.after(call).is_some(),
        }
    }

    /// The state that an operation leaves; none, if it cannot have the answer that it had.
    #[must_use]
    pub fn after(&self, call: &Call) -> Option<Self> {
        if call.observes() {
            return self.agrees(call).then(|| self.clone());
        }
        let mut next = self.clone();
        match call {
            Call::Write { volume, fence, cells } => {
                if !self.is_valid(*volume, *fence) {
                    return None;
                }
                let head = Arc::make_mut(&mut next.volumes.get_mut(volume)?.head);
                cells.iter().for_each(|&(cell, token)| head.set(cell, token));
            }
            Call::Snapshot(volume, snap) => {
                let volume = next.volumes.get_mut(volume)?;
                let before = volume.snaps.insert(*snap, volume.head.clone());
                if before.is_some() {
                    return None;
                }
            }
            Call::Rollback { volume, to, undo } => {
                let volume = next.volumes.get_mut(volume)?;
                let content = volume.snaps.get(to)?.clone();
                let replaced = std::mem::replace(&mut volume.head, content);
                volume.rollbacks += 1;
                if let Some(undo) = undo
                    && volume.snaps.insert(*undo, replaced).is_some()
                {
                    return None;
                }
            }
            Call::Clone { from, snap, to } => {
                let content = self.volumes.get(from)?.snaps.get(snap)?.clone();
                let volume = Volume { head: content, ..Volume::default() };
                if next.volumes.insert(*to, volume).is_some() {
                    return None;
                }
            }
            Call::Delete(volume, snap) => {
                next.volumes.get_mut(volume)?.snaps.remove(snap)?;
            }
            _ => {}
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(fence: u64, token: Token) -> Call {
        Call::Write { volume: 1, fence, cells: vec![(0, token)] }
    }

    fn read(node: Node, fence: u64, token: Token) -> Call {
        Call::Read { node, fence, cells: vec![(0, token)] }
    }

    #[test]
    fn a_snapshot_keeps_what_the_head_had_and_a_rollback_brings_it_back() {
        let (head, snap) = (Node::Head(1), Node::Snap(1, 5));
        let mut state = State::of([1]);
        for call in [
            read(head, 0, 0),
            write(0, 7),
            Call::Snapshot(1, 5),
            Call::SnapshotRefused(1, 5),
            write(0, 8),
            read(head, 0, 8),
            read(snap, 0, 7),
            Call::Rollback { volume: 1, to: 5, undo: Some(6) },
            Call::Opened { node: head, fence: 1 },
            read(head, 1, 7),
            read(Node::Snap(1, 6), 0, 8),
            Call::Fenced { volume: 1, fence: 0 },
            Call::Clone { from: 1, snap: 6, to: 2 },
            Call::Read { node: Node::Head(2), fence: 0, cells: vec![(0, 8)] },
            Call::Delete(1, 5),
            Call::Missing(snap),
        ] {
            state = state.after(&call).unwrap_or_else(|| panic!("{call:?}"));
        }
        for call in [
            write(0, 9),
            read(head, 0, 7),
            read(head, 1, 8),
            read(snap, 0, 7),
            Call::Snapshot(1, 6),
            Call::Delete(1, 5),
            Call::Rollback { volume: 1, to: 5, undo: None },
            Call::Clone { from: 1, snap: 6, to: 2 },
            Call::Fenced { volume: 1, fence: 1 },
            Call::Missing(head),
        ] {
            assert!(state.after(&call).is_none(), "{call:?}");
        }
    }

    #[test]
    fn states_that_differ_have_digests_that_do() {
        let one = State::of([1]).after(&write(0, 7)).expect("a write");
        let two = State::of([1]).after(&write(0, 8)).expect("a write");
        assert_ne!(one.digest(), two.digest());
        let zeroed = one.after(&write(0, 0)).expect("a write");
        assert_eq!(zeroed.digest(), State::of([1]).digest());
        let kept = one.after(&Call::Snapshot(1, 3)).expect("a snapshot");
        assert_ne!(kept.digest(), one.digest());
    }
}
