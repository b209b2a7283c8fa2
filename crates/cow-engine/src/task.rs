//! Tasks: whatever takes more than one device operation is written as an `async fn` and polled by
//! the engine itself. Nothing of an async runtime is used: an await point is a place where the
//! state machine waits for a device operation or for a change of the engine's state, and what
//! wakes it is recorded in [`Core`]. So the engine stays a deterministic function of its events.
//!
//! The engine's state is behind one `RefCell`; no borrow is ever held across an await (clippy's
//! `await_holding_refcell_ref` is denied in this workspace).

use crate::api::{Action, IoFailure, IoId};
use crate::core::Core;
use crate::wait::{TaskId, WaitList, Waiter};
use cow_format::{Buf, BufSlice, Phys};
use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type BoxTask = Pin<Box<dyn Future<Output = ()>>>;

/// What every task holds: the engine's state.
#[derive(Clone)]
pub(crate) struct Cx(pub(crate) Rc<RefCell<Core>>);

impl Cx {
    pub(crate) fn core(&self) -> RefMut<'_, Core> {
        self.0.borrow_mut()
    }

    fn issue(&self, action: impl FnOnce(IoId) -> Action) -> IoFuture {
        let mut core = self.core();
        let waiter = Waiter::Task(core.current);
        let id = core.io.issue(waiter, action);
        IoFuture { cx: self.clone(), id }
    }

    /// Reads `blocks` blocks from `at`.
    pub(crate) async fn read(
        &self,
        at: Phys,
        blocks: usize,
        bypass_cache: bool,
    ) -> Result<Buf, IoFailure> {
        let buf = self.core().config.buffers.scratch(blocks);
        let (result, buf) = self.issue(|id| Action::Read { id, at, buf, bypass_cache }).await;
        result?;
        buf.filter(|b| b.block_count() == blocks).ok_or(IoFailure { errno: 5 })
    }

    /// Begins a write at once; the future tells when it is complete.
    pub(crate) fn write(
        &self,
        at: Phys,
        bufs: Vec<BufSlice>,
    ) -> impl Future<Output = Result<(), IoFailure>> + use<> {
        let future = self.issue(|id| Action::Write { id, at, bufs, lazy: false });
        async move { future.await.0 }
    }

    /// A write that may be kept for a while, as nobody waits for it; see [`Action::Write`].
    pub(crate) async fn write_lazily(&self, at: Phys, data: BufSlice) -> Result<(), IoFailure> {
        self.issue(|id| Action::Write { id, at, bufs: vec![data], lazy: true }).await.0
    }

    /// Makes everything that is complete now durable.
    pub(crate) async fn device_flush(&self) -> Result<(), IoFailure> {
        self.core().stats.device_flushes += 1;
        self.issue(|id| Action::Flush { id }).await.0
    }

    /// Gives blocks back to what lies below.
    pub(crate) async fn discard(&self, at: Phys, blocks: u64) -> Result<(), IoFailure> {
        self.issue(|id| Action::Discard { id, at, blocks }).await.0
    }

    /// Makes sure that these blocks have room in the file system below.
    pub(crate) async fn allocate_below(&self, at: Phys, blocks: u64) -> Result<(), IoFailure> {
        self.issue(|id| Action::Allocate { id, at, blocks }).await.0
    }

    pub(crate) async fn grow(&self, blocks: u64) -> Result<(), IoFailure> {
        self.issue(|id| Action::Grow { id, blocks }).await.0
    }

    /// Waits until the list that `pick` names is notified.
    pub(crate) fn wait(&self, pick: fn(&mut Core) -> &mut WaitList) -> WaitFuture {
        WaitFuture { cx: self.clone(), pick, waited: false }
    }

    /// Lets others have their turn.
    pub(crate) fn pause(&self) -> WaitFuture {
        self.wait(|core| &mut core.paused)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.core().spawned.push(Box::pin(task));
    }
}

