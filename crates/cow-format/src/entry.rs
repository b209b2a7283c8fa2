//! An entry of the node table: one node of the snapshot tree, 256 bytes, sixteen to a page. What few
//! nodes have, a long name or a content root, lies in an *overflow entry*, which an open of a pool
//! without any need not read. docs/format.md, "Node entry".

use crate::blob::BlobRef;
use crate::wire::{Malformed, Reader, Writer};
use crate::{FamilyId, FormatError, Gen, Name, NodeId, Phys, VolumeId, mutant};

/// Bytes of an entry, and of an overflow entry.
pub const ENTRY_LEN: usize = 256;
/// Entries of a page.
pub const PAGE_ENTRIES: usize = crate::BLOCK_SIZE / ENTRY_LEN;
/// Longest name in bytes.
pub const MAX_NAME: usize = 128;
/// Longest name that needs no overflow entry.
pub const SHORT_NAME: usize = 48;
/// Properties and hold tags of a node, in bytes.
pub const MAX_PROPS: usize = 4096;

/// What a node of the snapshot tree is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeKind {
    /// The writable end of a volume.
    #[default]
    Head = 1,
    /// A snapshot that somebody took.
    User = 2,
    /// What a rollback replaced.
    Undo = 3,
    /// A snapshot that a program took for itself.
    Auto = 4,
    /// No tree at all: carries the properties of the pool.
    Pool = 5,
}

/// Life of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeState {
    /// In use.
    #[default]
    Live = 1,
    /// Deleted; with two or more children a branch point, else waiting for the walker.
    Deleting = 2,
    /// The walker has begun; see [`NodeEntry::cursor`].
    Walking = 3,
}

/// How a snapshot was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Consistency {
    /// As after a power cut.
    #[default]
    Crash = 0,
    /// The machine was stopped.
    Stopped = 1,
    /// File systems were frozen.
    Frozen = 2,
    /// Applications were quiesced.
    Quiesced = 3,
    /// A freeze was asked for and failed.
    FreezeFailed = 4,
}

/// Root of a tree: pointer to the top map node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// The top node; none for an empty tree.
    pub phys: Phys,
    /// Its checksum.
    pub crc: u32,
    /// Its birth; for an empty tree the birth of the hole.
    pub birth: Gen,
    /// Level of the top node; never falls. A lower root stands for child 0 of a higher one.
    pub level: u8,
}

/// A pair of counters: data blocks and map nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Data blocks.
    pub data: u64,
    /// Map nodes.
    pub map: u64,
}

/// A node-table entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeEntry {
    /// Identity.
    pub id: NodeId,
    /// Volume whose head it is or was.
    pub volume: VolumeId,
    /// Node id of the `VolCreate` at the root of the tree.
    pub family: FamilyId,
    /// Parent; 0 for the root of a family.
    pub parent: NodeId,
    /// Label; above the parent's.
    pub label_gen: Gen,
    /// What it is.
    pub kind: NodeKind,
    /// Where in its life it is.
    pub state: NodeState,
    /// How it was taken.
    pub consistency: Consistency,
    /// Its tree, as of the checkpoint.
    pub root: Root,
    /// A fold met damage on its behalf: its counters and its kill row miss something.
    pub inexact: bool,
    /// A deleted branch point: a trim has looked at everything, and nothing has died below it since.
    /// While a trim is under way it counts from where that began.
    pub trimmed: bool,
    /// Its properties may hold one of those that the engine looks for by itself.
    pub policy: bool,
    /// Size of the volume in bytes.
    pub size_bytes: u64,
    /// While walking or being trimmed: the first block that has not been passed.
    pub cursor: u64,
    /// Allocated blocks born here (design section 3).
    pub born: Count,
    /// Blocks born here that were still here when it was frozen.
    pub own: Count,
    /// Blocks reachable from the root (referenced).
    pub mapped: Count,
    /// Blocks that nothing else maps, where that needs no walk.
    pub unique: Count,
    /// Its kill row.
    pub row: BlobRef,
    /// Its properties and hold tags.
    pub props: BlobRef,
    /// Content root, which few have; `None` (zero in the table) when not computed.
    pub merkle: Option<Box<[u8; 32]>>,
    /// How many holds it has.
    pub holds: u32,
    /// Snapshots taken in one instant share it; 0 for none.
    pub group: u64,
    /// When it expires, nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
    /// When it was made, nanoseconds since 1970.
    pub created_ns: u64,
    /// Rollback generation of the volume (heads).
    pub rollback_gen: u64,
    /// The frame that a snapshot stands on.
    pub stands_on: u64,
    /// For a head that a rollback or clone made: the snapshot that it began as.
    pub origin: NodeId,
    /// How long the guest had been frozen when the snapshot was taken, in milliseconds; 0 if it
    /// was not.
    pub freeze_ms: u32,
    /// Snapshot name, or for a head the name of the volume.
    pub name: Name,
}

