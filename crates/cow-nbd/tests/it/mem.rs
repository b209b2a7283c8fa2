//! Exports in memory, with handles for tests: hold requests back, answer them in reverse, fail
//! them, and count who is there. Where the storage reads requests by itself it has a thread for each
//! source, which has every third request answered elsewhere.

use cow_nbd::{Base, Change, Completion, Export, ExportError, Exports, Extent, Request, Response};
use cowstore::{BLOCK_SIZE, Buf, Source, Taken};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Whether the storage reads and answers requests by itself: in the tests of `direct.rs`.
pub const DIRECT: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"direct");

type Fail = Box<dyn Fn(&Request) -> Option<ExportError> + Send>;

struct Job {
    volume: Arc<MemVolume>,
    request: Request,
    done: Completion,
}

impl Job {
    fn run(self) {
        let failure = self.volume.fail.lock().as_ref().and_then(|fail| fail(&self.request));
        let result = match failure {
            Some(error) => Err(error),
            None => self.volume.execute(&self.request),
        };
        (self.done)(result);
    }
}

thread_local! {
    /// What a thread that serves a source has to do.
    static MINE: RefCell<Option<Vec<Job>>> = const { RefCell::new(None) };
}

/// Serves a source, as the reactor of a pool does, until it has come to its end.
fn react(volume: &MemVolume, mut source: Box<dyn Source>) {
    MINE.set(Some(Vec::new()));
    for turn in 0.. {
        let taken = source.take();
        let jobs = MINE.replace(Some(Vec::new())).unwrap_or_default();
        volume.direct.fetch_add(jobs.len(), Ordering::SeqCst);
        for (at, job) in jobs.into_iter().enumerate() {
            if (turn + at) % 3 == 2 {
                volume.reactor.lock().send(job).expect("reactor");
            } else {
                job.run();
            }
        }
        source.answers(&mut Vec::new());
        match taken {
            Taken::All => std::thread::sleep(Duration::from_micros(50)),
            Taken::Some => {}
            Taken::End => return source.leave(),
        }
    }
}

struct Content {
    bytes: Vec<u8>,
    mapped: Vec<bool>,
}

pub struct MemVolume {
    content: Mutex<Content>,
    read_only: bool,
    fail: Mutex<Option<Fail>>,
    held: Mutex<Option<Vec<Job>>>,
    pub opens: AtomicUsize,
    pub flushes: AtomicUsize,
    pub forced: AtomicUsize,
    pub writes: AtomicUsize,
    /// Requests that the storage has read by itself.
    pub direct: AtomicUsize,
    /// Drop callbacks without calling them.
    pub lossy: AtomicBool,
    reactor: Mutex<mpsc::Sender<Job>>,
}

impl MemVolume {
    pub fn new(size: usize, read_only: bool) -> Arc<Self> {
        let (reactor, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || jobs.into_iter().for_each(Job::run));
        let content =
            Content { bytes: vec![0; size], mapped: vec![false; size.div_ceil(BLOCK_SIZE)] };
        Arc::new(Self {
            content: Mutex::new(content),
            read_only,
            fail: Mutex::new(None),
            held: Mutex::new(None),
            opens: AtomicUsize::new(0),
            flushes: AtomicUsize::new(0),
            forced: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            direct: AtomicUsize::new(0),
            lossy: AtomicBool::new(false),
            reactor: Mutex::new(reactor),
        })
    }

    /// Gives it another size.
    pub fn resize(&self, size: usize) {
        let mut content = self.content.lock();
        content.bytes.resize(size, 0);
        content.mapped.resize(size.div_ceil(BLOCK_SIZE), false);
    }

    /// Requests wait from now on.
    pub fn hold(&self) {
        *self.held.lock() = Some(Vec::new());
    }

    pub fn held_count(&self) -> usize {
        self.held.lock().as_ref().map_or(0, Vec::len)
    }

    /// Answers what waits, the last first, and holds nothing any more.
    pub fn release_reversed(&self) {
        let jobs = self.held.lock().take().unwrap_or_default();
        for job in jobs.into_iter().rev() {
            self.reactor.lock().send(job).expect("reactor");
        }
    }

    pub fn fail_with(&self, fail: impl Fn(&Request) -> Option<ExportError> + Send + 'static) {
        *self.fail.lock() = Some(Box::new(fail));
    }

    pub fn write(&self, offset: usize, data: &[u8]) {
        let mut content = self.content.lock();
        content.bytes[offset..offset + data.len()].copy_from_slice(data);
        content.map(offset, data.len(), true);
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.content.lock().bytes.clone()
    }

    fn execute(&self, request: &Request) -> Result<Response, ExportError> {
        let mut content = self.content.lock();
        match request {
            &Request::Read { offset, len } => {
                let (offset, len) = (offset as usize, len as usize);
                if !content.any_mapped(offset, len) {
                    return Ok(Response::Zeroes);
                }
                // Whole blocks around the range, as a real export reads them.
                let skip = offset % BLOCK_SIZE;
                let mut buf = Buf::zeroed((skip + len).div_ceil(BLOCK_SIZE));
                buf[skip..skip + len].copy_from_slice(&content.bytes[offset..offset + len]);
                Ok(Response::Data { buf, skip, len })
            }
            Request::Write { offset, data, len, fua } => {
                let (offset, len) = (*offset as usize, *len as usize);
                assert_eq!(data.block_count(), len.div_ceil(BLOCK_SIZE));
                content.bytes[offset..offset + len].copy_from_slice(&data[..len]);
                content.map(offset, len, true);
                self.writes.fetch_add(1, Ordering::SeqCst);
                self.note_fua(*fua);
                Ok(Response::Done)
            }
            Request::Flush => {
                self.flushes.fetch_add(1, Ordering::SeqCst);
                Ok(Response::Done)
            }
            &Request::Trim { offset, len, fua } => {
                content.zero(offset as usize, len as usize, false);
                self.note_fua(fua);
                Ok(Response::Done)
            }
            &Request::WriteZeroes { offset, len, no_hole, fast, fua } => {
                if fast && no_hole {
                    return Err(ExportError::NotSupported);
                }
                content.zero(offset as usize, len as usize, no_hole);
                self.note_fua(fua);
                Ok(Response::Done)
            }
            Request::Cache { .. } => Ok(Response::Done),
            &Request::BlockStatus { offset, len } => {
                Ok(Response::Extents(content.extents(offset as usize, len as usize)))
            }
        }
    }

