//! Random clients and crashes in a pool that deletes undo snapshots for want of space, against a
//! model: which are gone are the oldest, never held or open ones, and nothing else is missing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Error, EventKind, ExportId, Op, Reply, SnapTarget, SpaceKind};
use cow_format::Buf;
use cow_sim::disk::Crash;
use cow_sim::rng::Rng;
use cow_sim::run::for_seeds;
use pool::{BLOCK, Pool, write};
use std::collections::BTreeMap;

const VOLUMES: [&str; 4] = ["a", "b", "c", "d"];
/// Blocks of each volume whose content is known.
const KNOWN: u64 = 6;
type Content = [u8; KNOWN as usize];

/// An undo snapshot, in a list by age.
struct Undo {
    name: String,
    content: Content,
    held: bool,
    open: Option<ExportId>,
}

struct Clients {
    pool: Pool,
    rng: Rng,
    filler: ExportId,
    at: u64,
    heads: BTreeMap<&'static str, Content>,
    snaps: BTreeMap<String, Content>,
    undos: Vec<Undo>,
    /// None: off.
    mark: Option<u8>,
    /// It was on since `undos` was compared last.
    was_on: bool,
    /// Since then one was held, released, opened or closed.
    touched: bool,
    names: u64,
    gone: u64,
    refused: u64,
}

impl Clients {
    fn new(seed: u64) -> Self {
        let mut pool = Pool::new(seed.is_multiple_of(2));
        for name in VOLUMES {
            pool.volume(name, 1 << 30, &[]);
            pool.snapshot(name, "s0").unwrap();
        }
        let filler = pool.volume("filler", 1 << 30, &[]);
        pool.all((0..60).map(|i| write(filler, i * 256, 256)).collect());
        let content: Content = [0; KNOWN as usize];
        Self {
            pool,
            rng: Rng::new(seed),
            filler,
            at: 60 * 256,
            heads: VOLUMES.into_iter().map(|name| (name, content)).collect(),
            snaps: VOLUMES.iter().map(|name| (format!("{name}@s0"), content)).collect(),
            undos: Vec::new(),
            mark: None,
            was_on: false,
            touched: false,
            names: 0,
            gone: 0,
            refused: 0,
        }
    }

