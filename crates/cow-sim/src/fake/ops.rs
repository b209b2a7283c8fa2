//! What clients may ask the fake.

use super::log::Record;
use super::{Fake, HALF_A_GROUP, LEAKS_INTO_SNAPSHOT, LOSES_A_WRITE, STALE_READ};
use crate::cmd::{Cmd, SnapHow, Target};
use crate::model::{Kept, Refusal};
use crate::value::blocks_of;
use cow_engine::{
    Action, Error, ExportId, Extent, NewVolume, NodeInfo, Op, OpId, PoolInfo, Reply, SetSize,
    SnapTarget,
};
use cow_format::entry::{Consistency, NodeKind};
use cow_format::{BLOCK_SIZE, Buf, NodeId, VolumeId};

const BLOCK: u64 = BLOCK_SIZE as u64;

type Answer = Result<Reply, Error>;

fn pairs(targets: Vec<SnapTarget>) -> Vec<Target> {
    targets.into_iter().map(|target| (target.volume, target.snapshot)).collect()
}

fn refused(refusal: Refusal) -> Error {
    let text = || "the fake refuses".to_owned();
    match refusal {
        Refusal::NotFound => Error::NotFound(text()),
        Refusal::Exists => Error::Exists(text()),
        Refusal::Conflict | Refusal::Limit | Refusal::WouldLose => Error::Busy(text()),
    }
}

impl<const BUG: u8> Fake<BUG> {
    pub(super) fn take(&mut self, id: OpId, op: Op, actions: &mut Vec<Action>) {
        let answer = match op {
            Op::Open { .. } => return self.recover(id, actions),
            Op::Write { export, offset, len, data, fua } => {
                return self.write(id, export, offset, &data[..len as usize], fua, actions);
            }
            Op::Discard { export, offset, len, fua } => {
                let volume = String::new();
                let cmd = Cmd::Zero { volume, offset, len, discard: true, fua };
                return self.zero(id, export, cmd, actions);
            }
            Op::WriteZeroes { export, offset, len, fua } => {
                let volume = String::new();
                let cmd = Cmd::Zero { volume, offset, len, discard: false, fua };
                return self.zero(id, export, cmd, actions);
            }
            Op::Flush { .. } | Op::Checkpoint | Op::WaitReclaim | Op::Close => {
                return self.when_durable(id, Reply::Done, actions);
            }
            Op::OpenExport { name, write } => self.open_export(name, write),
            Op::CloseExport { export } => {
                self.exports.remove(&export.0);
                Ok(Reply::Done)
            }
            Op::Read { export, offset, len } => self.read_bytes(export, offset, len),
            Op::Extents { export, offset, len } => self.extents(export, offset, len),
            Op::List { .. } => Ok(self.list()),
            Op::SetSize { names, .. } => {
                let bytes = |state: &crate::model::State| state.distinct_bytes().unwrap_or(0);
                let freed = bytes(&self.state) - bytes(&self.state.without(&names));
                let (data_bytes, data_bytes_max) = (freed, freed);
                let size = SetSize {
                    names,
                    data_bytes,
                    data_bytes_max,
                    exact: true,
                    ..SetSize::default()
                };
                Ok(Reply::SetSize(size))
            }
            Op::Info { .. } => {
                let data_bytes = self.state.distinct_bytes().unwrap_or_default();
                Ok(Reply::Info(Box::new(PoolInfo { data_bytes, ..PoolInfo::default() })))
            }
            Op::Scrub { .. } => Err(Error::Unsupported("scrub".to_owned())),
            Op::Root { .. } => Err(Error::Unsupported("roots".to_owned())),
            verb => return self.verb(id, verb, actions),
        };
        actions.push(Action::Reply { id, result: answer });
    }

    fn name_of(&self, export: ExportId) -> Result<String, Error> {
        let known = self.exports.get(&export.0).map(|(name, _)| name.clone());
        known.ok_or_else(|| Error::Stale("the export".to_owned()))
    }

