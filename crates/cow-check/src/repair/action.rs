//! What a repair does, and what it cannot bring back.

use std::fmt;

/// One thing that a repair does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a copy of the superblock again, from its twin.
    RestoreSuperblock {
        /// Number of the copy, 0 to 3.
        copy: usize,
        /// What was wrong with it.
        what: String,
    },
    /// Writes the set of superblock copies of which none is intact again, from the other set.
    RenewSuperblocks {
        /// Sequence that they get.
        sequence: u64,
        /// What was wrong with the first of them.
        what: String,
    },
    /// The checkpoint after the newest intact one is damaged: its area gets a new one.
    ReplaceCheckpoint {
        /// Its area, 0 to 3.
        area: usize,
        /// The one that is gone on from.
        seq: u64,
        /// What was wrong.
        what: String,
    },
    /// What stands in the area after that of the new checkpoint could be taken for a newer one: it is wiped, so that
    /// a crash while the new one is written leaves one area in doubt, not two.
    WipeCheckpoint {
        /// The area, 0 to 3.
        area: usize,
        /// What was wrong with it.
        what: String,
    },
    /// The node table of the newest checkpoint is damaged: that of the one before it, and the journal from
    /// there on, take its place.
    GoBack {
        /// The checkpoint that is given up.
        from: u64,
        /// The one that is gone on from.
        to: u64,
        /// What was wrong.
        what: String,
    },
    /// Cuts a map node that cannot be read out of all maps that have it.
    CutMapNode {
        /// The volume or snapshot whose it is.
        name: String,
        /// Its level, 0 for a leaf.
        level: u8,
        /// First block of the volume that it maps.
        lba: u64,
        /// Where it is stored.
        block: u64,
        /// How many of the pointers in it, or further below, are known from newer maps.
        known: usize,
        /// What was wrong.
        what: String,
    },
    /// Gives back all that discards have cut off and no fold has given back yet, so that everything can be counted.
    GiveBack {
        /// How many subtrees.
        lines: u64,
    },
    /// Counts what is in a kill row anew.
    RebuildRow {
        /// The volume or snapshot.
        name: String,
    },
    /// Gives up properties that cannot be read.
    DropProperties {
        /// The volume or snapshot, or the pool.
        name: String,
        /// Its hold tags, of which one named `damaged` takes the place.
        holds: u32,
    },
    /// Corrects the counts in a node entry.
    Recount {
        /// The volume or snapshot.
        name: String,
    },
    /// Corrects the counts of the checkpoint.
    RecountPool {
        /// Data blocks, as they were and as they are.
        data: (u64, u64),
        /// Blocks of metadata.
        metadata: (u64, u64),
    },
    /// Makes a page of the allocation bitmap anew.
    RebuildBitmap {
        /// Its zone.
        zone: u64,
        /// Whether the page could not be read.
        unreadable: bool,
        /// Blocks that nothing refers to and that are free now.
        freed: u64,
        /// Blocks that something refers to and that were free.
        marked: u64,
    },
    /// Ends the list of damage that folds have met, now that everything is counted.
    ForgetDamage {
        /// Lines of the list, those that did not fit included.
        entries: u64,
    },
}

impl Action {
    /// A word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RestoreSuperblock { .. } => "restore_superblock",
            Self::RenewSuperblocks { .. } => "renew_superblocks",
            Self::ReplaceCheckpoint { .. } => "replace_checkpoint",
            Self::WipeCheckpoint { .. } => "wipe_checkpoint",
            Self::GoBack { .. } => "go_back",
            Self::CutMapNode { .. } => "cut_map_node",
            Self::GiveBack { .. } => "give_back",
            Self::RebuildRow { .. } => "rebuild_kill_row",
            Self::DropProperties { .. } => "drop_properties",
            Self::Recount { .. } => "recount",
            Self::RecountPool { .. } => "recount_pool",
            Self::RebuildBitmap { .. } => "rebuild_bitmap",
            Self::ForgetDamage { .. } => "forget_damage",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestoreSuperblock { copy, what } => {
                write!(f, "superblock copy {copy}: written again from its twin ({what})")
            }
            Self::RenewSuperblocks { sequence, what } => {
                write!(f, "superblock: sequence {sequence} written in place of a lost set ({what})")
            }
            Self::ReplaceCheckpoint { area, seq, what } => {
                write!(
                    f,
                    "checkpoint area {area}: written anew from checkpoint {seq} and what the journal has since ({what})"
                )
            }
            Self::WipeCheckpoint { area, what } => {
                write!(f, "checkpoint area {area}: wiped, it holds nothing that is needed ({what})")
            }
            Self::GoBack { from, to, what } => {
                write!(
                    f,
                    "checkpoint {from}: given up for checkpoint {to} and what the journal has since ({what})"
                )
            }
            Self::CutMapNode { name, level, lba, block, known, what } => {
                write!(f, "map node of level {level}: {name}, lba {lba}, block {block}: cut out")?;
                if *known > 0 {
                    write!(f, ", {known} pointers in it are known from newer maps")?;
                }
                write!(f, " ({what})")
            }
            Self::GiveBack { lines } => {
                write!(f, "discards: {lines} subtree(s) that were cut off are given back")
            }
            Self::RebuildRow { name } => write!(f, "kill row: {name}: counted anew"),
            Self::DropProperties { name, holds: 0 } => write!(f, "properties: {name}: lost"),
            Self::DropProperties { name, holds } => {
                write!(f, "properties: {name}: lost; a hold `damaged` stands for {holds} hold(s)")
            }
            Self::Recount { name } => write!(f, "counters: {name}: corrected"),
            Self::RecountPool { data, metadata } => write!(
                f,
                "counters: {} data and {} metadata blocks instead of {} and {}",
                data.1, metadata.1, data.0, metadata.0
            ),
            Self::RebuildBitmap { zone, unreadable, freed, marked } => {
                write!(f, "bitmap page: zone {zone}: made anew")?;
                if *unreadable {
                    return f.write_str(" (it could not be read)");
                }
                write!(f, ", {freed} block(s) freed, {marked} marked as used")
            }
            Self::ForgetDamage { entries } => {
                write!(f, "damage: {entries} line(s) that folds had noted are settled")
            }
        }
    }
}

/// Blocks of a volume or snapshot that could be read before their map node was damaged, and read as errors
/// from now on, until they are written or discarded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    /// `VOL` or `VOL@SNAP`.
    pub name: String,
    /// The first block of the volume.
    pub lba: u64,
    /// How many.
    pub blocks: u64,
    /// The block of the pool where the damaged map node is stored.
    pub block: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.lba + self.blocks - 1;
        write!(
            f,
            "{}, lba {} to {last}: the map node in block {} is damaged",
            self.name, self.lba, self.block
        )
    }
}
