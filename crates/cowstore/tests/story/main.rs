//! A life of a pool: an image comes in, twenty clones of it live with snapshots, rollbacks and
//! undos, and all of it goes again in an order that a seed chooses, until the pool is exactly as
//! empty as it began.
//!
//! `COW_STORY_SEED` chooses another story; a failure prints the seed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod image;
mod model;

use cowstore::transfer::{ImportOptions, Watch, import};
use cowstore::{
    CreateOptions, DeleteOptions, Export, Kept, Pool, PoolInfo, RollbackOptions, SnapshotOptions,
};
use image::Image;
use model::{BLOCK, BLOCKS, Content, Model, RUN, Rng, SIZE, bytes, offset};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const CLONES: usize = 20;
const SNAPSHOTS: usize = 5;
/// Writes and discards between two snapshots, of one to sixteen blocks.
const CHANGES: usize = 8;
/// Looks at a pool that is open, until no checkpoint has come in between.
const LOOKS: usize = 20;

/// What a pool has at rest, of all that could be left behind.
#[derive(Debug, PartialEq, Eq)]
struct Rest {
    free_bytes: u64,
    data_bytes: u64,
    metadata_bytes: u64,
    reclaiming_bytes: u64,
    deleting: u64,
    nodes: u64,
    map_nodes: u64,
    blob_blocks: u64,
}

struct Story {
    path: PathBuf,
    pool: Pool,
    model: Model,
    rng: Rng,
    checks: usize,
}

impl Story {
    fn info(&self) -> PoolInfo {
        self.pool.info(true).unwrap()
    }

    /// The disk itself is right, as of the newest checkpoint, and as full as it must be.
    fn check(&mut self, after: &str) -> cow_check::Stats {
        self.checks += 1;
        for _ in 0..LOOKS {
            let info = self.info();
            let mut image = Image(File::open(&self.path).unwrap());
            let report = cow_check::check(&mut image, &cow_check::Options::default());
            let quiet = self.pool.info(false).unwrap().checkpoint_seq;
            match report {
                Ok(report) if report.stats.checkpoint_seq == quiet => {
                    assert!(report.is_clean(), "{after}: {:?}", report.findings);
                    assert_eq!(info.data_bytes, report.stats.data_blocks * BLOCK as u64, "{after}");
                    return report.stats;
                }
                // A checkpoint came while it looked.
                Ok(_) => {}
                Err(_) if quiet != info.checkpoint_seq => {}
                Err(error) => panic!("{after}: {error}"),
            }
        }
        panic!("{after}: the pool does not come to rest");
    }

    /// Waits until everything deleted is back, and says what is left.
    fn rest(&mut self) -> Rest {
        self.pool.wait_reclaim().unwrap();
        let stats = self.check("at rest");
        let info = self.info();
        Rest {
            free_bytes: info.free_bytes,
            data_bytes: info.data_bytes,
            metadata_bytes: info.metadata_bytes,
            reclaiming_bytes: info.reclaiming_bytes,
            deleting: info.deleting,
            nodes: stats.nodes,
            map_nodes: stats.map_nodes,
            blob_blocks: stats.blob_blocks,
        }
    }

    /// Ends the pool and opens it again.
    fn reopen(&mut self) {
        self.pool.shutdown().unwrap();
        self.pool = Pool::open(&self.path, &Default::default()).unwrap();
    }

    /// The image comes in: every other of the blocks that are ever written.
    fn import_base(&mut self, path: &Path) {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(SIZE).unwrap();
        let mut content = vec![0; BLOCKS];
        for (block, write) in content.iter_mut().enumerate() {
            if block % RUN < RUN / 2 {
                *write = self.model.write();
                file.write_all_at(&bytes(*write), offset(block)).unwrap();
            }
        }
        let options = ImportOptions { volume: "base".into(), ..ImportOptions::default() };
        let mut watch = Watch { progress: &mut |_| {}, cancelled: &|| false };
        import(&self.pool, &file, &options, &mut watch).unwrap();
        self.model.nodes.insert("base".into(), content);
    }

    /// Random writes, and now and then a discard.
    fn scribble(&mut self, volume: &str) {
        let open = self.pool.volume(volume).unwrap();
        for _ in 0..CHANGES {
            let block = self.rng.below(BLOCKS);
            let count = 1 + self.rng.below(16.min(RUN - block % RUN));
            let discard = self.rng.below(8) == 0;
            let writes: Content =
                (0..count).map(|_| if discard { 0 } else { self.model.write() }).collect();
            if discard {
                open.discard(offset(block), (count * BLOCK) as u64).unwrap();
            } else {
                let data: Vec<u8> = writes.iter().flat_map(|write| bytes(*write)).collect();
                open.write_at(&data, offset(block)).unwrap();
            }
            let content = self.model.nodes.get_mut(volume).unwrap();
            content[block..block + count].copy_from_slice(&writes);
        }
    }

    /// A rollback or an undo has happened: the head has `content`, `kept` what it had before.
    fn switched(&mut self, volume: &str, content: Content, kept: Option<Kept>) {
        let before = self.model.nodes.insert(volume.into(), content).unwrap();
        if let Some(kept) = kept {
            self.model.nodes.insert(kept.name, before);
        }
        // Of the undo snapshots the newest three stay.
        let there = self.names();
        self.model.nodes.retain(|name, _| there.contains(name) || !name.contains("@undo."));
        assert!(self.model.nodes.keys().eq(&there));
    }

    fn names(&self) -> BTreeSet<String> {
        let live = self.pool.list(false).unwrap().into_iter().filter(|node| node.live);
        live.map(|node| node.name).collect()
    }

