//! The images of `tests/golden`, on real files.

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;
const ENDING: &str = ".cow.gz";

/// Where they are kept.
pub fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The names of all, without endings, ascending. There is one at least.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(place()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.filter_map(|file| Some(file.to_str()?.strip_suffix(ENDING)?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    assert!(!names.is_empty(), "no golden image in {}", place().display());
    names
}

pub fn image(name: &str) -> PathBuf {
    place().join(format!("{name}{ENDING}"))
}

pub fn hashes(name: &str) -> PathBuf {
    place().join(format!("{name}.hashes"))
}

/// The image as a sparse file at `path`.
pub fn unpack(name: &str, path: &Path) {
    let mut packed = GzDecoder::new(File::open(image(name)).unwrap());
    let (file, mut page, mut at) = (File::create_new(path).unwrap(), [0; BLOCK], 0);
    loop {
        match packed.read_exact(&mut page) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => panic!("{name}: {error}"),
        }
        if page != [0; BLOCK] {
            file.write_all_at(&page, at).unwrap();
        }
        at += BLOCK as u64;
    }
    file.set_len(at).unwrap();
}

/// Packs the file at `path` under a name that has no image yet.
pub fn pack(path: &Path, name: &str) {
    let target = File::create_new(image(name)).unwrap_or_else(|error| {
        panic!("{}: {error}; a golden image is never replaced", image(name).display())
    });
    let mut packed = GzEncoder::new(target, Compression::best());
    std::io::copy(&mut File::open(path).unwrap(), &mut packed).unwrap();
    packed.finish().unwrap().flush().unwrap();
}
