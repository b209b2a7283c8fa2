//! What a walk counts, and what the node table says of it (I6).

use crate::context::Cx;
use crate::report::Structure;
use crate::tree::{gen_of, is_walking, name_of};
use crate::unread::Counted;
use cow_format::entry::Count;
use cow_format::{Gen, NodeId, mutant};
use cow_snaptree::{Row, Tree};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Counts of one node, from its comparison with the node above.
#[derive(Default)]
pub(crate) struct Tally {
    /// Pointers that it has and the node above has not.
    pub(crate) gained: Count,
    /// Those of them born by itself.
    pub(crate) own: Count,
    /// Pointers that the node above has and it has not, by birth.
    pub(crate) lost: BTreeMap<Gen, Count>,
    /// Something could not be followed: the counts say nothing.
    pub(crate) inexact: bool,
    /// Something is lost: a fold that could not read it could not count it either.
    pub(crate) lossy: bool,
}

/// A kill row, by birth.
type Cells = BTreeMap<Gen, Count>;

/// Counts of the pool.
#[derive(Default)]
pub(crate) struct Sums {
    /// Blocks born in a node that are allocated.
    pub(crate) born: HashMap<NodeId, Count>,
    /// Blocks that a node maps; none where that is not known.
    mapped: HashMap<NodeId, Option<Count>>,
    /// Nodes, and those below them, of which what folds have counted need not be right.
    lossy: HashSet<NodeId>,
    /// Kill rows of the nodes that are being reclaimed.
    walking: HashMap<NodeId, Option<Cells>>,
    /// All of them.
    pub(crate) total: Count,
}

pub(crate) fn bump(count: &mut Count, is_map: bool) {
    *if is_map { &mut count.map } else { &mut count.data } += 1;
}

fn text(count: Count) -> String {
    format!("{} data blocks and {} map nodes", count.data, count.map)
}

/// Sum of the cells with `above < birth <= to`.
pub(crate) fn sum(cells: impl Iterator<Item = (Gen, Count)>, above: Gen, to: Gen) -> Count {
    cells.filter(|(birth, _)| *birth > above && *birth <= to).fold(
        Count::default(),
        |sum, (_, c)| Count {
            data: sum.data.saturating_add(c.data),
            map: sum.map.saturating_add(c.map),
        },
    )
}

impl Sums {
    /// A node is being reclaimed, and has this kill row, if it can be read.
    pub(crate) fn note_walking(&mut self, id: NodeId, row: Option<&Row>) {
        self.walking.insert(id, row_cells(row));
    }

    /// Compares what was counted of `id` against `above` with its entry and its kill row.
    pub(crate) fn settle(
        &mut self,
        cx: &mut Cx<'_>,
        tree: &Tree,
        id: NodeId,
        above: Option<NodeId>,
        tally: &Tally,
        stored_row: Option<&Row>,
    ) {
        let Some(node) = tree.node(id) else { return };
        let parent = node.entry.parent;
        let base = match above {
            None => Some(Count::default()),
            Some(above) => self.mapped.get(&above).copied().flatten(),
        };
        let lost = sum(tally.lost.iter().map(|(&b, &c)| (b, c)), Gen(0), Gen(u32::MAX));
        let mapped = base.filter(|_| !tally.inexact).and_then(|base| {
            Some(Count {
                data: (base.data + tally.gained.data).checked_sub(lost.data)?,
                map: (base.map + tally.gained.map).checked_sub(lost.map)?,
            })
        });
        self.mapped.insert(id, mapped);
        // What damage has kept a fold from counting is marked, and is no finding.
        let lossy = tally.lossy || node.entry.inexact;
        if lossy || above.is_some_and(|above| self.lossy.contains(&above)) {
            self.lossy.insert(id);
        }
        let is_relative = !is_walking(tree, parent);
        let pair = (!is_relative && !tally.inexact && !mutant::is("pairapart"))
            .then(|| self.settle_pair(cx, tree, id, tally, stored_row))
            .flatten();
        if let Some(unread) = cx.unread.as_mut().filter(|_| !tally.inexact) {
            let (row, same) = match &pair {
                Some(pair) => (Some(pair.row.clone()), pair.same),
                None if is_relative => {
                    let same = Some(&tally.lost) == row_cells(stored_row).as_ref();
                    (Some(tally.lost.clone()), same)
                }
                None => (None, true),
            };
            unread.counted.insert(id, Counted { own: tally.own, mapped, row, same });
            unread.counted.extend(pair.map(|pair| (parent, pair.walked)));
        }
        if lossy {
            return;
        }
        let mapped = mapped.filter(|_| !self.lossy.contains(&id));
        let mut compare = |name: &str, found: Count, stored: Count| {
            if found != stored {
                let what = format!("{name}: {}, a walk finds {}", text(stored), text(found));
                cx.corrupt(Structure::Counter, name_of(tree, id), what);
            }
        };
        if let Some(mapped) = mapped {
            compare("mapped", mapped, node.entry.mapped);
        }
        if tally.inexact {
            return;
        }
        compare("own", tally.own, node.entry.own);
        let Some(row) = stored_row.filter(|_| is_relative) else { return };
        compare_row(cx, tree, id, tally, row);
        let (parent_node, above) = (tree.node(parent), gen_of(tree, grandparent(tree, parent)));
        if let Some(parent_node) = parent_node.filter(|node| node.children.len() == 1) {
            let unique = parent_node.entry.unique;
            let found = sum(row.cells(), above, parent_node.entry.label_gen);
            let unknown = Count { data: u64::MAX, map: u64::MAX };
            if unique != unknown && unique != found {
                let what = format!("unique: {}, a walk finds {}", text(unique), text(found));
                cx.corrupt(Structure::Counter, name_of(tree, parent), what);
            }
        }
    }

