//! Records of the redo journal: what changed, logically. docs/format.md, "Records".
//!
//! A record carries all that its application needs (generation, ids, time, properties included),
//! so that applying it at runtime and in a replay is the same function of the state.
//!
//! Records form *groups* that are applied wholly or not at all. A frame holds whole groups; a
//! group that is larger than a frame runs over consecutive frames of its own, all but the last
//! flagged [`crate::frame::FLAG_MORE`].

use crate::entry::{Consistency, MAX_NAME, NodeKind};
use crate::wire::{Malformed, Reader, Writer};
use crate::{Gen, Lba, NodeId, Phys, VolumeId};

/// A change of one property: `None` removes it.
pub type PropChange = (String, Option<String>);

/// A snapshot of one volume in a `SnapCreate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapMember {
    /// The volume; its head's node becomes the snapshot.
    pub volume: VolumeId,
    /// The node of the new head.
    pub new_head: NodeId,
    /// Name of the snapshot.
    pub name: String,
}

/// What becomes of the head that a rollback replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It becomes a snapshot of kind `undo` with this name and expiry.
    Kept {
        /// Name, `undo.N`.
        name: String,
        /// Expiry, nanoseconds since 1970; 0 for never.
        expiry_ns: u64,
    },
    /// It is deleted.
    Discarded,
}

/// A rollback of one volume in a `Rollback`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackMember {
    /// The volume.
    pub volume: VolumeId,
    /// The node of the new head.
    pub new_head: NodeId,
    /// The snapshot that the new head begins as.
    pub target: NodeId,
    /// What becomes of the old head.
    pub replaced: Replaced,
    /// The volume's rollback generation after this.
    pub rollback_gen: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// `crcs.len()` blocks from `lba` on lie at `phys` on.
    MapSet {
        /// The volume: its head at this point of the journal.
        volume: VolumeId,
        /// First logical block.
        lba: Lba,
        /// First physical block.
        phys: Phys,
        /// Checksum of each block; 1 to 256.
        crcs: Vec<u32>,
    },
    /// `blocks` blocks from `lba` on read as zeros.
    MapClear {
        /// The volume.
        volume: VolumeId,
        /// First logical block.
        lba: Lba,
        /// How many.
        blocks: u64,
    },
    /// Data whose write failed was written elsewhere; content does not change.
    Move {
        /// The snapshot-tree node whose layer holds the entry.
        node: NodeId,
        /// First logical block.
        lba: Lba,
        /// Where it was.
        old: Phys,
        /// Where it is.
        new: Phys,
        /// Checksum of each block; 1 to 256.
        crcs: Vec<u32>,
    },
    /// A new volume.
    VolCreate {
        /// Generation of its head.
        label_gen: Gen,
        /// Its id.
        volume: VolumeId,
        /// Node of its head.
        node: NodeId,
        /// Size in bytes.
        size_bytes: u64,
        /// Wall-clock time, nanoseconds since 1970.
        time_ns: u64,
        /// Its name.
        name: String,
        /// Its properties.
        props: Vec<PropChange>,
    },
    /// Snapshots of one or several volumes at one instant.
    SnapCreate {
        /// Generation of all new heads.
        label_gen: Gen,
        /// Wall-clock time, nanoseconds since 1970.
        time_ns: u64,
        /// Group id; 0 for a single snapshot.
        group: u64,
        /// User or Auto.
        kind: NodeKind,
        /// How it was taken.
        consistency: Consistency,
        /// How long the guest had been frozen, in milliseconds; 0 if it was not.
        freeze_ms: u32,
        /// When it expires, nanoseconds since 1970; 0 for never.
        expiry_ns: u64,
        /// The volumes.
        members: Vec<SnapMember>,
        /// Properties of each snapshot.
        props: Vec<PropChange>,
    },
    /// One or several volumes go back to snapshots.
    Rollback {
        /// Generation of all new heads.
        label_gen: Gen,
        /// Wall-clock time, nanoseconds since 1970.
        time_ns: u64,
        /// The volumes.
        members: Vec<RollbackMember>,
    },
    /// A new volume that begins as a snapshot.
    Clone {
        /// Generation of its head.
        label_gen: Gen,
        /// Its id.
        volume: VolumeId,
        /// Node of its head.
        node: NodeId,
        /// The snapshot.
        parent: NodeId,
        /// Wall-clock time, nanoseconds since 1970.
        time_ns: u64,
        /// Its name.
        name: String,
        /// Its properties.
        props: Vec<PropChange>,
    },
    /// Another size. What lies past a smaller size is cleared by `MapClear` in the same group.
    VolResize {
        /// The volume.
        volume: VolumeId,
        /// Size in bytes.
        size_bytes: u64,
    },
    /// Nodes are deleted (heads too: then their volume is gone).
    NodeDelete {
        /// Which.
        nodes: Vec<NodeId>,
    },
    /// A snapshot or volume gets another name.
    Rename {
        /// Its node (of a volume: the head).
        node: NodeId,
        /// The name.
        name: String,
    },
    /// Properties of a node change; node 0 is the pool.
    SetProps {
        /// Which.
        node: NodeId,
        /// The changes.
        props: Vec<PropChange>,
    },
    /// A hold is set or released.
    Hold {
        /// Which node.
        node: NodeId,
        /// Set, or released.
        set: bool,
        /// Its tag.
        tag: String,
    },
    /// The pool is larger.
    PoolGrow {
        /// Its size in blocks.
        blocks: u64,
    },
    /// Nothing; its frame carries a `durable` position.
    Marker,
}

