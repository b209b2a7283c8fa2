//! The walk that makes a size exact where branches leave bounds: how many data blocks a part of the
//! snapshot tree has that no surviving node has. Design section 3, "What is exact".
//!
//! The maps of the nodes that go and of those that stay are followed side by side, position by
//! position. A pointer that a staying node has too is skipped with all below it, and one that
//! several of the others share is followed once. So it reads what has changed, and no more.
//!
//! It reads maps in use only, never that of a deleted node, so reclaim and trim may go on. A pin keeps
//! what it reads; when somebody waits for space it gives up, as it must not keep it from them.

use crate::ahead::{ASKED_FOR, load_near};
use crate::error::Error;
use crate::lookup::{load, root_slot};
use crate::read::Pin;
use crate::task::{Cx, Turns, join_all};
use cow_format::mapnode::{FANOUT, FANOUT_BITS, MapNode, Slot};
use cow_format::{FamilyId, Gen};
use cow_snaptree::Component;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;

/// Map nodes that are read ahead at once.
const READ_AHEAD: usize = 64;

/// A pointer and the level of what it points to: lower than that of the place where the root is
/// lower, and then for child 0.
type Side = (Slot, u8);

/// Data blocks that the deletion of the nodes of a component frees; `None` when it gave up.
///
/// # Errors
/// When a map cannot be read.
pub(crate) async fn count(cx: &Cx, part: &Component) -> Result<Option<u64>, Error> {
    let _pin = Pin::new(cx);
    let (family, wanted, kept) = {
        let mut core = cx.core();
        let pool = core.pool()?;
        let side = |id| {
            let root = pool.layer_chain(id).1;
            (root_slot(&root), root.level)
        };
        let family = part.wanted.first().map_or(FamilyId(0), |&id| pool.layer_chain(id).2);
        let wanted: Vec<Side> = part.wanted.iter().map(|&id| side(id)).collect();
        let kept: Vec<Side> = part.leaves.iter().map(|&id| side(id)).collect();
        (family, wanted, kept)
    };
    let level = wanted.iter().chain(&kept).map(|side| side.1).max().unwrap_or(0);
    let (cx, turns) = (cx.clone(), Turns::default());
    let mut walk = Walk { cx, family, floor: part.floor, blocks: 0, stopped: false, turns };
    let place = Place::new(part.floor, level, 0, wanted, kept);
    let _held = walk.ahead(std::slice::from_ref(&place)).await;
    walk.walk(place).await?;
    Ok((!walk.stopped).then_some(walk.blocks))
}

struct Walk {
    cx: Cx,
    family: FamilyId,
    floor: Gen,
    blocks: u64,
    stopped: bool,
    turns: Turns,
}

/// What there is at one place: each pointer once.
struct Place {
    level: u8,
    index: u64,
    /// Those of the nodes that go, and of none that stays.
    wanted: Vec<Side>,
    kept: Vec<Side>,
}

impl Place {
    fn new(floor: Gen, level: u8, index: u64, wanted: Vec<Side>, kept: Vec<Side>) -> Self {
        let mut seen = BTreeSet::new();
        let mut once = |side: &Side| side.0.is_mapped() && seen.insert(side.0.phys);
        let kept: Vec<Side> = kept.into_iter().filter(&mut once).collect();
        // A lower root has the birth of what it is, not of the place.
        let young = |side: &Side| side.0.birth > floor;
        let wanted = wanted.into_iter().filter(young).filter(once).collect();
        Self { level, index, wanted, kept }
    }

    /// Map nodes of its level that must be read: index, and what points to it.
    fn nodes(&self) -> impl Iterator<Item = (u64, Slot)> {
        let sides = self.wanted.iter().chain(&self.kept);
        sides.filter(|side| side.1 >= self.level).map(|side| (self.index, side.0))
    }
}

/// The slots below one side.
enum Below {
    Node(Arc<MapNode>),
    /// A lower root.
    First(Side),
}

impl Below {
    fn at(&self, level: u8, at: usize) -> Side {
        match self {
            Self::Node(node) => (node.slots()[at], level.saturating_sub(1)),
            Self::First(side) if at == 0 => *side,
            Self::First(_) => (Slot::hole(Gen(0)), 0),
        }
    }
}

struct Opened {
    wanted: Vec<Below>,
    kept: Vec<Below>,
}

impl Walk {
    fn walk(&mut self, place: Place) -> StdPin<Box<dyn Future<Output = Result<(), Error>> + '_>> {
        Box::pin(async move {
            if self.gives_up() || place.wanted.is_empty() {
                return Ok(());
            }
            let opened = open(&self.cx, self.family, &place).await?;
            if place.level == 0 {
                self.count_leaf(&opened);
                self.turns.went_on(&self.cx).await;
                return Ok(());
            }
            let level = place.level - 1;
            let below = |at: usize| {
                let sides = |of: &[Below]| of.iter().map(|b| b.at(place.level, at)).collect();
                let index = (place.index << FANOUT_BITS) + at as u64;
                Place::new(self.floor, level, index, sides(&opened.wanted), sides(&opened.kept))
            };
            let places: Vec<Place> =
                (0..FANOUT).map(below).filter(|place| !place.wanted.is_empty()).collect();
            let width = opened.wanted.len() + opened.kept.len();
            let window = (READ_AHEAD / width.max(1)).max(1);
            let mut places = places.into_iter().peekable();
            while places.peek().is_some() {
                let these: Vec<Place> = places.by_ref().take(window).collect();
                // Held until the window is through, so that the cache cannot lose them.
                let _held = self.ahead(&these).await;
                for place in these {
                    self.walk(place).await?;
                }
            }
            Ok(())
        })
    }

    /// Reads the nodes of places of one level. Whoever wants one that cannot be read learns of it.
    async fn ahead(&self, places: &[Place]) -> Vec<Option<Arc<MapNode>>> {
        let level = places.first().map_or(0, |place| place.level);
        let nodes: Vec<(u64, Slot)> = places.iter().flat_map(Place::nodes).collect();
        load_near(&self.cx, self.family, level, &nodes, ASKED_FOR).await
    }

    fn count_leaf(&mut self, opened: &Opened) {
        for at in 0..FANOUT {
            let slots = |of: &[Below]| of.iter().map(|b| b.at(0, at)).collect::<Vec<Side>>();
            let place = Place::new(self.floor, 0, 0, slots(&opened.wanted), slots(&opened.kept));
            self.blocks += place.wanted.len() as u64;
        }
    }

    /// Whether somebody needs the space that the pin keeps, or the pool is being closed.
    fn gives_up(&mut self) -> bool {
        let core = self.cx.core();
        self.stopped |= core.punch.waiters > 0 || core.closing || core.poisoned.is_some();
        self.stopped
    }
}

async fn open(cx: &Cx, family: FamilyId, place: &Place) -> Result<Opened, Error> {
    let loads = place.wanted.iter().chain(&place.kept).map(|&(slot, slot_level)| {
        let (cx, level, index) = (cx.clone(), place.level, place.index);
        async move {
            if slot_level < level {
                return Ok(Below::First((slot, slot_level)));
            }
            load(&cx, family, level, index, slot).await.map(Below::Node)
        }
    });
    let mut sides = join_all(loads).await.into_iter().collect::<Result<Vec<_>, Error>>()?;
    let kept = sides.split_off(place.wanted.len());
    Ok(Opened { wanted: sides, kept })
}