    fn snapshot(&mut self, name: &str) {
        self.pool.snapshot(&[name], SnapshotOptions::default()).unwrap();
        let volume = name.split_once('@').unwrap().0;
        let content = self.model.nodes[volume].clone();
        self.model.nodes.insert(name.into(), content);
    }

    /// A clone, its snapshots, rollbacks to some of them, and undos.
    fn live(&mut self, volume: &str) {
        self.pool.clone_volume("base@gold", volume, &[]).unwrap();
        let content = self.model.nodes["base@gold"].clone();
        self.model.nodes.insert(volume.into(), content);
        for index in 0..SNAPSHOTS {
            self.scribble(volume);
            self.snapshot(&format!("{volume}@s{index}"));
            if self.rng.below(2) == 0 {
                self.scribble(volume);
                let back = format!("{volume}@s{}", self.rng.below(index + 1));
                let mut kept = self.pool.rollback(&[&back], RollbackOptions::default()).unwrap();
                let content = self.model.nodes[&back].clone();
                self.switched(volume, content, kept.remove(0));
            }
            if self.rng.below(4) == 0
                && let Some(newest) = self.model.newest_undo(volume)
            {
                self.scribble(volume);
                let kept = self.pool.undo(volume, false).unwrap();
                let content = self.model.nodes[&newest].clone();
                self.switched(volume, content, kept);
            }
        }
        self.scribble(volume);
    }

    fn compare(&self, export: &Export, name: &str, content: &Content) {
        let mut mapped = 0;
        for first in (0..BLOCKS).step_by(RUN) {
            let mut found = vec![0; RUN * BLOCK];
            export.read_at(&mut found, offset(first)).unwrap();
            for (at, block) in found.chunks_exact(BLOCK).enumerate() {
                let write = content[first + at];
                assert!(block == bytes(write), "{name}: block {} is not {write}", first + at);
            }
        }
        let extents = export.extents(0, SIZE).unwrap();
        extents.iter().filter(|e| e.mapped).for_each(|e| mapped += e.len);
        let want = content.iter().filter(|write| **write != 0).count() * BLOCK;
        assert_eq!(mapped, want as u64, "{name}: mapped bytes");
    }

    /// Every volume and snapshot holds what it should, and there is no other.
    fn compare_all(&self) {
        assert!(self.model.nodes.keys().eq(&self.names()));
        for (name, content) in &self.model.nodes {
            let export = self.pool.open_export(name, false).unwrap();
            self.compare(&export, name, content);
        }
    }

    /// One to four snapshots, or now and then a volume with its snapshots.
    fn choose(&mut self) -> BTreeSet<String> {
        let names: Vec<String> = self.model.nodes.keys().cloned().collect();
        let (snapshots, volumes): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|n| n.contains('@'));
        if snapshots.is_empty() || self.rng.below(8) == 0 {
            let volume = &volumes[self.rng.below(volumes.len())];
            let mut chosen = BTreeSet::from_iter(self.model.snapshots_of(volume));
            chosen.insert(volume.clone());
            return chosen;
        }
        let count = 1 + self.rng.below(4);
        (0..count).map(|_| snapshots[self.rng.below(snapshots.len())].clone()).collect()
    }

    /// Deletes what was chosen; so much comes back as was said, and as the model says. Half of the
    /// time the next delete comes while this one is still being reclaimed.
    fn delete(&mut self, chosen: &BTreeSet<String>) {
        let names: Vec<&str> = chosen.iter().map(String::as_str).collect();
        let foreseen = self.pool.exact_size(&names).unwrap();
        let freed = self.model.freed_by(chosen) * BLOCK as u64;
        assert_eq!((foreseen.exact, foreseen.data_bytes), (true, freed), "{names:?}");
        self.pool.delete(&names, DeleteOptions { recursive: true, dry_run: false }).unwrap();
        self.model.nodes.retain(|name, _| !chosen.contains(name));
        if self.rng.below(2) == 0 {
            return;
        }
        self.pool.wait_reclaim().unwrap();
        let data = self.info().data_bytes;
        assert_eq!(data, self.model.data_blocks() * BLOCK as u64, "after {names:?}");
    }
}

#[test]
fn a_pool_ends_exactly_as_empty_as_it_began() {
    let seed = std::env::var("COW_STORY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(1);
    println!("COW_STORY_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.cow");
    let pool = Pool::create(&path, &CreateOptions::with_size(512 << 20)).unwrap();
    let model = Model::default();
    let mut story = Story { path, pool, model, rng: Rng(seed), checks: 0 };
    let empty = story.rest();
    assert_eq!((empty.data_bytes, empty.map_nodes, empty.blob_blocks), (0, 0, 0));

    story.import_base(&dir.path().join("base.raw"));
    story.snapshot("base@gold");
    story.check("import");
    for index in 0..CLONES {
        let volume = format!("vm{index}");
        story.live(&volume);
        story.check(&volume);
    }
    story.compare_all();
    let (count, full) = (story.model.nodes.len(), story.rest());
    story.reopen();
    assert_eq!(story.rest(), full, "what is kept in memory has not drifted from the disk");
    story.compare_all();
    assert!(count > CLONES * (SNAPSHOTS + 1), "{count}");

    let mut steps = 0;
    while !story.model.nodes.is_empty() {
        let chosen = story.choose();
        story.delete(&chosen);
        story.check(&format!("delete {chosen:?}"));
        steps += 1;
        if steps % 16 == 0 {
            story.compare_all();
        }
        if steps % 24 == 0 {
            story.reopen();
        }
    }
    println!("{count} nodes, {steps} deletes, {} checks; {full:?}; {empty:?}", story.checks);
    assert_eq!(story.rest(), empty, "against the beginning");
    story.reopen();
    assert_eq!(story.rest(), empty, "after one more opening");
    story.pool.shutdown().unwrap();
}