    /// Compares the counts of a node that is being reclaimed and those of its only child `id`: only together they
    /// say something, as they do once the one is spliced into the other.
    fn settle_pair(
        &self,
        cx: &mut Cx<'_>,
        tree: &Tree,
        id: NodeId,
        tally: &Tally,
        stored_row: Option<&Row>,
    ) -> Option<Pair> {
        let (node, parent) = (tree.node(id)?, tree.node(tree.node(id)?.entry.parent)?);
        let (up, entry) = (gen_of(tree, Some(parent.entry.parent)), &parent.entry);
        let upper = self.walking.get(&entry.id)?;
        let lower = row_cells(stored_row);
        // What was born in the one and is still in the other.
        let kept = minus(tally.gained, tally.own)?;
        let both = upper.as_ref().zip(lower.as_ref());
        let gone = |lower: &Cells| sum(lower.iter().map(|(&b, &c)| (b, c)), up, entry.label_gen);
        let stored = both.map(|(upper, lower)| {
            let mut all = upper.clone();
            for (birth, count) in lower.iter().filter(|(birth, _)| **birth <= up) {
                add(all.entry(*birth).or_default(), *count);
            }
            (all, minus(entry.own, gone(lower)))
        });
        let same = stored == Some((tally.lost.clone(), Some(kept)));
        let is_known = cx.unread.is_none() && !entry.inexact && !node.entry.inexact;
        if !same && both.is_some() && is_known && !tally.lossy {
            let what =
                "counts of what is being reclaimed and the kill row of its only child do not fit";
            cx.corrupt(Structure::Counter, name_of(tree, id), what);
        }
        if same {
            let (upper, lower) = (upper.clone()?, lower?);
            let walked = Counted { own: entry.own, mapped: None, row: Some(upper), same };
            return Some(Pair { row: lower, same, walked });
        }
        // Of a row that can be read as much stays as can be.
        let rest = upper.as_ref().and_then(|upper| without(&tally.lost, upper));
        let (row, upper) = match rest {
            Some(rest) => (rest, upper.clone().unwrap_or_default()),
            None => (tally.lost.clone(), Cells::new()),
        };
        let is_upper = self.walking.get(&entry.id)?.as_ref() == Some(&upper);
        let walked = Counted { own: kept, mapped: None, row: Some(upper), same: is_upper };
        Some(Pair { same: lower.as_ref() == Some(&row), row, walked })
    }

    /// Compares what was born in each node.
    pub(crate) fn settle_born(&self, cx: &mut Cx<'_>, tree: &Tree) {
        for node in tree.iter().filter(|node| node.entry.id != cow_snaptree::POOL_NODE) {
            let id = node.entry.id;
            let found = self.born.get(&id).copied().unwrap_or_default();
            if found != node.entry.born {
                let (stored, found) = (text(node.entry.born), text(found));
                let what = format!("born: {stored}, a walk finds {found}");
                cx.corrupt(Structure::Counter, name_of(tree, id), what);
            }
        }
    }
}

/// What a node whose parent is being reclaimed should have in its kill row, and what that parent should have.
struct Pair {
    row: Cells,
    /// Whether it has.
    same: bool,
    walked: Counted,
}

fn add(count: &mut Count, more: Count) {
    count.data = count.data.saturating_add(more.data);
    count.map = count.map.saturating_add(more.map);
}

fn minus(count: Count, less: Count) -> Option<Count> {
    Some(Count { data: count.data.checked_sub(less.data)?, map: count.map.checked_sub(less.map)? })
}

/// The cells of a row less those of another, where that has no more in any.
fn without(row: &Cells, less: &Cells) -> Option<Cells> {
    let mut rest = row.clone();
    for (birth, count) in less {
        let cell = minus(rest.get(birth).copied().unwrap_or_default(), *count)?;
        rest.insert(*birth, cell);
    }
    rest.retain(|_, count| *count != Count::default());
    Some(rest)
}

fn grandparent(tree: &Tree, parent: NodeId) -> Option<NodeId> {
    tree.node(parent).map(|node| node.entry.parent)
}

fn row_cells(row: Option<&Row>) -> Option<BTreeMap<Gen, Count>> {
    row.map(|row| row.cells().collect())
}

fn compare_row(cx: &mut Cx<'_>, tree: &Tree, id: NodeId, tally: &Tally, row: &Row) {
    let stored: BTreeMap<Gen, Count> = row.cells().collect();
    let births: std::collections::BTreeSet<Gen> =
        stored.keys().chain(tally.lost.keys()).copied().collect();
    for birth in births {
        let stored = stored.get(&birth).copied().unwrap_or_default();
        let found = tally.lost.get(&birth).copied().unwrap_or_default();
        if stored != found {
            let (stored, found) = (text(stored), text(found));
            let what = format!("deaths of birth {birth}: {stored}, a walk finds {found}");
            cx.corrupt(Structure::KillRow, name_of(tree, id), what);
        }
    }
}
