//! The inputs that are kept for the fuzz targets, each given to its target: none panics, so that neither
//! the targets nor the inputs rot. `fuzz/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn every_kept_input_of_every_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, run) in targets::TARGETS {
        let kept =
            fs::read_dir(seeds.join(name)).unwrap_or_else(|_| panic!("no inputs for {name}"));
        let mut count = 0;
        for entry in kept {
            let path = entry.unwrap().path();
            println!("{name}: {}", path.display());
            run(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "no inputs for {name}");
        println!("{name}: {count} inputs");
    }
}

#[test]
fn every_target_has_inputs_and_every_input_a_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names = |dir: &str| {
        let entries = fs::read_dir(fuzz.join(dir)).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let mut known: Vec<String> =
        targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    assert_eq!(names("seeds"), known);
    assert_eq!(names("fuzz_targets"), known);
}