const MAP_SET: u8 = 1;
const MAP_CLEAR: u8 = 2;
const MOVE: u8 = 3;
const VOL_CREATE: u8 = 4;
const SNAP_CREATE: u8 = 5;
const ROLLBACK: u8 = 6;
const CLONE: u8 = 7;
const VOL_RESIZE: u8 = 8;
const NODE_DELETE: u8 = 9;
const RENAME: u8 = 10;
const SET_PROPS: u8 = 11;
const HOLD: u8 = 12;
const POOL_GROW: u8 = 13;
const MARKER: u8 = 14;

impl Record {
    /// Appends the record to `w`.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::MapSet { volume, lba, phys, crcs } => {
                encode_run(w, MAP_SET, crcs.len());
                w.u32(volume.0 as u32);
                w.u48(lba.0);
                w.u48(phys.0);
                w.u16(0);
                crcs.iter().for_each(|&crc| w.u32(crc));
            }
            Self::MapClear { volume, lba, blocks } => {
                w.u8(MAP_CLEAR);
                w.u64(volume.0);
                w.u48(lba.0);
                w.u64(*blocks);
            }
            Self::Move { node, lba, old, new, crcs } => {
                encode_run(w, MOVE, crcs.len());
                w.u64(node.0);
                w.u48(lba.0);
                w.u48(old.0);
                w.u48(new.0);
                crcs.iter().for_each(|&crc| w.u32(crc));
            }
            Self::VolCreate { label_gen, volume, node, size_bytes, time_ns, name, props } => {
                w.u8(VOL_CREATE);
                w.u32(label_gen.0);
                [volume.0, node.0, *size_bytes, *time_ns].iter().for_each(|&v| w.u64(v));
                w.string(name);
                encode_props(w, props);
            }
            Self::Clone { label_gen, volume, node, parent, time_ns, name, props } => {
                w.u8(CLONE);
                w.u32(label_gen.0);
                [volume.0, node.0, parent.0, *time_ns].iter().for_each(|&v| w.u64(v));
                w.string(name);
                encode_props(w, props);
            }
            Self::SnapCreate { .. } => self.encode_snap_create(w),
            Self::Rollback { label_gen, time_ns, members } => {
                w.u8(ROLLBACK);
                w.u32(label_gen.0);
                w.u64(*time_ns);
                w.u16(members.len() as u16);
                members.iter().for_each(|member| encode_rollback_member(w, member));
            }
            Self::VolResize { volume, size_bytes } => {
                w.u8(VOL_RESIZE);
                w.u64(volume.0);
                w.u64(*size_bytes);
            }
            Self::NodeDelete { nodes } => {
                w.u8(NODE_DELETE);
                w.u32(nodes.len() as u32);
                nodes.iter().for_each(|node| w.u64(node.0));
            }
            Self::Rename { node, name } => {
                w.u8(RENAME);
                w.u64(node.0);
                w.string(name);
            }
            Self::SetProps { node, props } => {
                w.u8(SET_PROPS);
                w.u64(node.0);
                encode_props(w, props);
            }
            Self::Hold { node, set, tag } => {
                w.u8(HOLD);
                w.u64(node.0);
                w.u8(u8::from(*set));
                w.string(tag);
            }
            Self::PoolGrow { blocks } => {
                w.u8(POOL_GROW);
                w.u64(*blocks);
            }
            Self::Marker => w.u8(MARKER),
        }
    }

    fn encode_snap_create(&self, w: &mut Writer) {
        let Self::SnapCreate {
            label_gen,
            time_ns,
            group,
            kind,
            consistency,
            freeze_ms,
            expiry_ns,
            members,
            props,
        } = self
        else {
            return;
        };
        w.u8(SNAP_CREATE);
        w.u32(label_gen.0);
        w.u64(*time_ns);
        w.u64(*group);
        w.u8(*kind as u8);
        w.u8(*consistency as u8);
        w.u32(*freeze_ms);
        w.u64(*expiry_ns);
        w.u16(members.len() as u16);
        for member in members {
            w.u64(member.volume.0);
            w.u64(member.new_head.0);
            w.string(&member.name);
        }
        encode_props(w, props);
    }

    /// Reads the next record.
    ///
    /// # Errors
    /// When the bytes are no record.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tag = r.u8()?;
        Ok(match tag {
            MAP_SET => {
                let count = usize::from(r.u8()?) + 1;
                let volume = VolumeId(u64::from(r.u32()?));
                let (lba, phys) = (Lba(r.u48()?), Phys(r.u48()?));
                r.u16()?;
                Self::MapSet { volume, lba, phys, crcs: decode_crcs(r, count)? }
            }
            MAP_CLEAR => {
                Self::MapClear { volume: VolumeId(r.u64()?), lba: Lba(r.u48()?), blocks: r.u64()? }
            }
            MOVE => {
                let count = usize::from(r.u8()?) + 1;
                let node = NodeId(r.u64()?);
                let (lba, old, new) = (Lba(r.u48()?), Phys(r.u48()?), Phys(r.u48()?));
                Self::Move { node, lba, old, new, crcs: decode_crcs(r, count)? }
            }
            VOL_CREATE => Self::VolCreate {
                label_gen: Gen(r.u32()?),
                volume: VolumeId(r.u64()?),
                node: NodeId(r.u64()?),
                size_bytes: r.u64()?,
                time_ns: r.u64()?,
                name: decode_name(r)?,
                props: decode_props(r)?,
            },
            SNAP_CREATE => decode_snap_create(r)?,
            ROLLBACK => {
                let (label_gen, time_ns) = (Gen(r.u32()?), r.u64()?);
                let count = r.u16()?;
                let members =
                    (0..count).map(|_| decode_rollback_member(r)).collect::<Result<_, _>>()?;
                Self::Rollback { label_gen, time_ns, members }
            }
            CLONE => Self::Clone {
                label_gen: Gen(r.u32()?),
                volume: VolumeId(r.u64()?),
                node: NodeId(r.u64()?),
                parent: NodeId(r.u64()?),
                time_ns: r.u64()?,
                name: decode_name(r)?,
                props: decode_props(r)?,
            },
            VOL_RESIZE => Self::VolResize { volume: VolumeId(r.u64()?), size_bytes: r.u64()? },
            NODE_DELETE => {
                let count = r.u32()?;
                let nodes = (0..count).map(|_| r.u64().map(NodeId)).collect::<Result<_, _>>()?;
                Self::NodeDelete { nodes }
            }
            RENAME => Self::Rename { node: NodeId(r.u64()?), name: decode_name(r)? },
            SET_PROPS => Self::SetProps { node: NodeId(r.u64()?), props: decode_props(r)? },
            HOLD => Self::Hold { node: NodeId(r.u64()?), set: r.u8()? != 0, tag: decode_name(r)? },
            POOL_GROW => Self::PoolGrow { blocks: r.u64()? },
            MARKER => Self::Marker,
            _ => return Err(Malformed),
        })
    }
}

