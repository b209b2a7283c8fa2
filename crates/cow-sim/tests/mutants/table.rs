//! Which faults are planted for which invariant; what finds each stands in `faults.rs`. docs/invariants.md is made
//! of the two.

use crate::histories::How;
use std::fmt;

/// A directed test of a planted fault.
pub type Script = fn() -> Result<(), String>;

/// What finds a fault.
#[derive(Clone, Copy)]
pub enum Killer {
    /// Histories, from this seed on.
    Histories(How, u64),
    /// The crash exploration of a workload, from this seed on.
    Workload(&'static str, u64),
    /// A script of `scripts.rs`.
    Script(&'static str, Script),
    /// A test of another file of cow-sim, which knows nothing of the fault. Only tried by `cargo xtask
    /// invariants`.
    Test(&'static str, &'static str),
    /// A test of another file of cow-sim that plants the fault itself.
    Planted(&'static str, &'static str),
    /// A test of cowstore's threads that plants the fault itself.
    Threads(&'static str),
    /// A unit test of another crate, which knows nothing of the fault. Only tried by `cargo xtask
    /// invariants`.
    Unit(&'static str, &'static str),
}

impl Killer {
    /// Whether it runs in this process.
    pub fn is_here(self) -> bool {
        matches!(self, Self::Histories(..) | Self::Workload(..) | Self::Script(..))
    }

    /// Whether the test plants the fault itself, and passes when it was found.
    pub fn plants_itself(self) -> bool {
        matches!(self, Self::Planted(..) | Self::Threads(_))
    }

    /// Whether a seed chooses what it does.
    pub fn has_seeds(self) -> bool {
        matches!(self, Self::Histories(..) | Self::Workload(..))
    }
}

impl fmt::Display for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Histories(how, _) => write!(f, "histories: {}", how.name()),
            Self::Workload(name, _) => write!(f, "crashes in \"{name}\""),
            Self::Script(name, _) => write!(f, "`mutants/scripts.rs` {name}"),
            Self::Test(target, name) | Self::Planted(target, name) => {
                let test = test_of(target, name);
                let (file, name) = test.split_once(' ').unwrap_or_default();
                let file = file.strip_prefix("cow-sim/tests/").unwrap_or_default();
                write!(f, "`{file}` {name}")
            }
            Self::Threads(name) => write!(f, "`cowstore/tests/threads` {name}"),
            Self::Unit(package, name) => write!(f, "{package} {name}"),
        }
    }
}

/// A test of cow-sim, as the rows name it: `name` may begin with a module of a target of several files.
pub fn test_of(target: &str, name: &str) -> String {
    match name.split_once("::") {
        Some((module, name)) => format!("cow-sim/tests/{target}/{module}.rs {name}"),
        None if target == "repair" => format!("cow-sim/tests/{target}/main.rs {name}"),
        None => format!("cow-sim/tests/{target}.rs {name}"),
    }
}

/// A fault.
pub struct Mutant {
    pub name: &'static str,
    pub breaks: &'static str,
    pub killer: Killer,
}

pub const fn mutant(name: &'static str, breaks: &'static str, killer: Killer) -> Mutant {
    Mutant { name, breaks, killer }
}

/// A promise (P) or an invariant (I) of the design, or what else one of its sections says (S).
pub struct Invariant {
    pub id: &'static str,
    pub says: &'static str,
    /// `CRATE/FILE TEST`, below `crates`.
    pub tests: &'static [&'static str],
    pub mutants: &'static [&'static str],
}

const fn invariant(
    id: &'static str,
    says: &'static str,
    tests: &'static [&'static str],
    mutants: &'static [&'static str],
) -> Invariant {
    Invariant { id, says, tests, mutants }
}

const CRASHES: &str = "cow-sim/tests/engine.rs crash_histories";
const COMPARED: &str = "cow-sim/tests/engine.rs compared_histories";
const TIGHT: &str = "cow-sim/tests/engine.rs tight_histories";
const EVERY_POINT: &str = "cow-sim/tests/engine.rs every_crash_point";
const LOST: &str = "cow-sim/tests/engine.rs lost_checkpoint_histories";
const MOVING: &str = "cow-sim/tests/engine.rs moving_histories";

