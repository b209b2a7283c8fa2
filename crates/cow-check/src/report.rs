//! What a check found.

use std::collections::BTreeMap;
use std::fmt;

/// Kind of structure that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Structure {
    /// A copy of the superblock.
    Superblock,
    /// A checkpoint area.
    Checkpoint,
    /// A page of the allocation bitmap.
    BitmapPage,
    /// The descriptor of a zone in the checkpoint.
    ZoneDescriptor,
    /// A page of the node table.
    TablePage,
    /// An entry of the node table.
    NodeEntry,
    /// How the entries of the node table fit together.
    SnapshotTree,
    /// A kill row.
    KillRow,
    /// User properties and hold tags.
    Properties,
    /// A leaf of the map.
    MapLeaf,
    /// A map node above the leaves.
    MapNode,
    /// A data block.
    Data,
    /// A frame of the journal.
    JournalFrame,
    /// A record of the journal.
    JournalRecord,
    /// A block in use that the bitmap calls free, or the other way round (I1).
    Allocation,
    /// A block that is used at two places (I2).
    SharedBlock,
    /// Births that contradict the tree (I3, I4).
    Ownership,
    /// A counter that a walk does not confirm (I6).
    Counter,
    /// Damage that an earlier fold has met and noted.
    KnownDamage,
}

impl Structure {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Superblock => "superblock",
            Self::Checkpoint => "checkpoint",
            Self::BitmapPage => "bitmap page",
            Self::ZoneDescriptor => "zone descriptor",
            Self::TablePage => "node table page",
            Self::NodeEntry => "node entry",
            Self::SnapshotTree => "snapshot tree",
            Self::KillRow => "kill row",
            Self::Properties => "properties",
            Self::MapLeaf => "map leaf",
            Self::MapNode => "map node",
            Self::Data => "data block",
            Self::JournalFrame => "journal frame",
            Self::JournalRecord => "journal record",
            Self::Allocation => "allocation",
            Self::SharedBlock => "shared block",
            Self::Ownership => "ownership",
            Self::Counter => "counter",
            Self::KnownDamage => "known damage",
        }
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What a crash may leave behind, and what costs nothing.
    Warning,
    /// What must not be.
    Corruption,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The structure.
    pub kind: Structure,
    /// How bad it is.
    pub severity: Severity,
    /// Where: `vm1@snap, lba 12 (byte 49152), block 777`.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.place, self.what)
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Checkpoint whose state was checked.
    pub checkpoint_seq: u64,
    /// Nodes of the snapshot tree.
    pub nodes: u64,
    /// Map nodes that are in use.
    pub map_nodes: u64,
    /// Data blocks that are in use.
    pub data_blocks: u64,
    /// Data blocks that were read and compared with their checksums.
    pub data_verified: u64,
    /// Blocks of kill rows and properties.
    pub blob_blocks: u64,
    /// Bitmap pages read.
    pub bitmap_pages: u64,
    /// Frames of the journal after the checkpoint that a recovery accepts.
    pub frames: u64,
    /// Frames behind them whose data never became durable: a recovery cuts them.
    pub frames_cut: u64,
    /// Blocks that are lost: reads of them fail.
    pub lost_blocks: u64,
    /// Blocks allocated that nothing refers to, where the checkpoint says that there are such.
    pub leaked_blocks: u64,
}

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, in the order in which they were met; not all where there were too many.
    pub findings: Vec<Finding>,
    /// How many findings were corruption, those not listed included.
    pub corruptions: u64,
    /// How many were warnings, those not listed included.
    pub warnings: u64,
    /// How many corruptions there are of each kind of structure.
    pub by_kind: BTreeMap<Structure, u64>,
    /// What was looked at.
    pub stats: Stats,
}

impl Report {
    /// Whether nothing is corrupt.
    pub fn is_clean(&self) -> bool {
        self.corruptions == 0
    }

    /// Findings that are not listed.
    pub fn omitted(&self) -> u64 {
        (self.corruptions + self.warnings).saturating_sub(self.findings.len() as u64)
    }

    /// Adds a finding to a list of at most `most`; corruption drives out warnings.
    pub(crate) fn add(&mut self, finding: Finding, most: usize) {
        match finding.severity {
            Severity::Corruption => {
                self.corruptions += 1;
                *self.by_kind.entry(finding.kind).or_default() += 1;
            }
            Severity::Warning => self.warnings += 1,
        }
        if self.findings.len() < most {
            self.findings.push(finding);
        } else if finding.severity == Severity::Corruption
            && let Some(at) = self.findings.iter().position(|f| f.severity == Severity::Warning)
        {
            self.findings.remove(at);
            self.findings.push(finding);
        }
    }
}

/// Why a pool could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no superblock at all.
    #[error("not a Cowstore pool: no superblock found")]
    NotAPool,
    /// A pool of another time: unknown version, features or flags.
    #[error("unsupported pool: {0}")]
    Unsupported(#[source] cow_format::FormatError),
    /// The image is shorter than the pool.
    #[error("the image has {image_blocks} blocks, the pool {pool_blocks}: it was cut")]
    Truncated {
        /// Length of the image.
        image_blocks: u64,
        /// Length of the pool.
        pool_blocks: u64,
    },
    /// Nothing to begin with is intact.
    #[error("{structure}: no intact copy: {what}")]
    Damaged {
        /// Superblock or checkpoint.
        structure: Structure,
        /// What is wrong with the copies.
        what: String,
    },
    /// Nothing like that in the pool.
    #[error("not found: {0}")]
    NotFound(String),
    /// The image cannot be read.
    #[error("read of block {block}: {cause}")]
    Read {
        /// Where.
        block: u64,
        /// What the system said.
        cause: String,
    },
}