fn encode_run(w: &mut Writer, tag: u8, blocks: usize) {
    assert!((1..=256).contains(&blocks), "a run is 1 to 256 blocks");
    w.u8(tag);
    w.u8((blocks - 1) as u8);
}

fn decode_crcs(r: &mut Reader<'_>, count: usize) -> Result<Vec<u32>, Malformed> {
    (0..count).map(|_| r.u32()).collect()
}

fn decode_name(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let name = r.string()?;
    if name.len() > MAX_NAME { Err(Malformed) } else { Ok(name) }
}

fn encode_props(w: &mut Writer, props: &[PropChange]) {
    w.u16(props.len() as u16);
    for (key, value) in props {
        w.string(key);
        w.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            w.string(value);
        }
    }
}

fn decode_props(r: &mut Reader<'_>) -> Result<Vec<PropChange>, Malformed> {
    let count = r.u16()?;
    (0..count)
        .map(|_| {
            let key = r.string()?;
            let value = if r.u8()? != 0 { Some(r.string()?) } else { None };
            Ok((key, value))
        })
        .collect()
}

fn decode_snap_create(r: &mut Reader<'_>) -> Result<Record, Malformed> {
    let (label_gen, time_ns, group) = (Gen(r.u32()?), r.u64()?, r.u64()?);
    let kind = NodeKind::from_u8(r.u8()?).ok_or(Malformed)?;
    let consistency = Consistency::from_u8(r.u8()?).ok_or(Malformed)?;
    let (freeze_ms, expiry_ns) = (r.u32()?, r.u64()?);
    let count = r.u16()?;
    let members = (0..count)
        .map(|_| {
            Ok(SnapMember {
                volume: VolumeId(r.u64()?),
                new_head: NodeId(r.u64()?),
                name: decode_name(r)?,
            })
        })
        .collect::<Result<_, Malformed>>()?;
    let props = decode_props(r)?;
    Ok(Record::SnapCreate {
        label_gen,
        time_ns,
        group,
        kind,
        consistency,
        freeze_ms,
        expiry_ns,
        members,
        props,
    })
}

fn encode_rollback_member(w: &mut Writer, member: &RollbackMember) {
    w.u64(member.volume.0);
    w.u64(member.new_head.0);
    w.u64(member.target.0);
    w.u64(member.rollback_gen);
    match &member.replaced {
        Replaced::Discarded => w.u8(0),
        Replaced::Kept { name, expiry_ns } => {
            w.u8(1);
            w.u64(*expiry_ns);
            w.string(name);
        }
    }
}

fn decode_rollback_member(r: &mut Reader<'_>) -> Result<RollbackMember, Malformed> {
    let (volume, new_head) = (VolumeId(r.u64()?), NodeId(r.u64()?));
    let (target, rollback_gen) = (NodeId(r.u64()?), r.u64()?);
    let replaced = match r.u8()? {
        0 => Replaced::Discarded,
        _ => Replaced::Kept { expiry_ns: r.u64()?, name: decode_name(r)? },
    };
    Ok(RollbackMember { volume, new_head, target, replaced, rollback_gen })
}
