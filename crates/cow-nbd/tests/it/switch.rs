//! Who reads a connection: the storage's thread, where it can, or that of the connection. Clients notice nothing.

use crate::client::{Answer, Rig, request_bytes, rig, rig_with};
use crate::mem::{DIRECT, MemExports, MemVolume};
use cow_nbd::Limits;
use cow_nbd::wire::cmd;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MIB: usize = 1 << 20;
const LARGE: usize = 200 << 10;

fn one() -> (Arc<MemVolume>, Rig) {
    let volume = MemVolume::new(MIB, false);
    let rig = rig(MemExports::new(&[("vol", &volume)]));
    (volume, rig)
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + seed * 7 + index / 256) as u8).collect()
}

#[test]
fn small_requests_are_the_storages_and_large_ones_are_not() {
    let (volume, rig) = one();
    let mut client = rig.open("vol");
    let direct = || volume.direct.load(Ordering::SeqCst);
    let small = |client: &mut crate::client::Client, count: usize| {
        let before = direct();
        for at in 0..count {
            let data = pattern(700, at);
            assert_eq!(client.write(at as u64 * 700, &data), Answer::Ok);
            assert_eq!(client.read(at as u64 * 700, 700), Answer::Data(data));
        }
        direct() - before
    };
    let all = |count: usize| if DIRECT { 2 * count } else { 0 };
    assert_eq!(small(&mut client, 20), all(20));
    let before = direct();
    let data = pattern(LARGE, 3);
    assert_eq!(client.write(5000, &data), Answer::Ok);
    assert_eq!(client.read(5000, LARGE as u32), Answer::Data(data));
    assert_eq!(direct(), before);
    // It is not lent at once again, but after 32 requests that are small.
    assert_eq!(small(&mut client, 20), all(4));
    assert!(matches!(client.call(cmd::BLOCK_STATUS, 0, 0, 4096, &[]), Answer::Status(_)));
    assert_eq!(small(&mut client, 10), 0);
    assert_eq!(client.errno(cmd::READ, 0, 2 * MIB as u64, 512, &[]), 22);
    assert_eq!(small(&mut client, 30), all(24), "20 of the 32 were before what was refused");
}

#[test]
fn requests_in_pieces_are_put_together() {
    let (volume, rig) = one();
    let mut client = rig.open_simple("vol");
    let mut bytes = Vec::new();
    for cookie in 0..4 {
        let data = pattern(1500, cookie);
        bytes.extend(request_bytes(cmd::WRITE, 0, cookie as u64, cookie as u64 * 1500, 1500));
        bytes.extend(data);
    }
    // Two pieces, at each place of some two requests: within headers, payloads, and between.
    for cut in (1..bytes.len()).step_by(37).chain(1525..1532) {
        client.send(&bytes[..cut]);
        std::thread::sleep(Duration::from_micros(300));
        client.send(&bytes[cut..]);
        let cookies: BTreeSet<u64> = (0..4).map(|_| client.answer(0).0).collect();
        assert_eq!(cookies, BTreeSet::from([0, 1, 2, 3]), "cut at {cut}");
        let wanted: Vec<u8> = (0..4).flat_map(|cookie| pattern(1500, cookie)).collect();
        assert_eq!(volume.bytes()[..6000], wanted);
        volume.write(0, &[0; 6000]);
    }
}

#[test]
fn a_payload_that_stops_in_the_middle_ends_with_its_connection() {
    let (volume, rig) = one();
    let mut client = rig.open_simple("vol");
    assert_eq!(client.write(0, &[1; 512]), Answer::Ok);
    let mut bytes = request_bytes(cmd::WRITE, 0, 9, 0, 4096);
    bytes.extend([7; 2000]);
    client.send(&bytes);
    drop(client);
    crate::client::eventually("the export is closed", || volume.opens.load(Ordering::SeqCst) == 0);
    assert_eq!(volume.writes.load(Ordering::SeqCst), 1);
    assert_eq!(volume.bytes()[..512], [1; 512]);
}

/// What the socket has no room for is sent by the writer, and the storage's thread goes on.
#[test]
fn a_client_that_reads_late_gets_everything_and_holds_nobody_up() {
    const COUNT: usize = 60;
    let (volume, rig) = one();
    let content = pattern(MIB, 1);
    volume.write(0, &content);
    let mut late = rig.open("vol");
    let mut other = rig.open("vol");
    // An answer may end just where the room does, or lie across it: with many lengths some do.
    for round in 0..10 {
        let mut asked = BTreeMap::new();
        let len = (40 << 10) + round * 7001;
        for at in 0..COUNT {
            let offset = at * 4567 % (MIB - len);
            asked.insert(late.request(cmd::READ, 0, offset as u64, len as u32, &[]), offset);
        }
        for at in 0..20 {
            let (at, wanted) = (at * 512, &content[at * 512..at * 512 + 512]);
            assert_eq!(other.read(at as u64, 512), Answer::Data(wanted.to_vec()));
        }
        for _ in 0..COUNT {
            let (cookie, answer) = late.answer(len);
            let offset = asked.remove(&cookie).expect("asked for, once");
            assert!(answer == Answer::Data(content[offset..offset + len].to_vec()), "{len}");
        }
        assert_eq!(late.read(3, 512), Answer::Data(content[3..515].to_vec()));
    }
}

/// Where the budget is used up the connection's thread waits for room, and nothing is lost.
#[test]
fn a_budget_that_is_used_up_is_waited_for() {
    let volume = MemVolume::new(MIB, false);
    let limits = Limits { requests_in_flight: 4, bytes_in_flight: 6000, ..crate::client::limits() };
    let rig = rig_with(MemExports::new(&[("vol", &volume)]), limits);
    let mut client = rig.open_simple("vol");
    volume.hold();
    let mut bytes = Vec::new();
    for cookie in 0..12_u64 {
        bytes.extend(request_bytes(cmd::WRITE, 0, cookie, cookie * 2000, 2000));
        bytes.extend(pattern(2000, cookie as usize));
    }
    client.send(&bytes);
    crate::client::eventually("three fit", || volume.held_count() == 3);
    volume.release_reversed();
    let cookies: BTreeSet<u64> = (0..12).map(|_| client.answer(0).0).collect();
    assert_eq!(cookies, (0..12).collect());
    let wanted: Vec<u8> = (0..12).flat_map(|cookie| pattern(2000, cookie)).collect();
    assert_eq!(volume.bytes()[..24_000], wanted);
}