pub const INVARIANTS: &[Invariant] = &[
    invariant(
        "P1",
        "snapshot, clone, rollback and delete cost one frame and one flush",
        &[
            "cow-sim/tests/op_counts.rs a_verb_costs_one_frame_and_one_flush",
            "cow-sim/tests/many_snapshots/main.rs snapshots_and_opens_cost_the_same_among_ten_thousand",
        ],
        &["twoflushes", "twoframes"],
    ),
    invariant(
        "P2",
        "the first write after a snapshot costs what any other costs",
        &["cow-sim/tests/op_counts.rs an_overwrite_after_a_snapshot_copies_nothing"],
        &["firstcopy", "firstfold"],
    ),
    invariant(
        "P3",
        "an acknowledged flush survives; the rest comes back as a prefix, over all volumes",
        &[CRASHES, EVERY_POINT, "cow-sim/tests/engine.rs failure_histories"],
        &["ackearly", "noverify", "oneflush", "flushblind", "moveapart", "fualost"],
    ),
    invariant(
        "P4",
        "wrong data is never returned",
        &[
            "cow-sim/tests/exploration.rs devices_that_lie_are_survived",
            "cow-sim/tests/engine.rs rot_histories",
            "cow-sim/tests/reads.rs a_run_is_one_device_read_and_holes_between_runs_are_zeros",
        ],
        &["anydata", "losthole", "runblind", "holestale"],
    ),
    invariant(
        "P5",
        "a full pool never wedges",
        &[
            "cow-sim/tests/full_pool.rs a_full_pool_goes_on",
            "cow-sim/tests/mutants/scripts.rs a_delete_needs_no_room",
        ],
        &["deletemeta", "growthless"],
    ),
    invariant(
        "P6",
        "what deleting any set of snapshots would free is known before",
        &[
            "cow-sim/tests/full_pool.rs a_delete_frees_what_it_said",
            "cow-snaptree/src/tests/oracle.rs accounts_match_a_recount",
        ],
        &["uniquestale", "spliceown"],
    ),
    invariant(
        "P7",
        "rollback destroys nothing",
        &[COMPARED, "cow-snaptree/src/tests/verbs.rs a_second_undo_is_redo"],
        &["undotwo", "undolayer", "undoheld"],
    ),
    invariant(
        "I1",
        "the image of a checkpoint is what it can reach, and no more",
        &[CRASHES, EVERY_POINT],
        &["bitmapnow", "cursorlate"],
    ),
    invariant(
        "I2",
        "a block stands at one address, with the same birth and checksum in every tree",
        &[CRASHES],
        &["birthcopy"],
    ),
    invariant(
        "I3",
        "slot birth <= node birth <= gen of the tree",
        &[CRASHES, "cow-format/src/tests.rs map_node_round_trip_and_every_bit"],
        &["birthlow"],
    ),
    invariant(
        "I4",
        "what is not younger than the parent is the parent's, holes too",
        &[CRASHES, "cow-sim/tests/diffs.rs a_diff_is_what_differs"],
        &["cleanclone", "holezero"],
    ),
    invariant(
        "I5",
        "what a snapshot holds never changes",
        &[COMPARED, CRASHES],
        &["killequal", "cleanclone", "birthcopy"],
    ),
    invariant(
        "I6",
        "kill rows and counters are what a walk counts; sizes are between their bounds",
        &["cow-snaptree/src/tests/oracle.rs accounts_match_a_recount", CRASHES],
        &["spliceown", "uniquestale", "nohoist", "pairapart"],
    ),
    invariant(
        "I7",
        "nothing is given out that a checkpoint, its fallback, a hold or a reader reaches",
        &[TIGHT, LOST, "cow-alloc/src/tests/model.rs histories"],
        &[
            "earlyfree",
            "reusenow",
            "noquarantine",
            "punchearly",
            "reusepunched",
            "unpinned",
            "pageempty",
        ],
    ),
    invariant(
        "I8",
        "recovered is a prefix with all acknowledged flushes",
        &[
            CRASHES,
            EVERY_POINT,
            "cow-sim/tests/engine.rs misread_histories",
            "cow-sim/tests/unknown_flags.rs frames_of_another_version_are_refused",
            "cow-sim/tests/unknown_flags.rs unknown_flags_are_refused",
        ],
        &["noverify", "noreread", "ackearly", "oneflush", "growlate", "frameversion", "entryflags"],
    ),
    invariant(
        "I9",
        "recovering again changes nothing; a crash inside of recovery is safe",
        &[CRASHES, EVERY_POINT],
        &["noopenflush", "onesb"],
    ),
    invariant(
        "I10",
        "frames that were cut never return",
        &[
            "cow-sim/tests/engine.rs short_histories",
            "cow-sim/tests/fence.rs cut_frames_do_not_return_with_the_same_content",
        ],
        &["nofence", "nochain", "nofencedur"],
    ),
    invariant(
        "I11",
        "a fold never lacks space; a delete works with none free",
        &[
            "cow-sim/tests/reserve.rs a_root_grows_inside_of_the_reserve",
            "cow-sim/tests/full_pool.rs a_full_pool_goes_on",
            "cow-sim/tests/writeback.rs a_write_waits_for_the_bitmap_of_its_group",
        ],
        &["growthless", "deletemeta", "noreserve", "nowroom", "nowhomeless"],
    ),
    invariant(
        "I12",
        "a crash during a walk leaks nothing and frees nothing twice",
        &[CRASHES, EVERY_POINT],
        &["nocursor", "cursorlate", "walkafter", "walkdetached"],
    ),
    invariant(
        "I13",
        "a read gives the last acknowledged write",
        &[
            COMPARED,
            "cow-sim/tests/engine.rs histories",
            "cow-sim/tests/mutants/scripts.rs a_read_beside_a_fold",
            "cow-sim/tests/mutants/scripts.rs a_map_node_where_another_was",
            "cow-sim/tests/linear.rs histories_are_linearizable",
            "cowstore/tests/linear.rs threads_on_the_ring",
        ],
        &["oldlayer", "cachestale", "readbehind", "foldblind", "latefence", "noturn", "nowblind"],
    ),
    invariant(
        "I14",
        "after a flush that failed no later one is acknowledged",
        &["cow-sim/tests/engine.rs failure_histories"],
        &["flushforgiven"],
    ),
    invariant(
        "I15",
        "every corruption of a sector is detected",
        &[
            "cow-format/src/tests.rs map_node_round_trip_and_every_bit",
            "cow-alloc/src/tests/pages.rs every_flipped_bit_and_every_false_descriptor_is_refused",
            "cow-sim/tests/exploration.rs devices_that_lie_are_survived",
            "cow-sim/tests/scrub.rs what_is_damaged_is_named_exactly",
        ],
        &[
            "anydata",
            "nodeblind",
            "blobblind",
            "frameblind",
            "cpblind",
            "sbblind",
            "bitmapblind",
            "tableblind",
            "runblind",
            "scrubskip",
            "scrubloose",
        ],
    ),
    invariant(
        "I16",
        "equal content has equal roots, and only that",
        &["cow-sim/tests/roots.rs equal_content_has_equal_roots"],
        &["rootsince", "roothole", "rootsize"],
    ),
    invariant(
        "I17",
        "a diff names all that differs",
        &["cow-sim/tests/diffs.rs a_diff_is_what_differs"],
        &["diffnext", "difflayer", "diffclear", "holeless"],
    ),
    invariant(
        "I18",
        "a replay does what was done at run time",
        &["cow-sim/tests/engine.rs policy_histories", CRASHES],
        &["releaselost", "movetwice"],
    ),
    invariant(
        "I19",
        "a Move excuses what fails inside of the prefix, and changes no content",
        &[MOVING, "cow-sim/tests/mutants/scripts.rs a_move_that_is_cut"],
        &["noexcuse", "excusecut", "noreread", "moveblind", "movefolded", "movelate"],
    ),
    invariant(
        "I20",
        "what a fold publishes is the state at its freeze, and the records after it",
        &[CRASHES, EVERY_POINT],
        &["tablenow", "bitmapnow", "walkafter", "foldrush", "cleanclone"],
    ),
    invariant(
        "I21",
        "after a trim nothing is allocated that no live node reaches; nothing is freed twice",
        &[TIGHT, "cow-sim/tests/branches.rs a_deleted_image_holds_what_some_clone_uses"],
        &["trimstale", "nohoist"],
    ),
    invariant(
        "I22",
        "damage is contained",
        &[
            "cow-sim/tests/damage.rs a_leaf_that_cannot_be_read",
            "cow-sim/tests/damage.rs a_node_of_the_child_that_a_walk_cannot_read",
        ],
        &["walkblind", "losthole"],
    ),
    invariant(
        "I23",
        "a group is applied wholly or not at all",
        &["cow-sim/tests/groups.rs a_crash_leaves_all_of_a_group_or_nothing"],
        &["grouppart"],
    ),
    invariant(
        "I24",
        "ENOSPC only when no free is pending",
        &[
            "cow-sim/tests/full_pool.rs a_full_pool_goes_on",
            "cow-sim/tests/mutants/scripts.rs room_comes_after_two_checkpoints",
        ],
        &["enospcsoon"],
    ),
    invariant(
        "I25",
        "the bytes on the device are those that the checksum covers, in flight too",
        &["cow-sim/tests/engine.rs histories", MOVING],
        &["reuseflying", "readbehind", "latebytes"],
    ),
    invariant(
        "I26",
        "a read-only opening writes nothing",
        &["cow-sim/tests/mutants/scripts.rs a_read_only_pool_is_not_written"],
        &["rofence"],
    ),
    invariant(
        "I27",
        "no frame is overwritten that the newest checkpoint or its fallback needs",
        &[LOST, "cow-sim/tests/mutants/scripts.rs a_full_ring_and_a_lost_checkpoint"],
        &["ringearly"],
    ),
    invariant(
        "I28",
        "nothing that a hold covers goes",
        &[
            "cow-sim/tests/engine.rs policy_histories",
            "cow-snaptree/src/tests/verbs.rs rollback_keeps_the_newest_three_undo_snapshots",
            "cow-sim/tests/mutants/scripts.rs a_snapshot_in_use_stays",
            "cow-sim/tests/mutants/scripts.rs a_held_snapshot_beside_a_trim",
        ],
        &["pruneheld", "undoheld", "deleteopen", "trimheld"],
    ),
    invariant(
        "R1",
        "a repair brings back all but exactly what it calls lost",
        &[
            "cow-sim/tests/corruption.rs repair_of_bad_sectors",
            "cow-sim/tests/repair/main.rs every_block_of_a_closed_pool",
            "cow-sim/tests/repair/states.rs what_reads_again_is_not_cut_out",
            "cow-sim/src/repairs/tests.rs seeds_that_found_something",
        ],
        &["lossmute", "knownlost", "cutmore", "noagain", "pairapart", "pastlost"],
    ),
    invariant(
        "R2",
        "a crash inside of a repair leaves the pool as it was or repaired, and the next repair ends it",
        &[
            "cow-sim/src/repairs/tests.rs repairs_survive_crashes_and_failures",
            "cow-sim/src/repairs/tests.rs seeds_that_found_something",
            "cow-sim/tests/repair/main.rs a_crash_at_every_step",
            "cow-sim/tests/repair/states.rs what_is_built_upon_is_durable",
            "cow-sim/tests/repair/states.rs blocks_that_only_the_journal_names_are_left_alone",
        ],
        &[
            "builtloose",
            "newloose",
            "cleanloose",
            "areabeside",
            "homeused",
            "namedtaken",
            "tornwhole",
        ],
    ),
    invariant(
        "S14",
        "limits, rules and times of snapshots do what section 14 says",
        &["cow-sim/tests/engine.rs policy_histories"],
        &["pruneheld", "keepless", "keeptimed", "limitauto", "grouponce"],
    ),
    invariant(
        "S6",
        "what threads share: each request is answered once, nobody sleeps for ever",
        &[
            "cowstore/tests/threads/checks.rs every_request_is_answered_once_whenever_the_pool_is_closed",
            "cowstore/tests/threads/checks.rs every_request_is_answered_once_when_the_engine_panics",
            "cowstore/tests/threads/checks.rs futures_are_woken",
        ],
        &["nowake", "sleepblind", "noclear", "forgetful", "answertwice"],
    ),
];
