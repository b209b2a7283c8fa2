//! A stand-in for the engine in the tests of this crate: volumes in memory, no format, no
//! recovery. What it keeps is in [`Store`], so a pool can be opened again on it. Answers to reads
//! and writes come late and in reverse order, as they may.

use crate::reactor::Machine;
use cow_engine::{
    Action, DiffQuery, DiffSide, Error, Event, ExportId, Extent, IoId, NewVolume, NodeInfo, Op,
    OpId, PoolInfo, Reply, SetSize, SnapTarget,
};
use cow_format::entry::NodeKind;
use cow_format::{BLOCK_SIZE, Buf, BufSlice, NodeId, Phys, VolumeId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type Blocks = Arc<BTreeMap<u64, [u8; BLOCK_SIZE]>>;
type Result<T> = std::result::Result<T, Error>;

/// The content of a pool. The empty name has the properties of the pool itself.
pub(crate) type Store = Arc<Mutex<BTreeMap<String, Node>>>;

#[derive(Clone, Default)]
pub(crate) struct Node {
    id: u64,
    size: u64,
    blocks: Blocks,
    props: Vec<(String, String)>,
    holds: Vec<String>,
    kind: NodeKind,
}

pub(crate) struct Fake {
    store: Store,
    exports: HashMap<ExportId, (String, bool)>,
    next: u64,
    late: Vec<Action>,
    checkpoint: Option<(OpId, u32)>,
    read_only: bool,
}

impl Fake {
    pub(crate) fn new(store: Store) -> Self {
        let next = store.lock().values().map(|node| node.id).max().unwrap_or(0) + 1;
        let (exports, late) = (HashMap::new(), Vec::new());
        Self { store, exports, next, late, checkpoint: None, read_only: false }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A write, a flush and a second look at what was written, one after the other.
    fn advance_checkpoint(&mut self, buf: Option<Buf>, actions: &mut Vec<Action>) {
        let Some((op, step)) = self.checkpoint.take() else { return };
        let (id, at) = (IoId(u64::from(step)), Phys(40_000));
        let mut pattern = Buf::zeroed(2);
        pattern.fill(0x5a);
        self.checkpoint = Some((op, step + 1));
        actions.push(match step {
            0 => Action::Write { id, at, bufs: vec![BufSlice::whole(pattern)], lazy: false },
            1 => Action::Flush { id },
            2 => Action::Read { id, at, buf: Buf::zeroed(2), bypass_cache: true },
            _ => {
                self.checkpoint = None;
                assert!(*buf.unwrap() == *pattern, "what was written comes back");
                Action::Reply { id: op, result: Ok(Reply::Done) }
            }
        });
    }

    fn node(&self, name: &str) -> Result<Node> {
        let found = self.store.lock().get(name).cloned();
        found.ok_or_else(|| Error::NotFound(name.into()))
    }

    fn side(&self, side: &DiffSide) -> Result<Node> {
        match side {
            DiffSide::Name(name) => self.node(name),
            DiffSide::Export(export) => self.node(&self.export(*export, false)?),
        }
    }

    fn add(&mut self, name: &str, mut node: Node) -> Result<NodeId> {
        if self.read_only {
            return Err(Error::ReadOnly("the pool".into()));
        }
        if self.store.lock().contains_key(name) {
            return Err(Error::Exists(name.into()));
        }
        node.id = self.next();
        let id = NodeId(node.id);
        self.store.lock().insert(name.into(), node);
        Ok(id)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Node)) -> Result<Reply> {
        let mut store = self.store.lock();
        change(store.get_mut(name).ok_or_else(|| Error::NotFound(name.into()))?);
        Ok(Reply::Done)
    }

    fn export(&self, export: ExportId, write: bool) -> Result<String> {
        match self.exports.get(&export) {
            None => Err(Error::Stale("it".into())),
            Some((name, false)) if write => Err(Error::ReadOnly(name.clone())),
            Some((name, _)) => Ok(name.clone()),
        }
    }

    fn range(&self, export: ExportId, write: bool, offset: u64, len: u64) -> Result<Node> {
        let node = self.node(&self.export(export, write)?)?;
        if offset + len > node.size {
            return Err(Error::Invalid("range".into()));
        }
        Ok(node)
    }

    fn io(&mut self, op: Op) -> Result<Reply> {
        match op {
            Op::Read { export, offset, len } => {
                let node = self.range(export, false, offset, len)?;
                let (block, size) = (offset / BLOCK_SIZE as u64, BLOCK_SIZE as u64);
                let count = (offset + len).div_ceil(size) - block;
                let mut buf = Buf::zeroed(count as usize);
                for (&at, bytes) in node.blocks.range(block..block + count) {
                    *buf.block_mut((at - block) as usize) = *bytes;
                }
                Ok(Reply::Data { buf, skip: (offset - block * size) as usize })
            }
            Op::Write { export, offset, len, data, .. } => {
                self.range(export, true, offset, len)?;
                self.put(export, offset, &data[..len as usize])
            }
            Op::Discard { export, offset, len, .. }
            | Op::WriteZeroes { export, offset, len, .. } => {
                self.range(export, true, offset, len)?;
                self.put(export, offset, &vec![0; len as usize])
            }
            Op::Extents { export, offset, len } => {
                let node = self.range(export, false, offset, len)?;
                let size = BLOCK_SIZE as u64;
                let mut extents = Vec::new();
                let mut at = offset;
                while at < offset + len && extents.len() < 5 {
                    let end = ((at / size + 1) * size).min(offset + len);
                    let mapped = node.blocks.contains_key(&(at / size));
                    extents.push(Extent { len: end - at, mapped });
                    at = end;
                }
                Ok(Reply::Extents(extents))
            }
            _ => Ok(Reply::Done),
        }
    }

    fn put(&mut self, export: ExportId, offset: u64, bytes: &[u8]) -> Result<Reply> {
        let name = self.export(export, true)?;
        self.change(&name, |node| {
            let blocks = Arc::make_mut(&mut node.blocks);
            let mut done = 0;
            while done < bytes.len() {
                let at = offset as usize + done;
                let inside = at % BLOCK_SIZE;
                let count = (BLOCK_SIZE - inside).min(bytes.len() - done);
                let block = blocks.entry((at / BLOCK_SIZE) as u64).or_insert([0; BLOCK_SIZE]);
                block[inside..inside + count].copy_from_slice(&bytes[done..done + count]);
                done += count;
            }
            blocks.retain(|_, block| block.iter().any(|&byte| byte != 0));
        })
    }

    fn rollback(&mut self, target: &SnapTarget) -> Result<Option<(String, NodeId)>> {
        let SnapTarget { volume, snapshot } = target;
        let source = self.node(&format!("{volume}@{snapshot}"))?;
        if self.exports.values().any(|(name, write)| name == volume && *write) {
            return Err(Error::Busy(format!("{volume} is open for writing")));
        }
        let head = self.node(volume)?;
        let kept = format!("{volume}@undo.{}", self.next());
        let id = self.add(&kept, Node { kind: NodeKind::Undo, ..head })?;
        self.change(volume, |node| (node.blocks, node.size) = (source.blocks, source.size))?;
        Ok(Some((kept, id)))
    }

    fn delete(&mut self, names: &[String], recursive: bool, dry_run: bool) -> Result<Reply> {
        let mut doomed = names.to_vec();
        for name in names {
            let node = self.node(name)?;
            if !node.holds.is_empty() || self.exports.values().any(|(open, _)| open == name) {
                return Err(Error::Busy(format!("{name} is held or open")));
            }
            let prefix = format!("{name}@");
            let store = self.store.lock();
            let snapshots = store.keys().filter(|key| key.starts_with(&prefix)).cloned();
            let before = doomed.len();
            doomed.extend(snapshots);
            if doomed.len() > before && !recursive {
                return Err(Error::Busy(format!("{name} has snapshots")));
            }
        }
        if !dry_run {
            self.store.lock().retain(|name, _| !doomed.contains(name));
        }
        let size = SetSize { names: doomed, exact: true, ..SetSize::default() };
        Ok(Reply::Deleted(size))
    }

    fn list(&self) -> Vec<NodeInfo> {
        let store = self.store.lock();
        let nodes = store.iter().filter(|(name, _)| !name.is_empty());
        let info = |(name, node): (&String, &Node)| {
            let open = |write: bool| {
                self.exports.values().filter(|(n, w)| n == name && *w == write).count() as u32
            };
            let data = Some((node.blocks.len() * BLOCK_SIZE) as u64);
            NodeInfo {
                name: name.clone(),
                node: NodeId(node.id),
                volume: VolumeId(1),
                kind: node.kind,
                live: true,
                reclaimed_percent: None,
                size_bytes: node.size,
                referenced_bytes: data,
                unique_bytes: data,
                unique_bytes_max: data,
                unique_metadata_bytes: Some(0),
                exact: true,
                created_ns: 1,
                expiry_ns: 0,
                origin: None,
                parent: None,
                consistency: Default::default(),
                freeze_ms: 0,
                group: 0,
                holds: node.holds.len() as u32,
                props: node.props.clone(),
                charged_bytes: 0,
                rollback_gen: 0,
                open_readers: open(false) + open(true),
                open_writers: open(true),
            }
        };
        nodes.map(info).collect()
    }

    fn verb(&mut self, op: Op) -> Result<Reply> {
        match op {
            Op::Open { read_only } => {
                self.read_only = read_only;
                self.store.lock().entry(String::new()).or_default();
                Ok(Reply::Done)
            }
            Op::OpenExport { name, write } => {
                let node = self.node(&name)?;
                let export = ExportId(self.next());
                self.exports.insert(export, (name, write));
                let (size_bytes, node, read_only) = (node.size, NodeId(node.id), !write);
                Ok(Reply::Export { export, size_bytes, node, read_only, rollback_gen: 0 })
            }
            Op::CloseExport { export } => {
                self.exports.remove(&export);
                Ok(Reply::Done)
            }
            Op::CreateVolumes { volumes, .. } => {
                let mut nodes = Vec::new();
                for NewVolume { name, size_bytes: size, props } in volumes {
                    if name == "panic" {
                        panic!("asked to");
                    }
                    nodes.push(self.add(&name, Node { size, props, ..Node::default() })?);
                }
                Ok(Reply::Nodes(nodes))
            }
            Op::Snapshot { targets, options } => {
                let mut nodes = Vec::new();
                for SnapTarget { volume, snapshot } in targets {
                    let (kind, props) = (options.kind, options.props.clone());
                    let node = Node { kind, props, holds: Vec::new(), ..self.node(&volume)? };
                    nodes.push(self.add(&format!("{volume}@{snapshot}"), node)?);
                }
                Ok(Reply::Nodes(nodes))
            }
            Op::Clone { source: SnapTarget { volume, snapshot }, name, props } => {
                let source = self.node(&format!("{volume}@{snapshot}"))?;
                let node = Node { kind: NodeKind::Head, props, ..source };
                self.add(&name, node).map(Reply::Node)
            }
            Op::Rollback { targets, .. } => {
                let kept = targets.iter().map(|target| self.rollback(target));
                kept.collect::<Result<_>>().map(Reply::RolledBack)
            }
            Op::Undo { volume, .. } => {
                let prefix = format!("{volume}@undo.");
                let store = self.store.lock().clone();
                let undo = store.iter().filter(|(name, _)| name.starts_with(&prefix));
                let newest = undo.max_by_key(|(_, node)| node.id).map(|(name, _)| name.clone());
                let name = newest.ok_or(Error::NotFound(prefix))?;
                let snapshot = name[volume.len() + 1..].to_owned();
                let kept = self.rollback(&SnapTarget { volume, snapshot })?;
                Ok(Reply::RolledBack(vec![kept]))
            }
            Op::Delete { names, recursive, dry_run } => self.delete(&names, recursive, dry_run),
            Op::Rename { name, to } => {
                let node = self.node(&name)?;
                let to = match name.split_once('@') {
                    Some((volume, _)) => format!("{volume}@{to}"),
                    None => to,
                };
                self.store.lock().remove(&name);
                for (open, _) in self.exports.values_mut().filter(|(open, _)| *open == name) {
                    open.clone_from(&to);
                }
                self.add(&to, node).map(|_| Reply::Done)
            }
            other => self.small(other),
        }
    }

    fn small(&mut self, op: Op) -> Result<Reply> {
        match op {
            Op::Resize { volume, size_bytes, .. } => {
                self.change(&volume, |node| node.size = size_bytes)
            }
            Op::SetProps { name, changes } => self.change(&name, |node| {
                for (key, value) in changes {
                    node.props.retain(|(k, _)| *k != key);
                    node.props.extend(value.map(|value| (key, value)));
                }
            }),
            Op::GetProps { name } => {
                let Node { props, holds, .. } = self.node(&name)?;
                Ok(Reply::Props { props, holds })
            }
            Op::Hold { name, tag, set } => self.change(&name, |node| {
                node.holds.retain(|held| *held != tag);
                node.holds.extend(set.then_some(tag));
            }),
            Op::List { .. } => Ok(Reply::List(self.list())),
            Op::ListMarked { prop, .. } => {
                let mut nodes = self.list();
                nodes.retain(|node| node.live && node.props.iter().any(|(key, _)| *key == prop));
                Ok(Reply::List(nodes))
            }
            Op::Describe { names, .. } => {
                let mut nodes = self.list();
                nodes.retain(|node| names.contains(&node.name));
                Ok(Reply::List(nodes))
            }
            Op::FreeUp { .. } => Ok(Reply::SetSize(SetSize { exact: true, ..SetSize::default() })),
            Op::SetSize { names, .. } => {
                Ok(Reply::SetSize(SetSize { names, exact: true, ..SetSize::default() }))
            }
            Op::Info { .. } => {
                let info = PoolInfo { read_only: self.read_only, ..PoolInfo::default() };
                Ok(Reply::Info(Box::new(info)))
            }
            Op::Diff(DiffQuery { from, to, offset, limit, .. }) => {
                let (from, to) = (self.side(&from)?.blocks, self.side(&to)?.blocks);
                let size = BLOCK_SIZE as u64;
                let keys = from.keys().chain(to.keys());
                let mut changed: Vec<_> = keys
                    .copied()
                    .filter(|k| from.get(k) != to.get(k) && k * size >= offset)
                    .collect();
                changed.sort_unstable();
                changed.dedup();
                let next = changed.get(limit).map(|k| k * size);
                let extents = changed.iter().take(limit).map(|k| (k * size, size)).collect();
                Ok(Reply::Diff { extents, next })
            }
            _ => Ok(Reply::Done),
        }
    }
}

impl Machine for Fake {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Op { id, op: Op::Checkpoint } => {
                self.checkpoint = Some((id, 0));
                self.advance_checkpoint(None, actions);
            }
            Event::Op {
                id,
                op: op @ (Op::Read { .. } | Op::Write { .. } | Op::WriteZeroes { .. }),
            } => {
                let result = self.io(op);
                self.late.push(Action::Reply { id, result });
            }
            Event::Op { id, op: op @ (Op::Discard { .. } | Op::Extents { .. }) } => {
                let result = self.io(op);
                actions.push(Action::Reply { id, result });
            }
            Event::Op { id, op } => {
                let result = self.verb(op);
                actions.push(Action::Reply { id, result });
            }
            Event::IoDone { result, buf, .. } => {
                assert_eq!(result, Ok(()));
                self.advance_checkpoint(buf, actions);
            }
            Event::Resume => {}
            Event::Tick { .. } => actions.extend(self.late.drain(..).rev()),
        }
    }

    fn wants_tick(&self) -> bool {
        !self.late.is_empty()
    }
}
