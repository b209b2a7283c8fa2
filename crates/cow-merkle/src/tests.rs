//! I16: equal content if and only if equal root, whatever the history.

use crate::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// Pages in memory, counting the loads.
#[derive(Clone, Default)]
struct Store {
    pages: HashMap<(u8, u64), Page>,
    loads: usize,
}

impl Pages for Store {
    type Error = Infallible;

    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, Infallible> {
        self.loads += 1;
        Ok(self.pages.get(&(level, index)).cloned())
    }
}

impl PagesMut for Store {
    fn save(&mut self, page: &Page) -> Result<(), Infallible> {
        let place = (page.level(), page.index());
        if page.is_zero() {
            self.pages.remove(&place);
        } else {
            let bytes = page.bytes().try_into().unwrap();
            self.pages.insert(place, Page::from_bytes(place.0, place.1, bytes));
        }
        Ok(())
    }
}

/// A volume: content as one byte a block, 0 for zeros, kept beside its pages.
#[derive(Clone)]
struct Volume {
    size_bytes: u64,
    content: BTreeMap<u64, u8>,
    store: Store,
    root: Digest,
}

fn block(fill: u8) -> [u8; BLOCK_SIZE] {
    let mut block = [0; BLOCK_SIZE];
    block[BLOCK_SIZE - 1] = fill;
    block
}

/// The root of `content` from nothing; `zeros` are zero blocks that are given all the same.
fn build(size_bytes: u64, content: &BTreeMap<u64, u8>, zeros: &[u64]) -> Digest {
    let mut all: BTreeMap<u64, u8> = zeros.iter().map(|&zero| (zero, 0)).collect();
    all.extend(content);
    let mut builder = Builder::new(size_bytes).unwrap();
    for (&index, &fill) in &all {
        builder.push(index, leaf_hash(index, &block(fill))).unwrap();
    }
    builder.finish().unwrap()
}

impl Volume {
    fn new(size_bytes: u64) -> Self {
        let root = build(size_bytes, &BTreeMap::new(), &[]);
        Self { size_bytes, content: BTreeMap::new(), store: Store::default(), root }
    }

    fn apply(&mut self, changes: &BTreeMap<u64, u8>) {
        let mut builder = Builder::update(self.size_bytes, &mut self.store).unwrap();
        for (&index, &fill) in changes {
            builder.push(index, leaf_hash(index, &block(fill))).unwrap();
            self.content.insert(index, fill);
        }
        self.root = builder.finish().unwrap();
        self.content.retain(|_, fill| *fill != 0);
    }

    fn resize(&mut self, size_bytes: u64) {
        let blocks = size_bytes.div_ceil(BLOCK);
        let cut: BTreeMap<u64, u8> = self.content.range(blocks..).map(|(&at, _)| (at, 0)).collect();
        self.apply(&cut);
        self.root = resize(&mut self.store, self.size_bytes, size_bytes).unwrap();
        self.size_bytes = size_bytes;
    }

    fn side(&mut self) -> Side<'_, Store> {
        Side { pages: &mut self.store, size_bytes: self.size_bytes, root: self.root }
    }

    fn compare(&mut self, other: &mut Self) -> Result<Vec<u64>, CompareError<Infallible>> {
        let mut found = Vec::new();
        compare(self.side(), other.side(), |index| found.push(index))?;
        Ok(found)
    }
}

/// Sizes whose trees have one to four levels, some not whole blocks.
const SIZES: [u64; 8] = [
    512,
    100 * BLOCK,
    128 * BLOCK,
    128 * BLOCK + 512,
    16_384 * BLOCK,
    16_385 * BLOCK,
    2_097_152 * BLOCK,
    3_000_000 * BLOCK,
];

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(prop::sample::Index, u8)>),
    Resize(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let write = (any::<prop::sample::Index>(), 0u8..4);
    prop_oneof![
        4 => prop::collection::vec(write, 1..12).prop_map(Step::Write),
        1 => (0..SIZES.len()).prop_map(Step::Resize),
    ]
}

/// Indices near the ends of pages, and anywhere.
fn pick(index: &prop::sample::Index, size_bytes: u64) -> u64 {
    let blocks = size_bytes.div_ceil(BLOCK);
    let roll = index.index(1 << 24) as u64;
    let edge = [0, 127, 128, 16_383, 16_384, 2_097_151, blocks - 1][(roll % 7) as usize];
    if roll & 8 == 0 { edge.min(blocks - 1) } else { (roll >> 4) % blocks }
}

fn run(steps: &[Step]) -> Volume {
    let mut volume = Volume::new(SIZES[4]);
    for step in steps {
        match step {
            Step::Resize(to) => volume.resize(SIZES[*to]),
            Step::Write(writes) => {
                let changes = writes.iter().map(|(at, fill)| (pick(at, volume.size_bytes), *fill));
                volume.apply(&changes.collect());
            }
        }
    }
    volume
}