    fn write(
        &mut self,
        id: OpId,
        export: ExportId,
        offset: u64,
        bytes: &[u8],
        fua: bool,
        actions: &mut Vec<Action>,
    ) {
        let name = match self.name_of(export) {
            Ok(name) => name,
            Err(error) => return actions.push(Action::Reply { id, result: Err(error) }),
        };
        if BUG == STALE_READ {
            self.previous = self.state.clone();
        }
        self.writes += 1;
        let Some(volume) = self.state.volumes.get_mut(&name) else { return };
        volume.head.content.write_bytes(offset, bytes);
        if BUG == LEAKS_INTO_SNAPSHOT
            && let Some(mut last) = volume.snaps.last_entry()
        {
            last.get_mut().content.write_bytes(offset, bytes);
        }
        if BUG == LOSES_A_WRITE && self.writes.is_multiple_of(5) {
            actions.push(Action::Reply { id, result: Ok(Reply::Done) });
            return;
        }
        let record = Record::Bytes { volume: name, offset, len: bytes.len() as u64 };
        self.append(record, bytes.to_vec(), (!fua).then_some(id), actions);
        if fua {
            self.when_durable(id, Reply::Done, actions);
        }
    }

    fn zero(&mut self, id: OpId, export: ExportId, mut cmd: Cmd, actions: &mut Vec<Action>) {
        let fua = cmd.durable_when_acknowledged();
        match (self.name_of(export), &mut cmd) {
            (Ok(name), Cmd::Zero { volume, .. }) => *volume = name,
            (Err(error), _) => return actions.push(Action::Reply { id, result: Err(error) }),
            _ => {}
        }
        let kept = Kept::Guess(0);
        debug_assert!(self.state.apply(&cmd, &kept).is_ok());
        self.append(Record::Does(cmd, kept), Vec::new(), (!fua).then_some(id), actions);
        if fua {
            self.when_durable(id, Reply::Done, actions);
        }
    }

    fn open_export(&mut self, name: String, write: bool) -> Answer {
        let node = self.state.node(&name).ok_or_else(|| Error::NotFound(name.clone()))?;
        let size_bytes = node.size;
        self.next_export += 1;
        self.exports.insert(self.next_export, (name, write));
        let export = ExportId(self.next_export);
        let (node, read_only, rollback_gen) = (NodeId(1), !write, 0);
        Ok(Reply::Export { export, size_bytes, node, read_only, rollback_gen })
    }

    fn read_bytes(&mut self, export: ExportId, offset: u64, len: u64) -> Answer {
        let name = self.name_of(export)?;
        let by_client = self.exports.get(&export.0).is_some_and(|(_, write)| *write);
        let stale = BUG == STALE_READ && by_client && self.writes % 4 == 3;
        let state = if stale { &self.previous } else { &self.state };
        let node = state.node(&name).or(self.state.node(&name));
        let node = node.ok_or_else(|| Error::NotFound(name.clone()))?;
        let blocks = blocks_of(offset, len);
        let mut buf = Buf::zeroed((blocks.end - blocks.start) as usize);
        for (index, lba) in blocks.enumerate() {
            buf.block_mut(index).copy_from_slice(&node.content.get(lba).page());
        }
        Ok(Reply::Data { buf, skip: (offset % BLOCK) as usize })
    }

    fn extents(&self, export: ExportId, offset: u64, len: u64) -> Answer {
        let name = self.name_of(export)?;
        let node = self.state.node(&name).ok_or_else(|| Error::NotFound(name.clone()))?;
        let (mut at, end) = (offset, offset + len);
        let mut extents = Vec::new();
        for (lba, _) in node.content.iter() {
            let (from, to) = ((lba * BLOCK).max(at), ((lba + 1) * BLOCK).min(end));
            if from >= to {
                continue;
            }
            if from > at {
                extents.push(Extent { len: from - at, mapped: false });
            }
            extents.push(Extent { len: to - from, mapped: true });
            at = to;
        }
        if at < end {
            extents.push(Extent { len: end - at, mapped: false });
        }
        Ok(Reply::Extents(extents))
    }

    fn list(&self) -> Reply {
        let mut nodes = Vec::new();
        for (name, volume) in &self.state.volumes {
            nodes.push(info(name.clone(), NodeKind::Head, &volume.head));
            for (snap, node) in &volume.snaps {
                let age = volume.taken.iter().position(|other| other == snap).unwrap_or_default();
                let node = info(format!("{name}@{snap}"), NodeKind::User, node);
                nodes.push(NodeInfo { node: NodeId(age as u64 + 1), ..node });
            }
            for (snap, node) in &volume.undos {
                nodes.push(info(format!("{name}@{snap}"), NodeKind::Undo, node));
            }
        }
        Reply::List(nodes)
    }