/// See [`NodeEntry::inexact`].
const FLAG_INEXACT: u8 = 1;
/// See [`NodeEntry::trimmed`].
const FLAG_TRIMMED: u8 = 2;
/// See [`NodeEntry::policy`].
const FLAG_POLICY: u8 = 4;
/// There is an overflow entry.
const FLAG_OVERFLOW: u8 = 8;
const KNOWN_FLAGS: u8 = FLAG_INEXACT | FLAG_TRIMMED | FLAG_POLICY | FLAG_OVERFLOW;
const FLAGS_AT: usize = 47;
const NAME_AT: usize = ENTRY_LEN - SHORT_NAME;
/// A count that is not known; in memory `u64::MAX`.
const UNKNOWN: u64 = (1 << 48) - 1;

impl NodeEntry {
    fn overflows(&self) -> bool {
        self.name.len() > SHORT_NAME || self.merkle.is_some()
    }

    /// The 256 bytes.
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        assert!(self.name.len() <= MAX_NAME, "name over 128 bytes");
        let mut w = Writer::default();
        for id in [self.id.0, self.volume.0, self.family.0, self.parent.0] {
            w.u64(id);
        }
        w.u32(self.label_gen.0);
        w.u8(self.kind as u8);
        w.u8(self.state as u8);
        w.u8(self.consistency as u8);
        w.u8(self.name.len() as u8);
        w.u48(self.root.phys.0);
        w.u8(self.root.level);
        let flags = [
            (self.inexact, FLAG_INEXACT),
            (self.trimmed, FLAG_TRIMMED),
            (self.policy, FLAG_POLICY),
            (self.overflows(), FLAG_OVERFLOW),
        ];
        w.u8(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
        w.u32(self.root.crc);
        w.u32(self.root.birth.0);
        w.u64(self.size_bytes);
        w.u48(self.cursor.min(UNKNOWN));
        for count in [self.born, self.own, self.mapped, self.unique] {
            put_count(&mut w, count.data);
            put_count(&mut w, count.map);
        }
        for blob in [self.row, self.props] {
            w.u48(blob.phys.0);
            w.u32(blob.crc);
            w.u32(blob.len);
        }
        w.u32(self.holds);
        w.u32(self.freeze_ms);
        let tail = [self.group, self.expiry_ns, self.created_ns, self.rollback_gen];
        tail.iter().for_each(|&v| w.u64(v));
        w.u64(self.stands_on);
        w.u64(self.origin.0);
        assert!(w.bytes.len() <= NAME_AT, "entry fields overlap the name");
        let mut out = [0u8; ENTRY_LEN];
        out[..w.bytes.len()].copy_from_slice(&w.bytes);
        let name = self.name.as_bytes();
        let short = &name[..name.len().min(SHORT_NAME)];
        out[NAME_AT..NAME_AT + short.len()].copy_from_slice(short);
        out
    }

    /// The 256 bytes of the overflow entry, if there is to be one.
    pub fn encode_overflow(&self) -> Option<[u8; ENTRY_LEN]> {
        if !self.overflows() {
            return None;
        }
        let mut w = Writer::default();
        w.u64(self.id.0);
        w.bytes.extend_from_slice(self.merkle.as_deref().unwrap_or(&[0; 32]));
        w.bytes.extend_from_slice(self.name.as_bytes().get(SHORT_NAME..).unwrap_or_default());
        let mut out = [0u8; ENTRY_LEN];
        out[..w.bytes.len()].copy_from_slice(&w.bytes);
        Some(out)
    }

    /// Reads an entry; `None` for an empty slot (id 0). `overflow` is the overflow entry of the slot,
    /// zeros or nothing where there is none. `at` is only for the error.
    ///
    /// # Errors
    /// When a field holds what it cannot or flags that nobody knows, or the overflow entry is another node's, missing, or one too
    /// many.
    pub fn decode(bytes: &[u8], overflow: &[u8], at: Phys) -> Result<Option<Self>, FormatError> {
        let field = |field| FormatError::Field { what: "node entry", at, field };
        let bytes = bytes.get(..ENTRY_LEN).ok_or(field("length"))?;
        let id = Reader::new(bytes).u64().map_err(|Malformed| field("length"))?;
        let is_node = id != 0;
        if is_node {
            let (flags, known) = (bytes[FLAGS_AT].into(), KNOWN_FLAGS.into());
            let refused = FormatError::refuse_flags("entry of node", id, at, flags, known);
            if refused.is_err() && mutant::is("entryflags") {
                return Err(field("flags"));
            }
            refused?;
        }
        let has_overflow = is_node && bytes[FLAGS_AT] & FLAG_OVERFLOW != 0;
        let owner = if has_overflow { &bytes[..8] } else { &[0; 8] };
        if overflow.get(..8).unwrap_or(&[0; 8]) != owner {
            return Err(field("overflow entry"));
        }
        if !is_node {
            return Ok(None);
        }
        let overflow = if has_overflow { overflow } else { &[] };
        parse(bytes, overflow).map(Some).map_err(|Malformed| field("kind, state or name"))
    }
}