fn differences(a: &Volume, b: &Volume) -> Vec<u64> {
    let mut all: Vec<u64> = a.content.keys().chain(b.content.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|index| a.content.get(index) != b.content.get(index));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn the_root_is_a_function_of_size_and_content(
        steps in prop::collection::vec(step(), 0..10),
        zeros in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        order in any::<u64>(),
    ) {
        let volume = run(&steps);
        let size_bytes = volume.size_bytes;
        // From nothing, with zero blocks given as such.
        let zeros: Vec<u64> = zeros.iter().map(|at| pick(at, size_bytes)).collect();
        prop_assert_eq!(volume.root, build(size_bytes, &volume.content, &zeros));
        // Another history: block by block, in another order.
        let mut blocks: Vec<(u64, u8)> = volume.content.clone().into_iter().collect();
        blocks.sort_by_key(|(at, _)| at.wrapping_add(order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut other = Volume::new(size_bytes);
        for change in blocks {
            other.apply(&BTreeMap::from([change]));
        }
        prop_assert_eq!(volume.root, other.root);
        prop_assert_eq!(volume.store.pages, other.store.pages);
    }

    #[test]
    fn unequal_volumes_have_unequal_roots_and_compare_finds_why(
        first in prop::collection::vec(step(), 0..6),
        second in prop::collection::vec(step(), 0..6),
        shared in any::<bool>(),
    ) {
        let mut a = run(&first);
        let mut b = if shared { run(&[first, second].concat()) } else { run(&second) };
        let expected = differences(&a, &b);
        let equal = expected.is_empty() && a.size_bytes == b.size_bytes;
        prop_assert_eq!(a.root == b.root, equal);
        prop_assert_eq!(a.compare(&mut b), Ok(expected));
    }
}

#[test]
fn a_block_elsewhere_or_another_size_is_another_root() {
    let roots = [
        build(SIZES[4], &BTreeMap::new(), &[]),
        build(SIZES[4] - 512, &BTreeMap::new(), &[]),
        build(SIZES[5], &BTreeMap::new(), &[]),
        build(SIZES[4], &BTreeMap::from([(0, 1)]), &[]),
        build(SIZES[4], &BTreeMap::from([(1, 1)]), &[]),
        build(SIZES[4], &BTreeMap::from([(128, 1)]), &[]),
        build(SIZES[4], &BTreeMap::from([(0, 2)]), &[]),
        build(SIZES[5], &BTreeMap::from([(0, 1)]), &[]),
    ];
    for (i, root) in roots.iter().enumerate() {
        assert!(!roots[..i].contains(root), "root {i} was there before");
    }
    assert_ne!(leaf_hash(0, &block(1)), leaf_hash(1, &block(1)));
    assert_eq!(leaf_hash(7, &[0; BLOCK_SIZE]), zero_hash(0));
}

/// Part of the format: these must never change. Computed by another implementation, from the table
/// in the crate's header.
#[test]
fn the_digests_are_those_of_version_1() {
    let hex = |digest: Digest| digest.to_string();
    assert_eq!(hex(zero_hash(0)), GOLDEN_ZERO_BLOCK);
    assert_eq!(hex(zero_hash(MAX_LEVEL)), GOLDEN_ZERO_TOP);
    assert_eq!(hex(leaf_hash(5, &block(1))), GOLDEN_LEAF);
    let content = BTreeMap::from([(0, 1), (127, 2), (128, 3), (20_000, 4)]);
    assert_eq!(hex(build(1 << 30, &content, &[])), GOLDEN_ROOT);
}

const GOLDEN_ZERO_BLOCK: &str = "f091c04f1ea34c16dcb53b296243a1dbfb049957e2dd893626ab2da2dab6c0c1";
const GOLDEN_ZERO_TOP: &str = "b113b4339e4cfb426c686f4d28dd77041126aaabc50715aa79c85003ca1793cc";
const GOLDEN_LEAF: &str = "f76a18ea3c437437e0098c3ad363eda79652f9db8df3c143454c0a6f2365f194";
const GOLDEN_ROOT: &str = "cb9e3123708b0289bcc133176338e2de47cd4a1b903f753eecd2bdc10980df97";

#[test]
fn a_sparse_volume_costs_its_blocks_and_a_comparison_its_differences() {
    let mut a = Volume::new(4 << 50);
    a.apply(&(0..64).map(|i| (i << 34, 1)).collect());
    let pages = a.store.pages.len();
    assert!(pages <= 64 * usize::from(MAX_LEVEL), "{pages} pages");
    let mut b = a.clone();
    b.apply(&BTreeMap::from([(3 << 34, 2)]));
    (a.store.loads, b.store.loads) = (0, 0);
    assert_eq!(a.compare(&mut b), Ok(vec![3 << 34]));
    assert_eq!((a.store.loads, b.store.loads), (6, 6));
    assert_eq!(b.compare(&mut a.clone()).map(|found| found.len()), Ok(1));
    a.store.loads = 0;
    assert_eq!(a.clone().compare(&mut a), Ok(Vec::new()));
    assert_eq!(a.store.loads, 0, "equal roots need no page");
}

#[test]
fn a_page_that_is_not_the_sealed_one_is_refused() {
    let mut a = Volume::new(SIZES[6]);
    a.apply(&BTreeMap::from([(5, 1), (300, 1)]));
    let mut b = a.clone();
    b.apply(&BTreeMap::from([(300, 2)]));
    for (&(level, index), page) in &a.store.pages {
        let mut damaged = a.clone();
        let mut page = page.clone();
        page.set(99, Digest([7; 32]));
        damaged.store.pages.insert((level, index), page);
        let expected = if (level, index) == (1, 0) {
            Ok(vec![300]) // not on the way
        } else {
            Err(CompareError::Damaged { level, index })
        };
        assert_eq!(damaged.compare(&mut b), expected);
    }
}

#[test]
fn blocks_out_of_order_or_range_are_refused() {
    let mut builder = Builder::new(2 * BLOCK).unwrap();
    assert_eq!(builder.push(2, zero_hash(0)), Err(BuildError::Beyond { block: 2 }));
    assert_eq!(builder.push(1, zero_hash(0)), Ok(()));
    assert_eq!(builder.push(1, zero_hash(0)), Err(BuildError::Order { block: 1 }));
    assert_eq!(builder.push(0, zero_hash(0)), Err(BuildError::Order { block: 0 }));
    let size_bytes = (1 << 54) + 1;
    assert!(Builder::new(1 << 54).is_ok());
    assert_eq!(Builder::new(size_bytes).err(), Some(BuildError::TooLarge { size_bytes }));
}
