//! Where each stream allocates: next-fit over runs of a least length.
//!
//! A stream has a *window* in front of it, part of a free run, and takes block after block from
//! it. At the end of the window it goes on in the same run; at the end of the run it looks for
//! the next run of at least 256 blocks, first in its zone and then in the next zone that no other
//! stream works in. When no zone has one, the threshold falls to 64, 16 and 1, and stays there
//! until frees are released. Streams that must share a zone leave each other's windows alone, as
//! long as there is anything else.
//!
//! Cost: within a window a scan of a few words. A zone is searched at most once for each run
//! found and once more to learn that it has none; then `ZoneState::longest` keeps it out.

use crate::bits::ZONE;
use crate::frontier::{Frontier, LEVELS, Stream, WINDOW};
use crate::{AllocError, Allocator};
use cow_format::Phys;
use cow_format::geometry::ZONE_BLOCKS;

impl Allocator {
    /// Takes up to `want` blocks in front of stream `s`.
    pub(crate) fn take(&mut self, s: usize, want: u32) -> Option<(Phys, u32)> {
        let Frontier { zone: Some(zone), at, end, open: true, .. } = self.frontiers[s] else {
            return None;
        };
        let used = &self.zones[zone as usize].as_ref()?.used;
        let at = used.next_clear(at, end);
        // The window may be passed where the run goes on, up to another stream's.
        let stop = self.stop(s, zone, at).max(end);
        let limit = (at + want).min(stop);
        let blocks = used.next_set(at, limit) - at;
        let mut window_end = end;
        if blocks > 0 && at + blocks >= end {
            window_end = used.next_set(at + blocks, (at + blocks + WINDOW).min(stop));
        }
        let frontier = &mut self.frontiers[s];
        (frontier.at, frontier.end) = (at + blocks, window_end);
        if blocks == 0 {
            return None;
        }
        self.hand_out(zone, at, blocks);
        Some((Phys(zone * ZONE_BLOCKS + u64::from(at)), blocks))
    }

    /// Finds the next run for stream `s`.
    pub(crate) fn advance(&mut self, s: usize) -> Result<(), AllocError> {
        self.trim(self.max_resident);
        for (level, min) in LEVELS.into_iter().enumerate().skip(self.frontiers[s].level) {
            self.frontiers[s].level = level;
            if self.seek(s, min)? {
                return Ok(());
            }
        }
        // What is left lies in front of other streams.
        for zone in self.cycle(s) {
            if self.states[zone as usize].avail > 0 && self.enter(s, zone, 0, 1, false)? {
                return Ok(());
            }
        }
        debug_assert_eq!(self.free, 0, "free blocks that no zone has");
        Err(AllocError::NoSpace)
    }

    /// A contiguous run of `blocks` blocks inside one zone, for a table chunk.
    ///
    /// # Errors
    /// [`AllocError::NeedZone`]; [`AllocError::NoSpace`] when there is no such run.
    pub fn alloc_chunk(&mut self, blocks: u32) -> Result<Phys, AllocError> {
        let s = Stream::Meta as usize;
        if blocks == 0 || blocks > ZONE {
            return Err(AllocError::NoSpace);
        }
        self.trim(self.max_resident);
        for polite in [true, false] {
            for zone in self.cycle(s) {
                let state = self.states[zone as usize];
                let may = u32::from(state.longest) >= blocks || (!polite && !state.verified);
                if !may || u32::from(state.avail) < blocks {
                    continue;
                }
                self.ensure(zone)?;
                if let Some((start, _)) = self.find(s, zone, 0, blocks, polite) {
                    self.hand_out(zone, start, blocks);
                    return Ok(Phys(zone * ZONE_BLOCKS + u64::from(start)));
                }
                self.learn_longest(zone);
            }
        }
        Err(AllocError::NoSpace)
    }

    /// Looks for a run of at least `min` blocks outside of other streams' windows.
    fn seek(&mut self, s: usize, min: u32) -> Result<bool, AllocError> {
        let Frontier { zone, at, .. } = self.frontiers[s];
        if let Some(zone) = zone
            && self.enter(s, zone, at, min, true)?
        {
            return Ok(true);
        }
        for shared in [false, true] {
            for zone in self.cycle(s) {
                let state = self.states[zone as usize];
                let longest = if min == 1 { state.avail } else { state.longest };
                if u32::from(longest.min(state.avail)) >= min
                    && self.is_shared(s, zone) == shared
                    && self.enter(s, zone, 0, min, true)?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All zones, from the one after the stream's on.
    fn cycle(&self, s: usize) -> impl Iterator<Item = u64> + use<> {
        let count = self.zone_count();
        let start = self.frontiers[s].zone.map_or(0, |zone| zone + 1).min(count);
        (start..count).chain(0..start)
    }

    fn is_shared(&self, s: usize, zone: u64) -> bool {
        self.frontiers.iter().enumerate().any(|(other, f)| other != s && f.is_in(zone))
    }

    /// Opens a window of the stream in the first run of the zone from `from` on that is long
    /// enough. When the zone is not resident, the stream waits in front of it.
    fn enter(
        &mut self,
        s: usize,
        zone: u64,
        from: u32,
        min: u32,
        polite: bool,
    ) -> Result<bool, AllocError> {
        let level = self.frontiers[s].level;
        if let Err(error) = self.ensure(zone) {
            self.frontiers[s] = Frontier { zone: Some(zone), level, ..Frontier::default() };
            return Err(error);
        }
        let Some((start, len)) = self.find(s, zone, from, min, polite) else {
            self.learn_longest(zone);
            return Ok(false);
        };
        let end = start + len.min(WINDOW);
        self.frontiers[s] = Frontier { zone: Some(zone), at: start, end, open: true, level };
        Ok(true)
    }

    /// A free run of at least `min` blocks, less what other streams have in front of them.
    fn find(&self, s: usize, zone: u64, from: u32, min: u32, polite: bool) -> Option<(u32, u32)> {
        let used = &self.zones[zone as usize].as_ref()?.used;
        let mut from = from;
        loop {
            let (start, len) = used.find_free(from, min)?;
            assert!(len >= min && start + len <= ZONE, "a run that is none");
            if !polite {
                return Some((start, len));
            }
            let stop = self.stop(s, zone, start).min(start + len);
            if stop - start >= min {
                return Some((start, stop - start));
            }
            from = self.window_end(s, zone, stop).unwrap_or(start + len);
        }
    }

    /// The first block at or after `at` that is in front of another stream; the zone's end if
    /// there is none.
    fn stop(&self, s: usize, zone: u64, at: u32) -> u32 {
        self.windows(s, zone)
            .filter(|window| window.end > at)
            .map(|window| window.at.max(at))
            .min()
            .unwrap_or(ZONE)
    }

    /// The end of another stream's window that `at` is in.
    fn window_end(&self, s: usize, zone: u64, at: u32) -> Option<u32> {
        self.windows(s, zone).filter(|w| w.at <= at && at < w.end).map(|w| w.end).max()
    }

    fn windows(&self, s: usize, zone: u64) -> impl Iterator<Item = &Frontier> {
        let others = self.frontiers.iter().enumerate().filter(move |(other, _)| *other != s);
        others.map(|(_, window)| window).filter(move |w| w.open && w.is_in(zone) && w.at < w.end)
    }

    /// After a search without success: what the zone really has.
    fn learn_longest(&mut self, zone: u64) {
        if let Some(resident) = &self.zones[zone as usize] {
            self.states[zone as usize].longest = resident.used.longest_free();
        }
    }
}
