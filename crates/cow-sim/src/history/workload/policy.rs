//! Limits, rules, holds, times, and prunes.

use super::{MOST_SNAPS, Workload};
use crate::cmd::{Cmd, SnapHow};
use crate::model::{FAR_AHEAD_NS, LONG_AGO_NS};
use crate::oracle::Oracle;

const KEEP: [&str; 6] = ["last=1", "last=2", "last=3", "last=5", "daily=2", "hourly=3,last=2"];
const LIMITS: [&str; 4] = ["1", "2", "4", "7"];

pub(super) fn next(
    load: &mut Workload,
    oracle: &Oracle,
    volumes: &[String],
    volume: &str,
) -> Option<Cmd> {
    let state = oracle.live();
    let snaps = &state.volumes.get(volume)?.snaps;
    Some(match load.rng.below(20) {
        0..8 if snaps.len() < MOST_SNAPS => snapshot(load, volumes, volume),
        8..11 => set(load, volume, "keep", &KEEP),
        11 => set(load, volume, "limit", &LIMITS),
        12 => set(load, volume, "group", &["g", "h"]),
        13 => set(load, "", "limit:g", &LIMITS),
        14..17 => {
            let names: Vec<&String> = snaps.keys().collect();
            let name = format!("{volume}@{}", load.rng.pick(&names)?);
            let tag = format!("t{}", load.rng.below(2));
            let held = snaps.values().filter(|snap| !snap.holds.is_empty()).count();
            Cmd::Hold { name, tag, set: held < 2 && !load.rng.one_in(3) }
        }
        _ => {
            let all = load.rng.one_in(3);
            Cmd::Prune { volumes: if all { Vec::new() } else { vec![volume.to_owned()] } }
        }
    })
}

fn set(load: &mut Workload, name: &str, key: &str, values: &[&str]) -> Cmd {
    let value = load.rng.pick(values).map(|value| (*value).to_owned());
    let value = value.filter(|_| !load.rng.one_in(4));
    Cmd::SetProp { name: name.to_owned(), key: key.to_owned(), value }
}

fn snapshot(load: &mut Workload, volumes: &[String], volume: &str) -> Cmd {
    let expiry_ns = [0, 0, 0, LONG_AGO_NS, FAR_AHEAD_NS][load.rng.index(5)];
    let how = SnapHow { auto: load.rng.one_in(4), expiry_ns };
    match load.snapshot(volumes, volume) {
        Cmd::Snapshot { targets, tag, .. } => Cmd::Snapshot { targets, tag, how },
        other => other,
    }
}