/// Pauses of work that nobody waits for, or that would keep others waiting: it has thousands of steps
/// without an answer in between, and nobody else would be heard.
#[derive(Default)]
pub(crate) struct Turns {
    since_pause: usize,
}

impl Turns {
    /// One has gone through a node, a page, or as much; others have their turn after so many.
    pub(crate) async fn went_on(&mut self, cx: &Cx) {
        self.since_pause += 1;
        if self.since_pause >= cx.core().config.slice {
            self.since_pause = 0;
            cx.pause().await;
        }
    }
}

pub(crate) struct IoFuture {
    cx: Cx,
    id: IoId,
}

impl Future for IoFuture {
    type Output = (Result<(), IoFailure>, Option<Buf>);

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let mut core = self.cx.core();
        let current = core.current;
        let Some(slot) = core.io.waiting.get_mut(&self.id) else {
            return Poll::Ready((Err(IoFailure { errno: 5 }), None));
        };
        match slot.done.take() {
            Some(done) => {
                core.io.waiting.remove(&self.id);
                Poll::Ready(done)
            }
            None => {
                slot.waiter = Waiter::Task(current);
                Poll::Pending
            }
        }
    }
}

pub(crate) struct WaitFuture {
    cx: Cx,
    pick: fn(&mut Core) -> &mut WaitList,
    waited: bool,
}

impl Future for WaitFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.waited {
            return Poll::Ready(());
        }
        self.waited = true;
        let mut core = self.cx.core();
        let task = core.current;
        (self.pick)(&mut core).0.push(task);
        Poll::Pending
    }
}

/// Polls all futures until each is ready; their outputs in order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Polls both futures until each is ready.
pub(crate) async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    std::future::poll_fn(move |context| {
        if of_a.is_none() {
            of_a = ready(a.as_mut().poll(context));
        }
        if of_b.is_none() {
            of_b = ready(b.as_mut().poll(context));
        }
        match (of_a.take(), of_b.take()) {
            (Some(of_a), Some(of_b)) => Poll::Ready((of_a, of_b)),
            (one, other) => {
                (of_a, of_b) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// The tasks of an engine.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: Vec<Option<BoxTask>>,
    free: Vec<TaskId>,
    /// See `Config::task_order`.
    order: u64,
}

impl Tasks {
    pub(crate) fn new(order: u64) -> Self {
        Self { order, ..Self::default() }
    }

    /// Runs every task that can go on, and those that these spawn, until all of them wait.
    pub(crate) fn run(&mut self, cx: &Cx) {
        loop {
            let (mut ready, spawned) = {
                let mut core = cx.core();
                (std::mem::take(&mut core.ready), std::mem::take(&mut core.spawned))
            };
            for task in spawned {
                let id = self.free.pop().unwrap_or(self.slots.len());
                if id == self.slots.len() {
                    self.slots.push(None);
                }
                self.slots[id] = Some(task);
                ready.push(id);
            }
            if ready.is_empty() {
                return;
            }
            if self.order != 0 {
                self.shuffle(&mut ready);
            }
            for id in ready {
                self.poll(cx, id);
            }
        }
    }

    /// Fisher and Yates, with numbers of a xorshift generator.
    fn shuffle(&mut self, ready: &mut [TaskId]) {
        for last in (1..ready.len()).rev() {
            self.order ^= self.order << 13;
            self.order ^= self.order >> 7;
            self.order ^= self.order << 17;
            ready.swap(last, (self.order % (last as u64 + 1)) as usize);
        }
    }

    fn poll(&mut self, cx: &Cx, id: TaskId) {
        let Some(mut task) = self.slots.get_mut(id).and_then(Option::take) else { return };
        cx.core().current = id;
        let mut context = Context::from_waker(Waker::noop());
        match task.as_mut().poll(&mut context) {
            Poll::Ready(()) => self.free.push(id),
            Poll::Pending => self.slots[id] = Some(task),
        }
    }
}
