//! Admission: an operation waits until there is room for it, or is refused.
//!
//! ENOSPC is the answer only when no free is pending: else the operation asks for a fold and
//! waits, at most for a few checkpoints. That holds for the pool and for the budget of a volume
//! alike. A write that takes the place of blocks which the volume's head has alone does not raise
//! its charge; whether it does is looked up only where the budget has no room for all of it.
//! The writer of a volume with a reserve waits as long as the reserve is covered.

use crate::core::Core;
use crate::error::{Error, SpaceKind};
use crate::owned::own_data;
use crate::space::Tier;
use crate::space_wait::{Lack, Wait};
use crate::task::Cx;
use cow_format::{Lba, NodeId, VolumeId};

/// Blocks that are promised to an operation until its records are sequenced.
pub(crate) struct Promise {
    cx: Cx,
    blocks: u64,
    /// Those of them that a fold will take.
    map: u64,
    share: Option<Share>,
}

/// The volume that an operation belongs to.
struct Share {
    volume: VolumeId,
    charge: u64,
    blocks: u64,
    /// Blocks of data that take the place of some which this head had alone.
    replaced: (NodeId, u64),
}

impl Promise {
    /// So many of the blocks were allocated: they have left the free count themselves.
    pub(crate) fn spend(&mut self, blocks: u64) {
        let blocks = blocks.min(self.blocks);
        self.blocks -= blocks;
        if let Some(pool) = &mut self.cx.core().pool {
            pool.promised -= blocks;
        }
    }

    /// Takes over what one without a volume has left.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.blocks += std::mem::take(&mut other.blocks);
        self.map += std::mem::take(&mut other.map);
    }

    /// What is left of it.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether the operation still fits the budget of its volume, whose head is `head` now: what
    /// it was to replace may have become a snapshot's.
    pub(crate) fn fits(&mut self, core: &mut Core, head: NodeId) -> Result<(), Error> {
        let Some(share) = &mut self.share else { return Ok(()) };
        let (of, replaced) = share.replaced;
        if replaced == 0 || of == head {
            return Ok(());
        }
        let pool = core.pool()?;
        let budget = pool.budget(share.volume).unwrap_or(u64::MAX);
        if pool.charge(share.volume) + replaced > budget {
            return Err(Error::NoSpace(SpaceKind::Budget));
        }
        share.replaced = (head, 0);
        Ok(())
    }

    /// Blocks of data of the operation that take the place of others of the volume.
    pub(crate) fn replaced(&self) -> u64 {
        self.share.as_ref().map_or(0, |share| share.replaced.1)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let mut core = self.cx.core();
        if let Some(pool) = &mut core.pool {
            pool.promised -= self.blocks;
            pool.promised_map -= self.map;
            if let Some(Share { volume, charge, blocks, .. }) = self.share {
                pool.land(volume, charge, blocks);
            }
        }
        // Who waits for room may find that this one needed less than it was promised.
        core.notify(|core| &mut core.promise_wait);
    }
}

/// What a write or discard of a volume needs.
pub(crate) struct Ask<'a> {
    pub(crate) volume: VolumeId,
    pub(crate) tier: Tier,
    /// Runs of blocks that are written: about to be allocated (they leave the free count
    /// themselves).
    pub(crate) runs: &'a [(Lba, u64)],
    /// The fold reserve to come.
    pub(crate) map: u64,
}

impl Ask<'_> {
    fn data(&self) -> u64 {
        self.runs.iter().map(|(_, blocks)| blocks).sum()
    }
}

impl Core {
    /// Whether `data` blocks can be given out, and a fold can take `map` blocks afterwards.
    fn room_in_pool(
        &mut self,
        data: u64,
        map: u64,
        tier: Tier,
        volume: Option<VolumeId>,
    ) -> Result<(), Lack> {
        if self.available(tier, volume) < data + map {
            return Err(Lack::Pool);
        }
        if self.free_for_data() < data && !(tier == Tier::Guaranteed && self.free_spare(data)) {
            return Err(Lack::Pool);
        }
        if self.has_room_below(map, tier) { Ok(()) } else { Err(Lack::Below(map)) }
    }

    /// Whether there is room for what a volume asks, of whose blocks so many replace others.
    pub(crate) fn room_for(&mut self, ask: &Ask<'_>, replaced: u64) -> Result<(), Lack> {
        let Some(pool) = &self.pool else { return Err(Lack::Pool) };
        let (volume, data) = (ask.volume, ask.data());
        let charge = data.saturating_sub(replaced);
        if charge > 0 && pool.budget(volume).is_some_and(|most| pool.charge(volume) + charge > most)
        {
            return Err(Lack::Budget);
        }
        let promised = pool.shares.guarantee(volume).is_some_and(|most| data + ask.map <= most);
        match self.room_in_pool(data, ask.map, ask.tier, Some(volume)) {
            Err(Lack::Pool) if promised => {
                self.room_in_pool(data, ask.map, Tier::Guaranteed, Some(volume))
            }
            result => result,
        }
    }
}

/// Waits until `data + map` blocks are there for `tier`, for what belongs to no volume. `data`
/// blocks are about to be allocated (they leave the free count themselves); `map` blocks are the
/// fold reserve to come.
pub(crate) async fn admit(cx: &Cx, data: u64, map: u64, tier: Tier) -> Result<Promise, Error> {
    let mut wait = Wait::new(cx);
    loop {
        let lack = {
            let mut core = cx.core();
            core.writable()?;
            match core.room_in_pool(data, map, tier, None) {
                Ok(()) => {
                    let blocks = data + map;
                    let pool = core.writable()?;
                    pool.promised += blocks;
                    pool.promised_map += map;
                    return Ok(Promise { cx: cx.clone(), blocks, map, share: None });
                }
                Err(lack) => lack,
            }
        };
        wait.once(lack, None).await?;
    }
}

/// Waits until there is room for what a volume asks.
pub(crate) async fn admit_for(cx: &Cx, ask: &Ask<'_>) -> Result<Promise, Error> {
    let (volume, data, map) = (ask.volume, ask.data(), ask.map);
    let mut replaced = (NodeId(0), 0);
    // What is the head's own is looked up once before each wait.
    let mut looked_up = false;
    let mut wait = Wait::new(cx);
    loop {
        let lack = {
            let mut core = cx.core();
            let pool = core.writable()?;
            let queues = ask.tier == Tier::Data && pool.shares.guarantee(volume).is_none();
            let room = if !queues || wait.is_next(&core) {
                core.room_for(ask, replaced.1)
            } else {
                Err(Lack::Turn)
            };
            if queues && matches!(room, Err(Lack::Turn | Lack::Pool)) {
                wait.stand(&mut core);
            }
            match room {
                Ok(()) => {
                    let (charge, blocks) = (data.saturating_sub(replaced.1), data + map);
                    let pool = core.writable()?;
                    pool.promised += blocks;
                    pool.promised_map += map;
                    pool.take_off(volume, charge, blocks);
                    let share = Some(Share { volume, charge, blocks, replaced });
                    return Ok(Promise { cx: cx.clone(), blocks, map, share });
                }
                Err(lack) => lack,
            }
        };
        let head = cx.core().pool()?.head(volume);
        match head.filter(|_| lack == Lack::Budget && !looked_up) {
            Some(head) => {
                replaced = (head, own_data(cx, head, ask.runs).await?.min(data));
                looked_up = true;
            }
            None => {
                wait.once(lack, Some(volume)).await?;
                looked_up = false;
            }
        }
    }
}
