//! When the device gets what follows from its completions: a machine that reads for each request,
//! and a driver whose requests all complete together.

use crate::bypass::CacheBypass;
use crate::completion::Completion;
use crate::error::Error;
use crate::queue::Queue;
use crate::reactor::*;
use cow_engine::{Action, Event, IoId, Op, OpId, Reply};
use cow_format::{Buf, BufSlice, Phys};
use cow_io::{
    CreateOptions, Driver, DriverChoice, DriverOptions, Image, IoDone, IoOp, IoRequest, Notifier,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// What happened, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Note {
    Done,
    /// So many requests went to the device.
    Began(usize),
    /// So many of them are complete.
    Came(usize),
    /// A piece of background work is done.
    Worked,
}

type Notes = Arc<Mutex<Vec<Note>>>;

/// Reads so many blocks for a request, and answers it then.
struct Reader(usize);

impl Machine for Reader {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Op { id, op: Op::Close } => {
                actions.push(Action::Reply { id, result: Ok(Reply::Done) });
            }
            Event::Op { id, .. } => {
                let buf = Buf::zeroed(self.0);
                actions.push(Action::Read {
                    id: IoId(id.0),
                    at: Phys(1),
                    buf,
                    bypass_cache: false,
                });
            }
            Event::IoDone { id, .. } => {
                actions.push(Action::Reply { id: OpId(id.0), result: Ok(Reply::Done) });
            }
            _ => {}
        }
    }

    fn wants_tick(&self) -> bool {
        false
    }
}

/// Writes so many blocks for a request, each by itself, and answers it at once.
struct Writer(usize);

impl Machine for Writer {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        let Event::Op { id, op } = event else { return };
        if !matches!(op, Op::Close) {
            for _ in 0..self.0 {
                let bufs = vec![BufSlice::whole(Buf::zeroed(1))];
                actions.push(Action::Write { id: IoId(id.0), at: Phys(1), bufs, lazy: true });
            }
        }
        actions.push(Action::Reply { id, result: Ok(Reply::Done) });
    }

    fn wants_tick(&self) -> bool {
        false
    }
}

/// Has background work to do, as often as it says, during which somebody asks for a write each time.
struct Worker {
    left: usize,
    queue: Arc<Queue>,
    notes: Notes,
}

impl Machine for Worker {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        if !matches!(event, Event::Resume) {
            return Writer(1).step(event, actions);
        }
        self.left -= 1;
        self.notes.lock().push(Note::Worked);
        let write = Op::Read { export: cow_engine::ExportId(1), offset: 0, len: 4096 };
        let op = if self.left > 0 { write } else { Op::Close };
        self.queue.push(op, Completion::ignored());
    }

    fn wants_tick(&self) -> bool {
        false
    }

    fn is_paused(&self) -> bool {
        self.left > 0
    }
}

struct Together {
    notes: Notes,
    queued: Vec<IoRequest>,
    under_way: Vec<IoRequest>,
    /// Notifies, and is otherwise not used.
    other: Box<dyn Driver>,
}

impl Driver for Together {
    fn submit(&mut self, request: IoRequest) {
        self.queued.push(request);
    }

    fn kick(&mut self) {
        if !self.queued.is_empty() {
            self.notes.lock().push(Note::Began(self.queued.len()));
            self.under_way.append(&mut self.queued);
        }
    }

    fn wait(&mut self, done: &mut Vec<IoDone>, timeout: Option<Duration>) {
        self.kick();
        if self.under_way.is_empty() {
            return self.other.wait(done, timeout);
        }
        self.notes.lock().push(Note::Came(self.under_way.len()));
        done.extend(self.under_way.drain(..).map(|request| {
            let buf = match request.op {
                IoOp::Read { buf, .. } => Some(buf),
                IoOp::Write { .. } => None,
                other => panic!("{other:?}"),
            };
            IoDone { tag: request.tag, result: Ok(()), buf }
        }));
    }

    fn notifier(&self) -> Notifier {
        self.other.notifier()
    }

    fn in_flight(&self) -> usize {
        self.queued.len() + self.under_way.len()
    }

    fn name(&self) -> &'static str {
        "together"
    }
}

