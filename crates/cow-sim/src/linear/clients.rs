//! Random clients of the engine in the simulated world, and a record of what they asked and saw.
//!
//! Unlike the clients of [`crate::history`] these take no care of one another: they write the same blocks, in
//! part too, at the same time, read them meanwhile, and snapshot, roll back, clone and delete beside it.

use super::area::{Spot, everything};
use super::op::{Call, Node, Op, SnapId, VolumeId};
use super::state::State;
use crate::disk::Faults;
use crate::rng::Rng;
use crate::sector::bytes_of;
use crate::world::World;
use cow_engine::{
    AckMode, Config, Engine, Error, ExportId, Op as EngineOp, OpId, Reply, SnapTarget,
};
use cow_format::Buf;
use std::collections::BTreeMap;

const VOLUME_BYTES: u64 = 8 << 20;
/// Volumes that no clone makes.
const VOLUMES: VolumeId = 2;
/// With those that are cloned.
const MOST_VOLUMES: VolumeId = 4;
/// The names that snapshots of a volume get, again and again.
const NAMES: u64 = 5;
/// Ids of undo snapshots begin here.
const UNDO: SnapId = 1 << 30;

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Clients, each with one operation at a time.
    pub clients: u32,
    /// Operations that they ask for, all together.
    pub operations: u32,
    /// When writes are acknowledged.
    pub ack: AckMode,
    /// Memory of the active layers that triggers a fold, in bytes.
    pub layer_bytes: usize,
    /// What goes wrong meanwhile.
    pub faults: Faults,
    /// The engine's order of tasks that can go on.
    pub task_order: u64,
}

/// A history, and what happened beside it.
pub struct Recorded {
    /// What the volumes held.
    pub initial: State,
    /// The history.
    pub ops: Vec<Op>,
    /// How often two operations were in progress together of which one wrote what the other wrote or read.
    pub met: u64,
}

/// What an answer is the answer to.
enum Asked {
    Open(Node),
    Write { call: Call },
    Read { node: Node, fence: u64, spot: Spot },
    Snapshot(VolumeId, SnapId),
    Rollback(VolumeId, SnapId),
    Clone(VolumeId, SnapId, VolumeId),
    Delete(VolumeId, SnapId),
    Other,
}

#[derive(Default)]
struct Client {
    /// On the heads, with the rollbacks that each knows of.
    heads: BTreeMap<VolumeId, (ExportId, u64)>,
    /// On one snapshot.
    snap: Option<(Node, ExportId)>,
    waiting: Option<(OpId, u64, Asked)>,
}

struct Run {
    world: World<Engine>,
    rng: Rng,
    clients: Vec<Client>,
    volumes: VolumeId,
    cloning: bool,
    clock: u64,
    token: u64,
    ops: Vec<Op>,
    met: u64,
    ended: bool,
    /// Clients ask so many times less one before the machine goes on by a step.
    eagerness: u64,
}

fn volume_name(volume: VolumeId) -> String {
    format!("v{volume}")
}

fn snap_name(snap: SnapId) -> String {
    if snap > UNDO { format!("undo.{}", snap - UNDO) } else { format!("s{snap}") }
}

fn name_of(node: Node) -> String {
    match node {
        Node::Head(volume) => volume_name(volume),
        Node::Snap(volume, snap) => format!("{}@{}", volume_name(volume), snap_name(snap)),
    }
}

/// Runs the clients of `seed` and records what they see.
///
/// # Errors
/// What cannot be, whatever the order.
pub fn record(seed: u64, setup: &Setup) -> Result<Recorded, String> {
    let mut rng = Rng::new(seed);
    let disk = crate::format(&crate::PoolOptions::default());
    let config = Config {
        layer_bytes: setup.layer_bytes,
        task_order: setup.task_order,
        ..crate::small_config(setup.ack)
    };
    let mut world = World::<Engine>::new(disk, &config, rng.word());
    let done = |result: Result<Reply, Error>| result.map(drop).map_err(|error| error.to_string());
    done(world.run_op(EngineOp::Open { read_only: false })?)?;
    for volume in 0..VOLUMES {
        let create = EngineOp::create_volume(volume_name(volume), VOLUME_BYTES, Vec::new());
        done(world.run_op(create)?)?;
    }
    world.disk_mut().set_faults(setup.faults.clone(), rng.word());
    let clients = (0..setup.clients).map(|_| Client::default()).collect();
    let eagerness = *rng.pick(&[2, 4, 12]).unwrap_or(&2);
    let mut run = Run {
        world,
        rng,
        eagerness,
        clients,
        volumes: VOLUMES,
        cloning: false,
        clock: 0,
        token: 0,
        ops: Vec::new(),
        met: 0,
        ended: false,
    };
    run.all(setup.operations)?;
    Ok(Recorded { initial: State::of(0..VOLUMES), ops: run.ops, met: run.met })
}

