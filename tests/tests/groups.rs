//! The largest group there is, through `cowctl` and a server: 1,024 volumes are snapshotted and rolled
//! back as one, and one more is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Client, Place, Server, pattern};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most volumes of a group.
const MOST: usize = 1024;
/// Every so many volumes have data.
const WRITTEN: usize = 128;
const BLOCK: usize = 4096;

fn name(index: usize) -> String {
    format!("vm-{index:04}")
}

/// `cowctl VERB` with the first `count` volumes as `VOL@SNAP`.
fn group(verb: &str, count: usize, snapshot: &str) -> Vec<String> {
    let names = (0..count).map(|index| format!("{}@{snapshot}", name(index)));
    std::iter::once(verb.to_owned()).chain(names).collect()
}

fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// Volumes for a group, and one more.
fn create_all(place: &Place) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index > MOST {
                        return;
                    }
                    place.ok(&["create", &name(index), "--size", "1M"]);
                }
            });
        }
    });
}

fn write(server: &Server, seed: u64) {
    for index in (0..MOST).step_by(WRITTEN) {
        let mut client = Client::connect(&server.socket(), &name(index)).unwrap();
        client.write(0, &pattern(seed + index as u64, BLOCK)).unwrap();
        client.flush().unwrap();
        client.leave().unwrap();
    }
}

fn holds(server: &Server, seed: u64) -> bool {
    (0..MOST).step_by(WRITTEN).all(|index| {
        let mut client = Client::connect(&server.socket(), &name(index)).unwrap();
        let found = client.read(0, BLOCK as u32).unwrap() == pattern(seed + index as u64, BLOCK);
        client.leave().unwrap();
        found
    })
}

/// `VOL@SNAP` with what `list` says of its group; undo snapshots too.
fn snapshots(place: &Place) -> Vec<(String, u64)> {
    let list = place.json("list", &["list", "-t", "snapshot"]);
    let rows = list["items"].as_array().unwrap().iter();
    rows.map(|row| (row["name"].as_str().unwrap().into(), row["group"].as_u64().unwrap_or(0)))
        .collect()
}

#[test]
fn a_group_of_1024_is_one_and_one_more_is_refused() {
    let place = Place::with_pool();
    place.ok(&["create", "first", "--size", "1M"]);
    let server = Server::start(&place, &[]);
    create_all(&place);
    write(&server, 1);

    // One more than a group may have: nothing of it is done.
    let refused = place.fails(4, &words(&group("snapshot", MOST + 1, "no")));
    assert!(refused.contains("1025, at most 1024"), "{refused}");
    assert_eq!(snapshots(&place), []);

    place.ok(&words(&group("snapshot", MOST, "one")));
    let taken = snapshots(&place);
    assert_eq!(taken.len(), MOST);
    assert!(taken.iter().all(|(name, group)| name.ends_with("@one") && *group == taken[0].1));
    place.ok(&["snapshot", &format!("{}@one", name(MOST))]);
    write(&server, 5000);

    let refused = place.fails(4, &words(&group("rollback", MOST + 1, "one")));
    assert!(refused.contains("1025, at most 1024"), "{refused}");
    assert!(holds(&server, 5000), "nothing was rolled back");
    assert_eq!(snapshots(&place).len(), MOST + 1);

    place.ok(&words(&group("rollback", MOST, "one")));
    assert!(holds(&server, 1), "every volume is back");
    // What had changed is kept; all others are what their snapshot is.
    let kept = snapshots(&place).iter().filter(|(name, _)| name.contains("@undo.")).count();
    assert_eq!(kept, MOST.div_ceil(WRITTEN));
    server.stop();
    place.ok(&["check"]);
    assert_eq!(snapshots(&place).len(), MOST + 1 + kept);
}