fn put_count(w: &mut Writer, count: u64) {
    w.u48(if count == u64::MAX { UNKNOWN } else { count.min(UNKNOWN - 1) });
}

fn count(r: &mut Reader<'_>) -> Result<u64, Malformed> {
    let count = r.u48()?;
    Ok(if count == UNKNOWN { u64::MAX } else { count })
}

fn parse(bytes: &[u8], overflow: &[u8]) -> Result<NodeEntry, Malformed> {
    let r = &mut Reader::new(bytes);
    let mut e = NodeEntry { id: NodeId(r.u64()?), ..NodeEntry::default() };
    e.volume = VolumeId(r.u64()?);
    e.family = FamilyId(r.u64()?);
    e.parent = NodeId(r.u64()?);
    e.label_gen = Gen(r.u32()?);
    e.kind = NodeKind::from_u8(r.u8()?).ok_or(Malformed)?;
    e.state = NodeState::from_u8(r.u8()?).ok_or(Malformed)?;
    e.consistency = Consistency::from_u8(r.u8()?).ok_or(Malformed)?;
    let name_len = usize::from(r.u8()?);
    e.root.phys = Phys(r.u48()?);
    e.root.level = r.u8()?;
    let flags = r.u8()?;
    e.inexact = flags & FLAG_INEXACT != 0;
    e.trimmed = flags & FLAG_TRIMMED != 0;
    e.policy = flags & FLAG_POLICY != 0;
    e.root.crc = r.u32()?;
    e.root.birth = Gen(r.u32()?);
    e.size_bytes = r.u64()?;
    e.cursor = r.u48()?;
    for c in [&mut e.born, &mut e.own, &mut e.mapped] {
        // All ones would be more blocks than there can be.
        *c = Count { data: r.u48()?.min(UNKNOWN - 1), map: r.u48()?.min(UNKNOWN - 1) };
    }
    e.unique = Count { data: count(r)?, map: count(r)? };
    for blob in [&mut e.row, &mut e.props] {
        *blob = BlobRef { phys: Phys(r.u48()?), crc: r.u32()?, len: r.u32()? };
    }
    e.holds = r.u32()?;
    e.freeze_ms = r.u32()?;
    for v in [&mut e.group, &mut e.expiry_ns, &mut e.created_ns, &mut e.rollback_gen] {
        *v = r.u64()?;
    }
    e.stands_on = r.u64()?;
    e.origin = NodeId(r.u64()?);
    if e.root.level > crate::mapnode::MAX_LEVEL || name_len > MAX_NAME {
        return Err(Malformed);
    }
    let text = |name: &[u8]| str::from_utf8(name).map(Name::from).map_err(|_| Malformed);
    let short = bytes.get(NAME_AT..NAME_AT + name_len.min(SHORT_NAME)).ok_or(Malformed)?;
    if overflow.is_empty() {
        e.name = if name_len > SHORT_NAME { return Err(Malformed) } else { text(short)? };
        return Ok(e);
    }
    let r = &mut Reader::new(overflow);
    r.u64()?;
    let merkle = r.bytes(32)?.try_into().map_err(|_| Malformed)?;
    e.merkle = (merkle != [0; 32]).then(|| Box::new(merkle));
    e.name = text(&[short, r.bytes(name_len.saturating_sub(SHORT_NAME))?].concat())?;
    Ok(e)
}

impl NodeKind {
    /// The kind with this number.
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::Head, Self::User, Self::Undo, Self::Auto, Self::Pool]
            .into_iter()
            .find(|&k| k as u8 == value)
    }
}

impl NodeState {
    /// The state with this number.
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::Live, Self::Deleting, Self::Walking].into_iter().find(|&k| k as u8 == value)
    }
}

impl Consistency {
    /// The label with this number.
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::Crash, Self::Stopped, Self::Frozen, Self::Quiesced, Self::FreezeFailed]
            .into_iter()
            .find(|&k| k as u8 == value)
    }
}