    fn note_fua(&self, fua: bool) {
        self.forced.fetch_add(fua.into(), Ordering::SeqCst);
    }
}

impl Content {
    fn map(&mut self, offset: usize, len: usize, mapped: bool) {
        if len > 0 {
            self.mapped[offset / BLOCK_SIZE..=(offset + len - 1) / BLOCK_SIZE].fill(mapped);
        }
    }

    fn any_mapped(&self, offset: usize, len: usize) -> bool {
        self.mapped[offset / BLOCK_SIZE..=(offset + len - 1) / BLOCK_SIZE].contains(&true)
    }

    fn zero(&mut self, offset: usize, len: usize, keep: bool) {
        self.bytes[offset..offset + len].fill(0);
        if keep {
            return self.map(offset, len, true);
        }
        let (first, end) = (offset.div_ceil(BLOCK_SIZE), (offset + len) / BLOCK_SIZE);
        if first < end {
            self.mapped[first..end].fill(false);
        }
    }

    /// One extent per block: the server has to join them.
    fn extents(&self, offset: usize, len: usize) -> Vec<Extent> {
        let mut at = offset;
        let mut extents = Vec::new();
        while at < offset + len {
            let end = (at / BLOCK_SIZE + 1) * BLOCK_SIZE;
            let mapped = self.mapped[at / BLOCK_SIZE];
            extents.push(Extent { len: (end - at) as u64, hole: !mapped, zero: !mapped });
            at = end;
        }
        extents
    }
}

struct MemExport(Arc<MemVolume>, BTreeMap<String, Arc<MemVolume>>);

impl Drop for MemExport {
    fn drop(&mut self) {
        self.0.opens.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Export for MemExport {
    fn size_bytes(&self) -> u64 {
        self.0.content.lock().bytes.len() as u64
    }

    fn read_only(&self) -> bool {
        self.0.read_only
    }

    fn submit(&self, request: Request, done: Completion) {
        if self.0.lossy.load(Ordering::SeqCst) {
            return;
        }
        let job = Job { volume: Arc::clone(&self.0), request, done };
        match self.0.held.lock().as_mut() {
            Some(held) => held.push(job),
            None => MINE.with_borrow_mut(|mine| match mine {
                Some(mine) => mine.push(job),
                None => self.0.reactor.lock().send(job).expect("reactor"),
            }),
        }
    }

    fn serve(&self, source: Box<dyn Source>) {
        if DIRECT {
            let volume = Arc::clone(&self.0);
            std::thread::spawn(move || react(&volume, source));
        }
    }

    fn bases(&self, most: usize) -> Vec<String> {
        let snapshots = self.1.keys().filter_map(|name| name.split_once('@'));
        snapshots.map(|(_, snapshot)| snapshot.to_owned()).take(most).collect()
    }

    fn base(&self, name: &str) -> Option<Arc<dyn Base>> {
        let (full, base) = self.1.iter().find(|(full, _)| full.ends_with(&format!("@{name}")))?;
        base.opens.fetch_add(1, Ordering::SeqCst);
        Some(Arc::new(MemBase { name: full.clone(), own: self.0.clone(), base: base.clone() }))
    }
}

struct MemBase {
    name: String,
    own: Arc<MemVolume>,
    base: Arc<MemVolume>,
}

impl Drop for MemBase {
    fn drop(&mut self) {
        self.base.opens.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Base for MemBase {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// Byte by byte: the server has to join them.
    fn changes(&self, offset: u64, len: u32, done: Completion) {
        if self.base.lossy.load(Ordering::SeqCst) {
            return;
        }
        if let Some(fail) = self.base.fail.lock().as_ref()
            && let Some(error) = fail(&Request::BlockStatus { offset, len })
        {
            return done(Err(error));
        }
        let range = offset as usize..offset as usize + len as usize;
        let (own, base) = (self.own.bytes(), self.base.bytes());
        let changes = own[range.clone()].iter().zip(&base[range]);
        let changes = changes.map(|(own, base)| Change { len: 1, dirty: own != base }).collect();
        done(Ok(Response::Changes(changes)));
    }
}

#[derive(Default)]
pub struct MemExports(Mutex<BTreeMap<String, Arc<MemVolume>>>);

impl MemExports {
    pub fn new(volumes: &[(&str, &Arc<MemVolume>)]) -> Arc<Self> {
        let volumes = volumes.iter().map(|(name, volume)| ((*name).to_owned(), Arc::clone(volume)));
        Arc::new(Self(Mutex::new(volumes.collect())))
    }

    pub fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

impl Exports for MemExports {
    fn list(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Export>, ExportError> {
        let volume = self.0.lock().get(name).cloned().ok_or(ExportError::NotFound)?;
        volume.opens.fetch_add(1, Ordering::SeqCst);
        let prefix = format!("{}@", name.split('@').next().unwrap_or_default());
        let all = self.0.lock().clone();
        let snapshots =
            all.into_iter().filter(|(full, _)| full.starts_with(&prefix) && full != name);
        Ok(Arc::new(MemExport(volume, snapshots.collect())))
    }
}