/// One request, and when it is answered the next, as long as there are any. The last one closes.
fn ask(queue: &Arc<Queue>, notes: &Notes, left: &Arc<Mutex<usize>>) {
    let (next, seen, rest) = (queue.clone(), notes.clone(), left.clone());
    let op = Op::Read { export: cow_engine::ExportId(1), offset: 0, len: 4096 };
    let answered = move |result: Result<Reply, Error>| {
        assert!(result.is_ok(), "{result:?}");
        seen.lock().push(Note::Done);
        let mut left = rest.lock();
        *left -= 1;
        match *left {
            0 => next.push(Op::Close, Completion::ignored()),
            // The lanes that are under way are the last.
            left if left < LANES => {}
            _ => {
                drop(left);
                ask(&next, &seen, &rest);
            }
        }
    };
    queue.push(op, Completion::new(answered));
}

const LANES: usize = 32;

/// What happened while lanes asked `machine` for so many things.
fn notes_of<M: Machine>(asked: usize, machine: impl FnOnce(Arc<Queue>, Notes) -> M) -> Vec<Note> {
    let dir = tempfile::tempdir().unwrap();
    let image =
        Image::create(dir.path().join("image"), 1 << 20, &CreateOptions::default()).unwrap();
    let options = DriverOptions::default();
    let other = cow_io::open_driver(image, DriverChoice::Threads, &options).unwrap();
    let (notes, left) = (Notes::default(), Arc::new(Mutex::new(asked)));
    let (queued, under_way) = (Vec::new(), Vec::new());
    let driver = Together { notes: notes.clone(), queued, under_way, other };
    let queue = Arc::new(Queue::new(driver.notifier()));
    for _ in 0..LANES.min(asked) {
        ask(&queue, &notes, &left);
    }
    let path = dir.path().join("image");
    let bypass = CacheBypass::new(&path, true);
    let machine = {
        let (queue, notes) = (queue.clone(), notes.clone());
        move || machine(queue, notes)
    };
    let parts = Parts { queue, driver: Box::new(driver), bypass, registration: None, path };
    run(parts, machine);
    assert_eq!(*left.lock(), 0);
    let notes = notes.lock();
    notes.clone()
}

/// Most answers in a row without anything new for the device, while there were more to come.
fn longest_row(blocks: usize) -> usize {
    let (mut longest, mut row, mut answers) = (0, 0, 0);
    for note in notes_of(4 * LANES, move |_, _| Reader(blocks)) {
        match note {
            Note::Began(_) => row = 0,
            Note::Came(_) | Note::Worked => {}
            Note::Done => {
                row += 1;
                answers += 1;
                if answers <= 3 * LANES {
                    longest = longest.max(row);
                }
            }
        }
    }
    longest
}

#[test]
fn the_device_gets_more_to_do_before_all_that_it_did_is_told() {
    assert_eq!(longest_row(1), PORTION);
    assert_eq!(longest_row(256), 1, "what is long to verify is a portion by itself");
}

/// Who is answered before the device has done anything asks for the next thing at once.
#[test]
fn what_has_landed_is_seen_before_more_is_written() {
    let came = notes_of(1000 * LANES, |_, _| Writer(1)).into_iter().filter_map(|note| match note {
        Note::Came(writes) => Some(writes),
        _ => None,
    });
    let most = came.max().unwrap();
    assert!(most <= 2 * LANES, "{most} writes of {LANES} lanes had landed, and nobody had seen it");
}

#[test]
fn who_asks_during_background_work_is_heard_before_what_has_landed() {
    let notes = notes_of(0, |queue, notes| Worker { left: 100, queue, notes });
    let worked: Vec<usize> = (0..notes.len()).filter(|&at| notes[at] == Note::Worked).collect();
    assert_eq!(worked.len(), 100);
    for at in worked.into_iter().take(99) {
        assert_eq!(notes.get(at + 1), Some(&Note::Began(1)), "after {:?}", &notes[..=at]);
    }
}

#[test]
fn who_writes_is_heard_once_while_many_writes_land() {
    let notes = notes_of(1000 * LANES, |_, _| Writer(2));
    let turns: Vec<&[Note]> = notes.chunk_by(|_, next| !matches!(next, Note::Came(_))).collect();
    let heard = |turn: &&[Note]| turn.iter().filter(|note| matches!(note, Note::Began(_))).count();
    let most = turns.iter().filter(|turn| turn[0] != Note::Began(2 * LANES)).map(heard).max();
    assert_eq!(most, Some(2), "in the middle, and at the beginning of the next turn");
    let came =
        notes.iter().filter(|note| matches!(note, Note::Came(writes) if *writes > 4 * LANES));
    assert_eq!(came.count(), 0, "what has landed waits for more and more");
}
