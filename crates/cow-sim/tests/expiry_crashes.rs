//! Machines that die while snapshots expire. The oracle judges everything else; of the snapshots
//! that expire this test keeps account itself: what must be there, with which content, and what
//! may not come back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_sim::cmd::Cmd;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::model::State;
use cow_sim::oracle::Oracle;
use cow_sim::rng::Rng;
use cow_sim::run::for_seeds;
use cow_sim::sim::{Recovered, Sim, Stop, Tolerance, recover};
use cow_sim::world::WALL_START_NS;
use cow_sim::{PoolOptions, format, small_config};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;

/// A snapshot that expires.
struct Expiring {
    expiry_ns: u64,
    /// Of its content.
    digest: u64,
    /// Whether it was acknowledged.
    sure: bool,
    /// Held or not; unknown while that is being changed.
    held: Option<bool>,
    open: Option<ExportId>,
}

#[derive(Default)]
struct Account {
    there: BTreeMap<String, Expiring>,
    /// Seen to be gone; a crash may bring it back until a flush.
    gone: BTreeMap<String, Expiring>,
    gone_for_good: BTreeSet<String>,
    clones: BTreeMap<String, u64>,
    next: u64,
    expired: u64,
}

impl Account {
    /// Compares with what is listed: names of snapshots, and digests of their content, which are
    /// known after a recovery.
    fn check(&mut self, found: &BTreeMap<String, Option<u64>>, wall_ns: u64) -> Result<(), String> {
        for (name, digest) in found {
            let back = self.gone.remove(name).filter(|_| digest.is_some());
            self.there.extend(back.map(|known| (name.clone(), known)));
            if self.gone_for_good.contains(name) {
                return Err(format!("{name} is back"));
            }
            let known = self.there.get_mut(name).ok_or_else(|| format!("{name} is back too"))?;
            known.sure = true;
            if digest.is_some_and(|digest| digest != known.digest) {
                return Err(format!("{name} has another content"));
            }
        }
        let missing: Vec<String> =
            self.there.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in missing {
            let lost = self.there.remove(&name).unwrap();
            if !lost.sure {
                continue;
            }
            if lost.expiry_ns > wall_ns {
                return Err(format!("{name} is gone before its time"));
            }
            if lost.held == Some(true) || lost.open.is_some() {
                return Err(format!("{name} is gone, which was held or open"));
            }
            self.expired += 1;
            self.gone.insert(name, lost);
        }
        Ok(())
    }
}

fn x_name(name: &str) -> Option<&str> {
    name.strip_prefix("v@").filter(|name| name.starts_with('x'))
}

/// What a recovery brought back, without what expires and the clones of that.
fn split(mut state: State) -> (State, BTreeMap<String, Option<u64>>, BTreeMap<String, u64>) {
    let mut found = BTreeMap::new();
    if let Some(volume) = state.volumes.get_mut("v") {
        volume.snaps.retain(|name, snap| {
            let expires = name.starts_with('x');
            if expires {
                found.insert(name.clone(), Some(snap.content.digest()));
            }
            !expires
        });
        volume.taken.retain(|name| !name.starts_with('x'));
    }
    let mut clones = BTreeMap::new();
    state.volumes.retain(|name, volume| {
        if name.starts_with('c') {
            clones.insert(name.clone(), volume.head.content.digest());
        }
        !name.starts_with('c')
    });
    (state, found, clones)
}

fn done(answer: Result<Reply, cow_engine::Error>, what: &str) -> Result<Reply, Stop> {
    answer.map_err(|error| Stop::Bug(format!("{what}: {error}")))
}

/// Looks what is there now.
fn look(sim: &mut Sim<Engine>, account: &mut Account) -> Result<(), Stop> {
    let Reply::List(nodes) = done(sim.aux(Op::List { exact: false })?, "list")? else {
        return Err(Stop::Bug("no list".into()));
    };
    let live = nodes.iter().filter(|node| node.live);
    let found = live.filter_map(|node| Some((x_name(&node.name)?.to_owned(), None))).collect();
    account.check(&found, sim.world.wall_ns())?;
    Ok(())
}

/// One thing that a client does to snapshots that expire.
fn act(sim: &mut Sim<Engine>, account: &mut Account, rng: &mut Rng) -> Result<(), Stop> {
    let names: Vec<String> = account.there.keys().cloned().collect();
    let some = rng.pick(&names).cloned();
    match (rng.below(6), some) {
        (0..3, _) | (_, None) => {
            sim.drain()?;
            account.next += 1;
            let name = format!("x{}", account.next);
            let expiry_ns = sim.world.wall_ns() + rng.range(1, 40) * HOUR;
            let digest = sim.oracle.live().node("v").map_or(0, |head| head.content.digest());
            let known = Expiring { expiry_ns, digest, sure: false, held: Some(false), open: None };
            account.there.insert(name.clone(), known);
            let targets = vec![SnapTarget { volume: "v".into(), snapshot: name.clone() }];
            let options = SnapOptions { expiry_ns, ..SnapOptions::default() };
            done(sim.aux(Op::Snapshot { targets, options })?, "snapshot")?;
            // It may have gone in the same moment only if its time was that short.
            if let Some(known) = account.there.get_mut(&name) {
                known.sure = true;
            }
        }
        (3, Some(name)) => {
            let known = account.there.get_mut(&name).unwrap();
            let set = known.held != Some(true);
            known.held = None;
            let op = Op::Hold { name: format!("v@{name}"), tag: "t".into(), set };
            match sim.aux(op)? {
                Ok(_) => account.there.get_mut(&name).unwrap().held = Some(set),
                // It may have expired, or have the hold from before a crash.
                Err(cow_engine::Error::NotFound(_) | cow_engine::Error::Exists(_)) => {}
                Err(error) => return Err(Stop::Bug(format!("hold of {name}: {error}"))),
            }
        }
        (4, Some(name)) => match account.there[&name].open {
            Some(export) => {
                account.there.get_mut(&name).unwrap().open = None;
                done(sim.aux(Op::CloseExport { export })?, "close")?;
            }
            None => {
                let op = Op::OpenExport { name: format!("v@{name}"), write: false };
                if let Ok(Reply::Export { export, .. }) = sim.aux(op)? {
                    account.there.get_mut(&name).unwrap().open = Some(export);
                }
            }
        },
        (_, Some(name)) => {
            account.next += 1;
            let clone = format!("c{}", account.next);
            let source = SnapTarget { volume: "v".into(), snapshot: name.clone() };
            let op = Op::Clone { source, name: clone.clone(), props: vec![] };
            if sim.aux(op)?.is_ok() {
                account.clones.insert(clone, account.there[&name].digest);
            }
        }
    }
    Ok(())
}