impl Run {
    fn all(&mut self, operations: u32) -> Result<(), String> {
        let mut left = operations;
        while (left > 0 || self.clients.iter().any(|client| client.waiting.is_some()))
            && !self.ended
        {
            let idle: Vec<usize> =
                (0..self.clients.len()).filter(|&i| self.clients[i].waiting.is_none()).collect();
            if left > 0
                && !self.rng.one_in(self.eagerness)
                && let Some(&client) = self.rng.pick(&idle)
            {
                left -= 1;
                self.ask(client);
            } else {
                self.world.pump()?;
            }
            self.hear()?;
        }
        if !self.ended {
            self.look_at_all()?;
        }
        self.give_up();
        Ok(())
    }

    /// At the end all of what everybody can see is read, by one client.
    fn look_at_all(&mut self) -> Result<(), String> {
        let mut nodes: Vec<Node> = (0..self.volumes).map(Node::Head).collect();
        for volume in 0..self.volumes {
            nodes.extend((0..NAMES).map(|name| Node::Snap(volume, name as SnapId)));
        }
        for node in nodes {
            self.clients[0].heads.clear();
            self.clients[0].snap = None;
            self.open(0, node);
            self.wait()?;
            let client = &self.clients[0];
            let head = client.heads.get(&node.volume()).copied();
            let handle = head.or(client.snap.map(|(_, export)| (export, 0)));
            let Some((export, fence)) = handle else { continue };
            for spot in everything() {
                self.read(0, export, node, fence, spot);
                self.wait()?;
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), String> {
        self.hear()?;
        while self.clients[0].waiting.is_some() && !self.ended {
            self.world.pump()?;
            self.hear()?;
        }
        Ok(())
    }

    /// What was not answered may have happened, or not.
    fn give_up(&mut self) {
        for client in 0..self.clients.len() {
            let Some((_, asked, what)) = self.clients[client].waiting.take() else { continue };
            let call = match what {
                Asked::Write { call } => call,
                Asked::Snapshot(volume, snap) => Call::Snapshot(volume, snap),
                Asked::Rollback(volume, to) => Call::Rollback { volume, to, undo: None },
                Asked::Clone(from, snap, to) => Call::Clone { from, snap, to },
                Asked::Delete(volume, snap) => Call::Delete(volume, snap),
                Asked::Open(_) | Asked::Read { .. } | Asked::Other => continue,
            };
            self.ops.push(Op { client: client as u32, call, asked, answered: None });
        }
    }

    fn start(&mut self, client: usize, op: EngineOp, what: Asked) {
        self.clock += 1;
        let asked = self.clock;
        self.met += self.clients.iter().filter(|other| other.meets(&what)).count() as u64;
        let id = self.world.start_op(op);
        self.clients[client].waiting = Some((id, asked, what));
    }

    fn open(&mut self, client: usize, node: Node) {
        let write = matches!(node, Node::Head(_));
        self.start(client, EngineOp::OpenExport { name: name_of(node), write }, Asked::Open(node));
    }

    fn read(&mut self, client: usize, export: ExportId, node: Node, fence: u64, spot: Spot) {
        let (offset, len) = (spot.offset, spot.len());
        let read = EngineOp::Read { export, offset, len };
        self.start(client, read, Asked::Read { node, fence, spot });
    }

    fn spot(&mut self) -> Spot {
        let first = self.rng.below(4);
        let blocks = first..first + self.rng.range(1, 4);
        let spot = Spot::blocks(self.rng.below(3), blocks);
        if self.rng.one_in(3) { spot.shrunk(self.rng.below(9), self.rng.below(9)) } else { spot }
    }

    /// Client `client` asks for something.
    fn ask(&mut self, client: usize) {
        let volume = self.rng.below(u64::from(self.volumes)) as VolumeId;
        let volume = if self.rng.one_in(2) { 0 } else { volume };
        let snap = self.rng.below(NAMES) as SnapId;
        let target = || SnapTarget { volume: volume_name(volume), snapshot: snap_name(snap) };
        match self.rng.below(100) {
            0..70 => self.head(client, volume),
            70..80 => self.snap(client, Node::Snap(volume, snap)),
            80..87 => {
                let (targets, options) = (vec![target()], cow_engine::SnapOptions::default());
                let op = EngineOp::Snapshot { targets, options };
                self.start(client, op, Asked::Snapshot(volume, snap));
            }
            87..91 => {
                let discard_current = self.rng.one_in(3);
                let op = EngineOp::Rollback {
                    targets: vec![target()],
                    discard_current,
                    force: true,
                    edits: Vec::new(),
                };
                self.start(client, op, Asked::Rollback(volume, snap));
            }
            91..95 => {
                let names = vec![name_of(Node::Snap(volume, snap))];
                let op = EngineOp::Delete { names, recursive: false, dry_run: false };
                self.start(client, op, Asked::Delete(volume, snap));
            }
            95 if self.volumes < MOST_VOLUMES && !self.cloning => {
                let (source, to) = (target(), self.volumes);
                self.cloning = true;
                let op = EngineOp::Clone { source, name: volume_name(to), props: Vec::new() };
                self.start(client, op, Asked::Clone(volume, snap, to));
            }
            _ => self.start(client, EngineOp::Checkpoint, Asked::Other),
        }
    }

    /// Something with the head of a volume.
    fn head(&mut self, client: usize, volume: VolumeId) {
        let Some(&(export, fence)) = self.clients[client].heads.get(&volume) else {
            return self.open(client, Node::Head(volume));
        };
        let spot = self.spot();
        let (offset, len, fua) = (spot.offset, spot.len(), self.rng.one_in(10));
        let (op, cells) = match self.rng.below(14) {
            0..6 => return self.read(client, export, Node::Head(volume), fence, spot),
            6..10 => {
                self.token += 1;
                let data = Buf::from_bytes(&bytes_of(self.token, spot.sectors as usize));
                (EngineOp::Write { export, offset, len, data, fua }, spot.cells(self.token))
            }
            10 => (EngineOp::WriteZeroes { export, offset, len, fua }, spot.cells(0)),
            11 => {
                let cells = spot.whole().map_or(Vec::new(), |whole| whole.cells(0));
                (EngineOp::Discard { export, offset, len, fua }, cells)
            }
            12 => return self.start(client, EngineOp::Flush { export }, Asked::Other),
            _ => {
                self.clients[client].heads.remove(&volume);
                return self.start(client, EngineOp::CloseExport { export }, Asked::Other);
            }
        };
        self.start(client, op, Asked::Write { call: Call::Write { volume, fence, cells } });
    }

    /// Something with a snapshot.
    fn snap(&mut self, client: usize, node: Node) {
        match self.clients[client].snap {
            None => self.open(client, node),
            Some((node, export)) if !self.rng.one_in(3) => {
                let spot = self.spot();
                self.read(client, export, node, 0, spot);
            }
            Some((_, export)) => {
                self.clients[client].snap = None;
                self.start(client, EngineOp::CloseExport { export }, Asked::Other);
            }
        }
    }

    /// Records what was answered.
    fn hear(&mut self) -> Result<(), String> {
        while let Some((id, result)) = self.world.take_reply() {
            self.clock += 1;
            let waits =
                |client: &Client| client.waiting.as_ref().is_some_and(|(waits, ..)| *waits == id);
            let Some(at) = self.clients.iter().position(waits) else {
                return Err(format!("{id:?} is answered, and nobody waits for it"));
            };
            let Some((_, asked, what)) = self.clients[at].waiting.take() else { continue };
            if let Err(Error::Io { .. } | Error::Poisoned(_)) = result {
                self.ended = true;
                self.clients[at].waiting = Some((id, asked, what));
                return Ok(());
            }
            for call in self.calls(at, what, result)? {
                let answered = Some(self.clock);
                self.ops.push(Op { client: at as u32, call, asked, answered });
            }
        }
        match self.world.disk_mut().take_bugs().into_iter().next() {
            Some(bug) => Err(bug),
            None => Ok(()),
        }
    }

    /// What an answer says, as operations of the history.
    fn calls(
        &mut self,
        at: usize,
        what: Asked,
        result: Result<Reply, Error>,
    ) -> Result<Vec<Call>, String> {
        let client = &mut self.clients[at];
        self.cloning &= !matches!(what, Asked::Clone(..));
        Ok(match (what, result) {
            (Asked::Open(node), Ok(Reply::Export { export, rollback_gen: fence, .. })) => {
                match node {
                    Node::Head(volume) => drop(client.heads.insert(volume, (export, fence))),
                    Node::Snap(..) => client.snap = Some((node, export)),
                }
                vec![Call::Opened { node, fence }]
            }
            (Asked::Write { call }, Ok(Reply::Done)) => vec![call],
            (Asked::Write { call: Call::Write { volume, fence, .. } }, Err(Error::Stale(_)))
            | (Asked::Read { node: Node::Head(volume), fence, .. }, Err(Error::Stale(_))) => {
                client.heads.remove(&volume);
                vec![Call::Fenced { volume, fence }]
            }
            (Asked::Read { node, fence, spot }, Ok(Reply::Data { buf, skip })) => {
                let bytes = buf.get(skip..).unwrap_or_default();
                let seen = spot.seen(bytes).into_iter();
                seen.map(|cells| Call::Read { node, fence, cells }).collect()
            }
            (Asked::Snapshot(volume, snap), Ok(Reply::Nodes(_))) => {
                vec![Call::Snapshot(volume, snap)]
            }
            (Asked::Snapshot(volume, snap), Err(Error::Exists(_) | Error::NotFound(_))) => {
                vec![Call::SnapshotRefused(volume, snap)]
            }
            (Asked::Rollback(volume, to), Ok(Reply::RolledBack(kept))) => {
                let kept = kept.into_iter().flatten().next();
                let number = kept.and_then(|(name, _)| name.rsplit_once("undo.")?.1.parse().ok());
                let undo = number.map(|number: SnapId| UNDO + number);
                vec![Call::Rollback { volume, to, undo }]
            }
            (Asked::Clone(from, snap, to), Ok(Reply::Node(_))) => {
                self.volumes = to + 1;
                vec![Call::Clone { from, snap, to }]
            }
            (Asked::Delete(volume, snap), Ok(Reply::Deleted(_))) => {
                vec![Call::Delete(volume, snap)]
            }
            (Asked::Open(node @ Node::Snap(..)), Err(Error::NotFound(_))) => {
                vec![Call::Missing(node)]
            }
            (
                Asked::Rollback(volume, snap)
                | Asked::Delete(volume, snap)
                | Asked::Clone(volume, snap, _),
                Err(Error::NotFound(_)),
            ) => vec![Call::Missing(Node::Snap(volume, snap))],
            // A snapshot that somebody reads stays, and who reads it is no part of the specification.
            (Asked::Delete(..) | Asked::Rollback(..), Err(Error::Busy(_))) => Vec::new(),
            (Asked::Other, Ok(Reply::Done) | Err(Error::Stale(_))) => Vec::new(),
            (_, Err(error)) => return Err(format!("an operation failed: {error}")),
            (_, Ok(reply)) => return Err(format!("a question was answered with {reply:?}")),
        })
    }
}

impl Client {
    /// Whether what is in progress touches what `what` does, and one of them writes.
    fn meets(&self, what: &Asked) -> bool {
        let Some((_, _, mine)) = &self.waiting else { return false };
        let cells = |asked: &Asked| match asked {
            Asked::Write { call: Call::Write { volume, cells, .. } } => {
                let first = cells.first().map_or(0, |&(cell, _)| cell);
                Some((*volume, first, first + cells.len() as u32, true))
            }
            Asked::Read { node: Node::Head(volume), spot, .. } => {
                Some((*volume, spot.first, spot.first + spot.sectors as u32, false))
            }
            _ => None,
        };
        match (cells(mine), cells(what)) {
            (Some((one, from, to, writes)), Some((other, start, end, also))) => {
                one == other && from < end && start < to && (writes || also)
            }
            _ => false,
        }
    }
}
