//! `cowctl check --repair` on a pool in a file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server, leaf_of, pattern};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;

const BLOCK: usize = 4096;
const MIB: usize = 1 << 20;
const LEAF: u64 = 256;

/// Two volumes, one with a snapshot and changes since.
fn place() -> Place {
    let place = Place::with_pool();
    for (name, seed) in [("vm", 3), ("other", 4)] {
        std::fs::write(place.path(name), pattern(seed, 6 * MIB)).unwrap();
        place.ok(&["import", &place.text(name), name]);
    }
    place.ok(&["snapshot", "vm@a"]);
    std::fs::write(place.path("newer"), pattern(5, MIB)).unwrap();
    place.ok(&["import", &place.text("newer"), "vm", "--into"]);
    place
}

fn flip(place: &Place, block: u64) {
    let file = File::options().read(true).write(true).open(place.pool()).unwrap();
    let at = block * BLOCK as u64 + 1234;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.sync_all().unwrap();
}

/// A check with these words, which ends with `code`.
#[track_caller]
fn check(place: &Place, code: i32, words: &[&str]) -> Value {
    let words: Vec<&str> = ["check", "--json"].iter().chain(words).copied().collect();
    let outcome = place.run(&words);
    assert_eq!(outcome.code, code, "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn image(place: &Place) -> Vec<u8> {
    std::fs::read(place.pool()).unwrap()
}

#[test]
fn a_pool_with_nothing_wrong_is_left_alone() {
    let place = place();
    let before = image(&place);
    let text = place.ok(&["check", "--repair"]);
    assert!(text.contains("nothing to repair, nothing was written"), "{text}");
    let found = check(&place, 0, &["--repair"]);
    assert_eq!(found["repair"]["wrote"], false, "{found}");
    assert!(before == image(&place), "something was written");
    place.fails(2, &["check", "-n"]);
    let server = Server::start(&place, &[]);
    let text = place.fails(4, &["check", "--repair"]);
    assert!(text.contains("pool.cow") && text.contains("in use"), "{text}");
    server.stop();
}

#[test]
fn a_damaged_leaf_costs_what_it_mapped_and_no_more() {
    let place = place();
    let leaf = leaf_of(&place.json("dump", &["dump", "map", "vm@a"]), 4).unwrap();
    flip(&place, leaf);
    let before = image(&place);
    assert_eq!(check(&place, 5, &[])["clean"], false);

    // Only said.
    let planned = check(&place, 5, &["--repair", "-n"]);
    assert!(before == image(&place), "something was written");
    let lost = |name: &str| {
        json!({
            "name": name, "lba": 4 * LEAF, "blocks": LEAF, "offset": 4 * MIB, "length": MIB, "block": leaf,
        })
    };
    let want = json!([lost("vm"), lost("vm@a")]);
    assert_eq!((&planned["repair"]["lost"], &planned["repair"]["wrote"]), (&want, &json!(false)));

    // And done: what is lost is the only thing that is wrong.
    let done = check(&place, 5, &["--repair"]);
    assert_eq!((&done["repair"]["lost"], &done["repair"]["wrote"]), (&want, &json!(true)));
    assert_eq!(done["repair"]["actions"][0]["action"], "cut_map_node", "{done}");
    assert_eq!((&done["lost_blocks"], &done["leaked_blocks"]), (&LEAF.into(), &0.into()), "{done}");
    let structures = |found: &Value| {
        let findings = found["findings"].as_array().unwrap().iter();
        let wrong = findings.filter(|finding| finding["severity"] == "corruption");
        wrong.map(|finding| finding["structure"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(structures(&done), ["known damage"]);
    let again = check(&place, 5, &["--repair"]);
    assert_eq!(again["repair"]["wrote"], false, "{again}");
    let text = place.run(&["check", "--repair"]).stdout;
    assert!(text.contains("vm@a, lba 1024") && text.contains("to 1279"), "{text}");

    // Everything else reads; the lost part does not, until it is written.
    assert_eq!(place.content("other"), pattern(4, 6 * MIB));
    place.fails(5, &["export", "vm", &place.text("out")]);
    std::fs::write(place.path("whole"), pattern(6, 6 * MIB)).unwrap();
    place.ok(&["import", &place.text("whole"), "vm", "--into"]);
    assert_eq!(place.content("vm"), pattern(6, 6 * MIB));
    place.ok(&["delete", "vm@a", "--wait"]);
    let last = check(&place, 0, &["--repair"]);
    assert_eq!(last["clean"], true, "{last}");
    assert_eq!(check(&place, 0, &[])["leaked_blocks"], 0);
    assert_eq!(place.content("vm"), pattern(6, 6 * MIB));
}

#[test]
fn what_has_another_copy_or_can_be_counted_comes_back() {
    let place = place();
    let (vm, snapshot) = (place.content("vm"), place.content("vm@a"));
    flip(&place, 8192);
    let homes = bitmap_homes(&place);
    homes.into_iter().for_each(|block| flip(&place, block));
    assert_eq!(check(&place, 5, &[])["clean"], false);
    // Readers need no bitmap; whoever would write is told what makes it anew.
    assert_eq!((place.content("vm"), place.content("vm@a")), (vm.clone(), snapshot.clone()));
    let import = ["import", &place.text("newer"), "vm", "--into"];
    let text = place.fails(1, &import);
    for words in ["bitmap page", "zone 0", "`cowctl check --repair`"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The opening for that has written all copies of the superblock.
    flip(&place, 8192);
    let text = place.ok(&["check", "--repair"]);
    for words in ["superblock copy 1", "bitmap page: zone 0"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(check(&place, 0, &[])["warnings"], 0);
    // What was imported was there before.
    assert_eq!((place.content("vm"), place.content("vm@a")), (vm.clone(), snapshot));
    place.ok(&import);
    assert_eq!(place.content("vm"), vm);
}

/// Both homes of the bitmap page of zone 0, where something stands in them.
fn bitmap_homes(place: &Place) -> [u64; 2] {
    let dump = place.json("dump", &["dump", "superblock"]);
    let start = find(&dump, "homes_start").unwrap_or_else(|| panic!("{dump}"));
    [start, start + 1]
}

fn find(dump: &Value, key: &str) -> Option<u64> {
    match dump {
        Value::Object(fields) => {
            let own = fields.get(key).and_then(Value::as_u64);
            own.or_else(|| fields.values().find_map(|value| find(value, key)))
        }
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}