/// A life, from open to crash.
fn live(sim: &mut Sim<Engine>, account: &mut Account, rng: &mut Rng) -> Result<(), Stop> {
    for _ in 0..rng.range(5, 50) {
        match rng.below(10) {
            0..4 => {
                let (offset, token) = (rng.below(40) * 4096, 1 + rng.below(1 << 40));
                let cmd = Cmd::Write { volume: "v".into(), offset, len: 4096, token, fua: false };
                if !sim.oracle.in_flight_conflict(&cmd) {
                    sim.submit(cmd)?;
                }
            }
            4 => sim.run(Cmd::Checkpoint)?,
            5 | 6 => {
                // Between ticks that are more than a moment apart a step of deletes may begin.
                sim.world.pass(rng.range(1, 20) * HOUR);
                if rng.one_in(2) {
                    sim.drain()?;
                    look(sim, account)?;
                    let gone: Vec<String> = account.gone.keys().cloned().collect();
                    sim.run(Cmd::Flush { volume: "v".into() })?;
                    account.gone_for_good.extend(gone);
                }
            }
            _ => act(sim, account, rng)?,
        }
    }
    sim.drain()?;
    // At rest everything goes that may, when the clock is trusted: the newest checkpoint may be old.
    for _ in 0..14 {
        sim.world.pass(MINUTE);
        sim.world.run_until_idle()?;
    }
    look(sim, account)?;
    let wall_ns = sim.world.wall_ns();
    let late = account.there.iter().find(|(_, known)| {
        known.expiry_ns + 5 * MINUTE < wall_ns && known.held == Some(false) && known.open.is_none()
    });
    match late {
        Some((name, _)) => Err(Stop::Bug(format!("{name} is still there"))),
        None => Ok(()),
    }
}

fn resumed(
    disk: SimDisk,
    oracle: &Oracle,
    account: &mut Account,
    (wall_ns, kill, seed): (u64, bool, u64),
) -> Result<(Sim<Engine>, State), String> {
    let config = Config { wall_ns, ..small_config(AckMode::Writethrough) };
    let Recovered { world, state } = recover::<Engine>(disk, &config, seed)?;
    let (state, found, clones) = split(state);
    oracle.judge(&state, kill)?;
    account.check(&found, wall_ns)?;
    account.gone_for_good.extend(std::mem::take(&mut account.gone).into_keys());
    for (name, digest) in &account.clones {
        if clones.get(name) != Some(digest) {
            return Err(format!("clone {name} lost its content"));
        }
    }
    Ok((Sim::resume(world, Oracle::new(AckMode::Writethrough)), state))
}

fn history(seed: u64) -> Result<u64, String> {
    let mut rng = Rng::new(seed);
    let config = Config { wall_ns: WALL_START_NS, ..small_config(AckMode::Writethrough) };
    let mut account = Account::default();
    let mut sim = Sim::<Engine>::new(
        format(&PoolOptions::default()),
        Oracle::new(AckMode::Writethrough),
        &config,
        rng.word(),
    );
    let text = |stop| match stop {
        Stop::Bug(text) => text,
        Stop::Crashed => "crashed without a fuse".to_owned(),
    };
    sim.open(false).map_err(text)?;
    sim.run(Cmd::Create { name: "v".into(), size: 1 << 20 }).map_err(text)?;
    for life in 0..5 {
        sim.tolerate(Tolerance { no_space: true, ..Tolerance::default() });
        if rng.one_in(3) {
            sim.set_fuse(None);
        } else {
            sim.set_fuse(Some(rng.range(1, 250)));
        }
        match live(&mut sim, &mut account, &mut rng) {
            Ok(()) | Err(Stop::Crashed) => {}
            Err(Stop::Bug(text)) => return Err(format!("life {life}: {text}")),
        }
        let wall_ns = sim.world.wall_ns();
        for known in account.there.values_mut() {
            known.open = None;
        }
        let how = Crash::random(&mut rng);
        let (disk, oracle) = sim.crash(how);
        let next = (wall_ns + rng.below(10) * HOUR, how.is_kill(), rng.word());
        let (mut again, state) = resumed(disk, &oracle, &mut account, next)
            .map_err(|text| format!("life {life}, after {how:?}: {text}"))?;
        again.oracle.settle(state);
        sim = again;
    }
    Ok(account.expired)
}

#[test]
fn crash_histories_of_what_expires() {
    let expired: u64 = for_seeds("crash_histories_of_what_expires", 60, history).into_iter().sum();
    println!("{expired} snapshots expired");
    assert!(expired > 200, "{expired} are too few to mean anything");
}
