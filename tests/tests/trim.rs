//! `pool trim`: free space that a pool still takes below goes back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server, pattern};
use std::fs;
use std::os::unix::fs::MetadataExt;

const MIB: u64 = 1 << 20;

/// Bytes that the image takes below.
fn allocated(place: &Place) -> u64 {
    fs::metadata(place.pool()).unwrap().blocks() * 512
}

fn import(place: &Place, volume: &str, seed: u64, mib: u64) {
    fs::write(place.path("image"), pattern(seed, (mib * MIB) as usize)).unwrap();
    place.ok(&["import", "image", volume]);
}

/// A volume of 48 MiB beside one that stays is deleted. Each command is a process, which ends before
/// what it has freed may be given back.
fn with_free_space(place: &Place) {
    import(place, "gone", 1, 48);
    import(place, "kept", 2, 8);
    place.ok(&["delete", "gone"]);
    for n in 0..4 {
        place.ok(&["set", "kept", &format!("n={n}")]);
    }
}

fn is_kept(place: &Place) {
    place.ok(&["export", "kept", "out", "--force"]);
    assert!(fs::read(place.path("out")).unwrap() == pattern(2, (8 * MIB) as usize));
    place.ok(&["check"]);
}

#[test]
fn free_space_goes_back_below() {
    let place = Place::with_pool();
    with_free_space(&place);
    let before = allocated(&place);
    assert!(before > 56 * MIB, "{before} bytes: nothing is left to be given back");
    let trimmed = place.json("trim", &["pool", "trim"])["trimmed_bytes"].as_u64().unwrap();
    let after = allocated(&place);
    assert!(before - after >= 47 * MIB, "{before} bytes before, {after} after");
    assert!(trimmed >= before - after, "{trimmed} bytes, {before} before, {after} after");
    is_kept(&place);
    // A second time there is nothing left, and no harm in it.
    assert!(place.ok(&["pool", "trim"]).ends_with(" free below\n"));
    assert!(allocated(&place) <= after + MIB);
    is_kept(&place);
}

#[test]
fn while_served_too() {
    let place = Place::with_pool();
    with_free_space(&place);
    let before = allocated(&place);
    let server = Server::start(&place, &[]);
    place.ok(&["pool", "trim"]);
    assert!(before - allocated(&place) >= 47 * MIB);
    server.stop();
    is_kept(&place);
}

#[test]
fn a_preallocated_pool_keeps_its_space() {
    let place = Place::new();
    place.ok(&["pool", "create", "--size", "128M", "--preallocate"]);
    with_free_space(&place);
    let before = allocated(&place);
    assert!(place.fails(1, &["pool", "trim"]).contains("all of its space allocated"));
    assert_eq!(allocated(&place), before);
}