    fn volume(&mut self) -> &'static str {
        self.rng.pick(&VOLUMES).unwrap()
    }

    /// Known blocks, and many others that nobody else has.
    fn write(&mut self) -> Result<(), String> {
        let volume = self.volume();
        let export = self.pool.open(volume);
        let from = KNOWN + self.rng.below(2000);
        let room = self.pool.write(export, from, self.rng.range(1, 500));
        if room.is_ok() {
            let (block, byte) = (self.rng.below(KNOWN), self.rng.range(1, 256) as u8);
            let mut data = Buf::zeroed(1);
            data.fill(byte);
            let (offset, len) = (block * BLOCK, BLOCK);
            let result = self.pool.ask(Op::Write { export, offset, len, data, fua: true });
            match result {
                Ok(_) => self.heads.get_mut(volume).unwrap()[block as usize] = byte,
                Err(Error::NoSpace(SpaceKind::Pool)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.pool.must(Op::CloseExport { export });
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), String> {
        let volume = self.volume();
        self.names += 1;
        let name = format!("s{}", self.names);
        match self.pool.snapshot(volume, &name) {
            Ok(_) => drop(self.snaps.insert(format!("{volume}@{name}"), self.heads[volume])),
            Err(Error::NoSpace(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// To an ordinary snapshot or to one that a rollback made, and that may be gone.
    fn rollback(&mut self) -> Result<(), String> {
        let volume = self.volume();
        let own = format!("{volume}@");
        // With three the rollback itself lets the oldest go.
        if self.undos.iter().filter(|undo| undo.name.starts_with(&own)).count() >= 3 {
            return Ok(());
        }
        let undos = self.undos.iter().map(|undo| (&undo.name, undo.content));
        let all = self.snaps.iter().map(|(name, content)| (name, *content)).chain(undos);
        let all: Vec<(String, Content)> =
            all.filter(|(name, _)| name.starts_with(&own)).map(|(n, c)| (n.clone(), c)).collect();
        let (target, content) = self.rng.pick(&all).cloned().unwrap();
        let snapshot = target.split_once('@').unwrap().1.to_owned();
        let targets = vec![SnapTarget { volume: volume.into(), snapshot }];
        let op = Op::Rollback { targets, discard_current: false, force: true, edits: vec![] };
        match self.pool.ask(op) {
            Ok(Reply::RolledBack(kept)) => {
                let old = std::mem::replace(self.heads.get_mut(volume).unwrap(), content);
                let kept = kept.into_iter().flatten().map(|(name, _)| name);
                let undo = |name| Undo { name, content: old, held: false, open: None };
                self.undos.extend(kept.map(undo));
                Ok(())
            }
            Err(Error::NotFound(_)) if target.contains("@undo.") => self.compare(),
            other => Err(format!("rollback to {target}: {other:?}")),
        }
    }

    fn touch_an_undo(&mut self) -> Result<(), String> {
        if self.undos.is_empty() {
            return Ok(());
        }
        let at = self.rng.index(self.undos.len());
        self.touched = true;
        let undo = &mut self.undos[at];
        let name = undo.name.clone();
        let result = if self.rng.one_in(2) {
            let set = !undo.held;
            let result = self.pool.ask(Op::Hold { name: name.clone(), tag: "t".into(), set });
            undo.held ^= result.is_ok();
            result
        } else if let Some(export) = undo.open.take() {
            self.pool.ask(Op::CloseExport { export })
        } else {
            let result = self.pool.ask(Op::OpenExport { name: name.clone(), write: false });
            if let Ok(Reply::Export { export, .. }) = &result {
                undo.open = Some(*export);
            }
            result
        };
        match result {
            Ok(_) => Ok(()),
            // A hold of which there is no room to note it.
            Err(Error::NoSpace(_)) => Ok(()),
            Err(Error::NotFound(_)) => {
                let before = self.undos.len();
                self.compare()?;
                if self.undos.len() == before {
                    Err(format!("{name} is not there"))
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    fn set_mark(&mut self) {
        let mark = *self.rng.pick(&[None, Some(80), Some(90), Some(95), Some(95)]).unwrap();
        let value = mark.map_or("off".to_owned(), |mark: u8| mark.to_string());
        if self.pool.set("", "undo-for-space", Some(&value)).is_ok() {
            self.mark = mark;
            self.was_on |= mark.is_some();
        }
    }

    /// Many at once; a refusal says that nothing is left to go.
    fn fill(&mut self) -> Result<(), String> {
        let (mut count, mut refused) = (self.rng.range(1, 20), false);
        let blocks = *self.rng.pick(&[1, 16, 256]).unwrap();
        for _ in 0..count {
            self.pool.world.start_op(write(self.filler, self.at, blocks));
            self.at += blocks;
        }
        while count > 0 {
            self.pool.world.pump()?;
            while let Some((_, result)) = self.pool.world.take_reply() {
                count -= 1;
                match result {
                    Ok(_) => {}
                    Err(Error::NoSpace(SpaceKind::Pool)) => refused = true,
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        self.refused += u64::from(refused);
        self.compare()?;
        let full = self.mark.is_some_and(|mark| self.pool.info().used_percent >= mark);
        let left = self.undos.iter().find(|undo| !undo.held && undo.open.is_none());
        match left {
            Some(undo) if refused && full => Err(format!("refused, and {} is there", undo.name)),
            _ => Ok(()),
        }
    }

    fn make_room(&mut self) {
        let offset = self.rng.below(self.at) * BLOCK;
        let len = self.rng.range(1, 3000) * BLOCK;
        let _ = self.pool.ask(Op::Discard { export: self.filler, offset, len, fua: false });
    }

    /// What is gone is what may be.
    fn compare(&mut self) -> Result<(), String> {
        let there = self.pool.undos();
        let is_gone = |undo: &Undo| there.binary_search(&undo.name).is_err();
        if let Some(undo) = self.undos.iter().find(|undo| is_gone(undo)) {
            if !self.was_on {
                return Err(format!("{} is gone, though it was off", undo.name));
            }
            let newest = self.undos.iter().rposition(is_gone).unwrap();
            for undo in &self.undos[..=newest] {
                let may_go = !undo.held && undo.open.is_none();
                if is_gone(undo) && !may_go {
                    return Err(format!("{} is gone, and held or open", undo.name));
                }
                if !is_gone(undo) && may_go && !self.touched {
                    return Err(format!("{} is older than what is gone", undo.name));
                }
            }
        }
        let before = self.undos.len();
        self.undos.retain(|undo| there.binary_search(&undo.name).is_ok());
        self.gone += (before - self.undos.len()) as u64;
        if self.undos.len() != there.len() {
            return Err(format!("{there:?} are there, more than known"));
        }
        self.was_on = self.mark.is_some();
        self.touched = false;
        Ok(())
    }

    /// None went below the lowest mark.
    fn heed_events(&mut self) -> Result<(), String> {
        for event in self.pool.info().events {
            if let EventKind::MadeRoom { name, percent } = event.kind
                && percent < 80
            {
                return Err(format!("{name} went at {percent} %"));
            }
        }
        Ok(())
    }

    fn contents(&mut self) -> Result<(), String> {
        self.compare()?;
        let heads = self.heads.iter().map(|(name, content)| ((*name).to_owned(), *content));
        let snaps = self.snaps.iter().map(|(name, content)| (name.clone(), *content));
        let undos = self.undos.iter().map(|undo| (undo.name.clone(), undo.content));
        for (name, content) in heads.chain(snaps).chain(undos).collect::<Vec<_>>() {
            let opened = self.pool.ask(Op::OpenExport { name: name.clone(), write: false });
            // While it is open another one may go in its place.
            self.touched = true;
            let export = match opened {
                Ok(Reply::Export { export, .. }) => export,
                Err(Error::NotFound(_)) if name.contains("@undo.") => continue,
                other => return Err(format!("{name}: {other:?}")),
            };
            let read = Op::Read { export, offset: 0, len: KNOWN * BLOCK };
            let Reply::Data { buf, .. } = self.pool.must(read) else { panic!("no data") };
            let found: Vec<u8> = (0..KNOWN as usize).map(|at| buf.block(at)[17]).collect();
            self.pool.must(Op::CloseExport { export });
            if found != content {
                return Err(format!("{name} holds {found:?}, not {content:?}"));
            }
        }
        Ok(())
    }

    /// In the middle of writes whose content nobody knows.
    fn crash(&mut self) -> Result<(), String> {
        for _ in 0..self.rng.below(8) {
            self.pool.world.start_op(write(self.filler, self.at, 200));
            self.at += 200;
        }
        for _ in 0..self.rng.below(400) {
            self.pool.world.pump()?;
            while self.pool.world.take_reply().is_some() {}
        }
        let how = Crash::random(&mut self.rng);
        self.pool.crash(how, false);
        self.filler = self.pool.open("filler");
        self.undos.iter_mut().for_each(|undo| undo.open = None);
        self.touched = true;
        self.contents().map_err(|error| format!("after {how:?}: {error}"))
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(40) {
            0..10 => self.write(),
            10 | 11 => self.snapshot(),
            12..19 => self.rollback(),
            19..23 => self.touch_an_undo(),
            23 | 24 => {
                self.set_mark();
                Ok(())
            }
            25..32 => self.fill(),
            32..35 => {
                self.make_room();
                Ok(())
            }
            35 => {
                self.pool.minutes(2);
                self.heed_events()
            }
            36 | 37 => self.contents(),
            _ => self.crash(),
        }
    }
}

#[test]
fn random_clients_of_a_pool_that_makes_room() {
    let run = |seed| {
        let mut clients = Clients::new(seed);
        for step in 0..150 {
            let stepped = clients.step().and_then(|()| clients.compare());
            stepped.map_err(|error| format!("step {step}: {error}"))?;
        }
        clients.contents()?;
        clients.pool.check();
        Ok((clients.gone, clients.refused))
    };
    let found: Vec<(u64, u64)> = for_seeds("random_clients_of_a_pool_that_makes_room", 24, run);
    let gone: u64 = found.iter().map(|(gone, _)| gone).sum();
    let refused: u64 = found.iter().map(|(_, refused)| refused).sum();
    println!("{gone} undo snapshots went, {refused} fills were refused");
    assert!(gone > 60 && refused > 20, "{gone} and {refused} are too few to mean anything");
}