    /// Anything that changes the tree.
    fn verb(&mut self, id: OpId, op: Op, actions: &mut Vec<Action>) {
        let Some(cmd) = command(op) else {
            let result = Err(Error::Unsupported("not in the fake".to_owned()));
            return actions.push(Action::Reply { id, result });
        };
        let kept = Kept::Guess(0);
        if let Err(refusal) = self.state.apply(&cmd, &kept) {
            return actions.push(Action::Reply { id, result: Err(refused(refusal)) });
        }
        let parts = match &cmd {
            Cmd::Snapshot { targets, tag, how } if BUG == HALF_A_GROUP => {
                let one = |target: &Target| {
                    let targets = vec![target.clone()];
                    Cmd::Snapshot { targets, tag: *tag, how: *how }
                };
                targets.iter().map(one).collect()
            }
            _ => vec![cmd.clone()],
        };
        for part in parts {
            self.append(Record::Does(part, kept.clone()), Vec::new(), None, actions);
        }
        let reply = self.follow(&cmd);
        self.when_durable(id, reply, actions);
    }

    /// Keeps the exports in step; makes the reply.
    fn follow(&mut self, cmd: &Cmd) -> Reply {
        let undone = |volume: &String, fake: &mut Self| {
            fake.exports.retain(|_, (name, _)| name != volume);
            let newest = fake.state.volumes.get(volume).and_then(|volume| volume.undos.last());
            newest.map(|(name, _)| (name.clone(), NodeId(1)))
        };
        match cmd {
            Cmd::Rollback { targets, discard_current, .. } => {
                let kept = targets.iter().map(|(volume, _)| undone(volume, self));
                Reply::RolledBack(kept.map(|kept| kept.filter(|_| !discard_current)).collect())
            }
            Cmd::Undo { volume, .. } => Reply::RolledBack(vec![undone(volume, self)]),
            Cmd::Rename { name, to } => {
                for (export, _) in self.exports.values_mut() {
                    if export == name {
                        *export = match name.split_once('@') {
                            Some((volume, _)) => format!("{volume}@{to}"),
                            None => to.clone(),
                        };
                    } else if let Some(rest) = export.strip_prefix(name)
                        && rest.starts_with('@')
                    {
                        *export = format!("{to}{rest}");
                    }
                }
                Reply::Deleted(SetSize::default())
            }
            // Whatever is not `Done` tells the broken brothers that this was a verb.
            _ => Reply::Node(NodeId(1)),
        }
    }
}

fn command(op: Op) -> Option<Cmd> {
    Some(match op {
        Op::CreateVolumes { volumes, .. } => {
            let NewVolume { name, size_bytes, .. } = volumes.into_iter().next()?;
            Cmd::Create { name, size: size_bytes }
        }
        Op::Snapshot { targets, options } => {
            let tag = options.props.first()?.1.parse().ok()?;
            Cmd::Snapshot { targets: pairs(targets), tag, how: SnapHow::default() }
        }
        Op::Rollback { targets, discard_current, force, .. } => {
            Cmd::Rollback { targets: pairs(targets), discard_current, force }
        }
        Op::Undo { volume, force } => Cmd::Undo { volume, force },
        Op::Clone { source, name, .. } => {
            Cmd::Clone { source: (source.volume, source.snapshot), name }
        }
        Op::Delete { names, recursive, .. } => Cmd::Delete { names, recursive },
        Op::Rename { name, to } => Cmd::Rename { name, to },
        Op::Resize { volume, size_bytes, shrink } => {
            Cmd::Resize { volume, size: size_bytes, shrink }
        }
        Op::SetProps { name, changes } => {
            let (key, value) = changes.into_iter().next()?;
            Cmd::SetProp { name, key, value }
        }
        _ => return None,
    })
}

fn info(name: String, kind: NodeKind, node: &crate::model::Snap) -> NodeInfo {
    NodeInfo {
        name,
        node: NodeId(1),
        volume: VolumeId(1),
        kind,
        live: true,
        reclaimed_percent: None,
        size_bytes: node.size,
        referenced_bytes: None,
        unique_bytes: None,
        unique_bytes_max: None,
        unique_metadata_bytes: None,
        exact: false,
        created_ns: 0,
        expiry_ns: 0,
        origin: None,
        parent: None,
        consistency: Consistency::Crash,
        freeze_ms: 0,
        group: 0,
        holds: 0,
        props: node.props.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        charged_bytes: 0,
        rollback_gen: 0,
        open_readers: 0,
        open_writers: 0,
    }
}
