//! The golden images as a user meets them, through `cowctl`: what it tells of such a pool, that it checks, and that what is
//! exported has the hashes that were kept. `tests/golden/README.md` says what is there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::Place;
use flate2::read::GzDecoder;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;
/// Larger volumes are not exported here.
const MOST_BYTES: u64 = 1 << 30;
/// What `check` ends with where something is damaged.
const CORRUPT: i32 = 5;

fn kept_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The pool that was kept under this name, as a sparse file.
fn unpacked(name: &str) -> Place {
    let place = Place::new();
    let packed = File::open(kept_in().join(format!("{name}.cow.gz"))).unwrap();
    let mut packed = GzDecoder::new(packed);
    let (file, mut page, mut at) = (File::create_new(place.pool()).unwrap(), [0; BLOCK], 0);
    loop {
        match packed.read_exact(&mut page) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            read => read.unwrap(),
        }
        if page != [0; BLOCK] {
            file.write_all_at(&page, at).unwrap();
        }
        at += BLOCK as u64;
    }
    file.set_len(at).unwrap();
    place
}

/// A line of the hashes that were kept: name, hash, size, and whether it never expires.
struct Kept {
    name: String,
    hash: String,
    size: u64,
    stays: bool,
}

fn kept(name: &str) -> Vec<Kept> {
    let text = std::fs::read_to_string(kept_in().join(format!("{name}.hashes"))).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Kept {
            name: words[0].to_owned(),
            hash: words[1].to_owned(),
            size: words[3].parse().unwrap(),
            stays: line.contains(" expiry 0 "),
        }
    };
    text.lines().map(line).collect()
}

/// BLAKE3 of all blocks that are not zeros, each behind its offset.
fn hash(path: &Path) -> String {
    let (mut hasher, mut file, mut at) = (blake3::Hasher::new(), File::open(path).unwrap(), 0u64);
    let mut piece = vec![0; 256 * BLOCK];
    loop {
        let mut len = 0;
        while len < piece.len() {
            match file.read(&mut piece[len..]).unwrap() {
                0 => break,
                more => len += more,
            }
        }
        for block in piece[..len].chunks(BLOCK) {
            if block.iter().any(|&byte| byte != 0) {
                hasher.update(&at.to_le_bytes()).update(block);
            }
            at += block.len() as u64;
        }
        if len == 0 {
            return hasher.finalize().to_string();
        }
    }
}

/// Exports what is small enough and never expires; how many of that were snapshots.
fn assert_exports(place: &Place, kept: &[Kept]) -> usize {
    let small = |line: &&Kept| line.stays && line.size <= MOST_BYTES;
    let mut seen = BTreeSet::new();
    let mut snapshots = 0;
    for line in kept.iter().filter(small) {
        // Many are alike.
        if !seen.insert((&line.hash, line.size)) {
            continue;
        }
        let path = place.path("exported");
        place.ok(&["export", &line.name, &place.text("exported")]);
        assert_eq!(path.metadata().unwrap().len(), line.size, "{}", line.name);
        assert_eq!(hash(&path), line.hash, "{}", line.name);
        std::fs::remove_file(&path).unwrap();
        snapshots += usize::from(line.name.contains('@'));
    }
    snapshots
}

fn assert_listed(place: &Place, kept: &[Kept]) {
    let listed: BTreeSet<String> = place.names().into_iter().collect();
    for line in kept.iter().filter(|line| line.stays) {
        assert!(listed.contains(&line.name), "{} is not in {listed:?}", line.name);
    }
}

#[test]
fn whole_pools_export_what_they_held() {
    for name in ["v2-whole", "v2-cut", "v2-rare"] {
        let (place, kept) = (unpacked(name), kept(name));
        assert_eq!(place.json("check", &["check"])["clean"], true, "{name}");
        assert!(place.info("size_bytes") > 0);
        assert_listed(&place, &kept);
        assert!(assert_exports(&place, &kept) >= 1, "{name}: no snapshot was exported");
        assert_eq!(place.json("check", &["check"])["clean"], true, "{name}, afterwards");
    }
}

#[test]
fn a_pool_with_noted_damage_says_so() {
    for name in ["v2-scarred", "v2-overflow-scarred"] {
        let (place, kept) = (unpacked(name), kept(name));
        let said = place.run(&["check"]);
        assert_eq!(said.code, CORRUPT, "{name}: {said:?}");
        assert!(said.stdout.contains("could not read"), "{name}: {said:?}");
        assert_listed(&place, &kept);
    }
}
