//! What the demo works on, and its single steps.

use super::VOLUME;
use super::image::{self, IMAGE_BYTES};
use super::nbd::Client;
use crate::args::Demo;
use crate::commands::draw;
use crate::failure::Failure;
use crate::image::{PoolImage, refused};
use crate::output::line;
use crate::session::open_options;
use crate::units::{human_duration, human_size};
use cow_nbd::{PoolExports, Server, ServerHandle};
use cowstore::transfer::{ExportFile, ExportOptions, ImportOptions, Watch, export, import};
use cowstore::{
    CreateOptions, DeleteOptions, Error, Pool, RollbackOptions, SetSize, SnapshotOptions,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const POOL_BYTES: u64 = 2 << 30;
const MIB: u64 = 1 << 20;

/// The directory, the pool, the server, and what was measured.
pub struct Stage {
    dir: TempDir,
    mkfs: PathBuf,
    e2fsck: PathBuf,
    original: PathBuf,
    pool: Option<Arc<Pool>>,
    server: Option<ServerHandle>,
    times: Vec<(String, Duration)>,
}

/// What a failed step says.
pub fn wrong(text: impl Into<String>) -> Failure {
    Failure::Failed(format!("the demo went wrong: {}", text.into()))
}

impl Stage {
    /// An empty directory, and the tools to fill it.
    pub fn new(args: &Demo) -> Result<Self, Failure> {
        let mkfs = image::tool("mkfs.ext4", "e2fsprogs")?;
        let e2fsck = image::tool("e2fsck", "e2fsprogs")?;
        let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut dir = tempfile::Builder::new()
            .prefix("cow-demo-")
            .tempdir_in(&parent)
            .map_err(Failure::file(&parent))?;
        dir.disable_cleanup(args.keep);
        line(format!(
            "In {}{}",
            dir.path().display(),
            if args.keep { "" } else { " (removed at the end)" }
        ))?;
        let original = dir.path().join("disk.raw");
        let (pool, server, times) = (None, None, Vec::new());
        Ok(Self { dir, mkfs, e2fsck, original, pool, server, times })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The image that was imported.
    pub fn original(&self) -> &Path {
        &self.original
    }

    fn pool(&self) -> Result<&Arc<Pool>, Failure> {
        self.pool.as_ref().ok_or_else(|| wrong("the pool is not open"))
    }

    fn fail(&self) -> impl Fn(Error) -> Failure + use<> {
        Failure::of(&self.path("pool.cow"))
    }

    /// Measures one operation.
    fn time<T>(
        &mut self,
        what: impl Into<String>,
        operation: impl FnOnce(&Pool) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let pool = self.pool()?.clone();
        let start = Instant::now();
        let result = operation(&pool).map_err(self.fail());
        self.times.push((what.into(), start.elapsed()));
        result
    }

    /// A real ext4 file system with files of this machine.
    pub fn make_image(&mut self) -> Result<(), Failure> {
        let tree = self.path("tree");
        std::fs::create_dir(&tree).map_err(Failure::file(&tree))?;
        let content = image::make(&self.mkfs, &tree, &self.original)?;
        std::fs::remove_dir_all(&tree).map_err(Failure::file(&tree))?;
        line(format!(
            "  mkfs.ext4: an image of {} with {} files, {}",
            human_size(IMAGE_BYTES),
            content.files,
            human_size(content.bytes)
        ))?;
        let original = self.original.clone();
        self.must_be_clean(&original)
    }

    /// A pool with the image in it, served over NBD.
    pub fn make_pool(&mut self) -> Result<(), Failure> {
        let path = self.path("pool.cow");
        let options =
            CreateOptions { open: open_options(false), ..CreateOptions::with_size(POOL_BYTES) };
        let pool = Pool::create(&path, &options).map_err(self.fail())?;
        self.pool = Some(Arc::new(pool));
        let file = File::open(&self.original).map_err(Failure::file(&self.original))?;
        let options = ImportOptions { volume: VOLUME.into(), ..ImportOptions::default() };
        let moved = self.time("import", |pool| {
            let mut watch = Watch { progress: &mut |_| {}, cancelled: &|| false };
            import(pool, &file, &options, &mut watch)
        })?;
        line(format!(
            "  imported: {} of {} are data, the rest takes no space",
            human_size(moved.data_bytes),
            human_size(moved.bytes)
        ))?;
        let socket = self.path("nbd.sock");
        let exports = Arc::new(PoolExports::new(self.pool()?.clone()));
        let server = Server::builder().unix(&socket).start(exports);
        let server = server.map_err(|e| Failure::Failed(e.to_string()))?;
        let uris = server.uris(VOLUME);
        self.server = Some(server);
        line(format!("  served at {}", uris.join(" ")))
    }

    /// Takes a snapshot.
    pub fn snapshot(&mut self, name: &str) -> Result<(), Failure> {
        let options = SnapshotOptions::default();
        self.time(format!("snapshot {name}"), |pool| pool.snapshot(&[name], options))?;
        line(format!("  snapshot {name}"))
    }

    /// Writes garbage over the heart of the file system, as an NBD client.
    pub fn damage(&mut self) -> Result<(), Failure> {
        let socket = self.path("nbd.sock");
        let mut garbage = vec![0; MIB as usize];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in &mut garbage {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        // Past the superblock: bitmaps, inode tables, directories, and files here and there.
        let places = (1..9).map(|at| at * MIB).chain((16..256).step_by(16).map(|at| at * MIB));
        let act = || {
            let mut client = Client::connect(&socket, VOLUME)?;
            let mut bytes = 0;
            for offset in std::iter::once(64 << 10).chain(places) {
                client.write(offset, &garbage)?;
                bytes += garbage.len() as u64;
            }
            client.flush()?;
            client.disconnect().map(|()| bytes)
        };
        let bytes = act().map_err(|e| Failure::Failed(format!("damage over NBD: {e}")))?;
        line(format!("  damaged over NBD: {} of garbage", human_size(bytes)))
    }

    /// Writes the volume to a file.
    pub fn export(&mut self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        let target = ExportFile::create(&path, false).map_err(self.fail())?;
        let file = target.file();
        let options = ExportOptions { name: VOLUME.into() };
        let mut watch = Watch { progress: &mut |_| {}, cancelled: &|| false };
        export(self.pool()?, &file, &options, &mut watch).map_err(self.fail())?;
        target.commit().map_err(self.fail())?;
        Ok(path)
    }

    fn e2fsck(&self, image: &Path) -> Result<(Option<i32>, String), Failure> {
        let mut command = Command::new(&self.e2fsck);
        let output = image::output(command.arg("-fn").arg(image))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), text))
    }

    /// `e2fsck` must find errors.
    pub fn must_be_broken(&self, image: &Path) -> Result<(), Failure> {
        let (code, text) = self.e2fsck(image)?;
        if code.is_none_or(|code| code & 4 == 0 && code & 8 == 0) {
            return Err(wrong("e2fsck finds nothing wrong with the damaged file system"));
        }
        line(format!("  e2fsck: broken ({} complaints)", text.lines().count()))
    }

    /// `e2fsck` must find nothing.
    pub fn must_be_clean(&self, image: &Path) -> Result<(), Failure> {
        let (code, text) = self.e2fsck(image)?;
        if code != Some(0) {
            return Err(wrong(format!("e2fsck of {} found:\n{text}", image.display())));
        }
        line("  e2fsck: clean")
    }

    /// Two files must have the same content.
    pub fn must_equal(&self, image: &Path, other: &Path, whose: &str) -> Result<(), Failure> {
        let (hash, want) = (hash(image)?, hash(other)?);
        if hash != want {
            return Err(wrong(format!("the volume's hash is {hash}, that of {whose} {want}")));
        }
        line(format!("  same hash as {whose}: {}...", hash.to_hex().get(..16).unwrap_or_default()))
    }

    /// Takes the volume back; returns the name of what keeps the replaced state, if nothing else
    /// does.
    pub fn rollback(&mut self, to: &str) -> Result<Option<String>, Failure> {
        let options = RollbackOptions::default();
        let kept = self.time(format!("rollback to {to}"), |pool| pool.rollback(&[to], options))?;
        let kept = kept.into_iter().flatten().next().map(|kept| kept.name);
        line(match &kept {
            Some(name) => format!("  rolled back to {to}; what was replaced is {name}"),
            None => format!("  rolled back to {to}; what was replaced had not changed"),
        })?;
        Ok(kept)
    }

    /// Brings back what the last rollback replaced.
    pub fn undo(&mut self) -> Result<(), Failure> {
        self.time("undo", |pool| pool.undo(VOLUME, false)).map(|_| ())?;
        line("  undone")
    }

    /// Prints the tree, with what each takes for itself.
    pub fn draw(&self) -> Result<(), Failure> {
        let nodes = self.pool()?.list(true).map_err(self.fail())?;
        if nodes.iter().any(|node| node.unique_bytes.is_none()) {
            return Err(wrong("a size is not known"));
        }
        draw(&nodes).iter().try_for_each(|text| line(format!("  {text}")))
    }

    /// Deletes snapshots and waits for their space; checks that it is what was foretold.
    pub fn delete(&mut self, names: &[&str]) -> Result<u64, Failure> {
        let data = |pool: &Pool| pool.info(true).map(|info| info.data_bytes);
        let before = data(self.pool()?).map_err(self.fail())?;
        let dry_run = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
        let foretold: SetSize = self.pool()?.delete(names, dry_run).map_err(self.fail())?;
        self.time("delete (acknowledged)", |pool| pool.delete(names, DeleteOptions::default()))?;
        self.time("delete (space is back)", Pool::wait_reclaim)?;
        let freed = before.saturating_sub(data(self.pool()?).map_err(self.fail())?);
        if !foretold.exact || freed != foretold.data_bytes {
            return Err(wrong(format!("{freed} bytes came back; foretold was {foretold:?}")));
        }
        Ok(freed)
    }

    /// Prints what was measured.
    pub fn show(&self) -> Result<(), Failure> {
        line("\nTimes:")?;
        self.times.iter().try_for_each(|(what, time)| {
            line(format!("  {what:<24} {:>10}", human_duration(*time)))
        })
    }

    /// The structure and every checksum, once the pool is closed.
    pub fn check(&self) -> Result<(), Failure> {
        let path = self.path("pool.cow");
        let mut image = PoolImage::open(&path)?;
        let report = cow_check::check(&mut image, &cow_check::Options::default());
        let report = report.map_err(refused(&path))?;
        if let Some(finding) = report.findings.first() {
            return Err(wrong(format!("the check found: {finding}")));
        }
        let blocks = report.stats.data_verified;
        line(format!("\n  check: clean, {blocks} data blocks verified"))
    }

    /// Ends the server, then the pool.
    pub fn close(&mut self) -> Result<(), Failure> {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
        let Some(pool) = self.pool.take() else { return Ok(()) };
        pool.shutdown().map_err(self.fail())
    }
}

fn hash(path: &Path) -> Result<blake3::Hash, Failure> {
    let mut hasher = blake3::Hasher::new();
    let hashed = File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
    hashed.map_err(Failure::file(path))?;
    Ok(hasher.finalize())
}
