//! The faults: what each breaks, and what finds it.

use crate::histories::How;
use crate::scripts;
use crate::table::Killer::{self, Histories, Planted, Test, Unit, Workload};
use crate::table::{Mutant, mutant};

const PLANTED: &str = "planted_faults_are_found";
const FOUND: &str = "repairs::tests::seeds_that_found_something";
const SCRUB_STEP: &str = "a_step_begins_where_the_last_one_ended";

pub const MUTANTS: &[Mutant] = &[
    // What is durable, and in which order.
    mutant(
        "noverify",
        "recovery believes the unflushed tail without reading its data",
        Histories(How::Crashes, 0),
    ),
    mutant("noreread", "recovery believes a misread", Histories(How::Misreads, 0)),
    mutant(
        "oneflush",
        "a checkpoint is written without the flush before it",
        Histories(How::Crashes, 11),
    ),
    mutant(
        "ackearly",
        "a flush is acknowledged without a device flush",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "flushforgiven",
        "a flush that failed is asked for again, and believed then",
        Histories(How::Failures, 0),
    ),
    mutant("nochain", "frames of another history are accepted", Histories(How::Short, 280)),
    mutant(
        "nofence",
        "recovery leaves no fence behind what it accepted",
        Histories(How::Short, 38),
    ),
    mutant("nofencedur", "a fence does not vouch for the frames before it", Histories(How::Rot, 0)),
    mutant(
        "onesb",
        "the superblock is always written to the same set",
        Planted("fence", "a_torn_superblock_leaves_the_other_set"),
    ),
    mutant(
        "noopenflush",
        "an opening verifies what a killed process left in a cache, and does not flush it first",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "grouppart",
        "recovery takes and applies a part of a group over several frames",
        Test("groups", "a_crash_leaves_all_of_a_group_or_nothing"),
    ),
    mutant(
        "releaselost",
        "a replay passes over the release of a hold",
        Histories(How::Policies, 41),
    ),
    mutant(
        "ringearly",
        "frames that the checkpoint before the newest needs are overwritten",
        Killer::Script(
            "a_full_ring_and_a_lost_checkpoint",
            scripts::a_full_ring_and_a_lost_checkpoint,
        ),
    ),
    mutant(
        "rofence",
        "a read-only opening writes a fence",
        Killer::Script("a_read_only_pool_is_not_written", scripts::a_read_only_pool_is_not_written),
    ),
    // What is given out again, and when.
    mutant(
        "earlyfree",
        "overwritten blocks are given out before any checkpoint",
        Histories(How::Tight, 0),
    ),
    mutant(
        "reusenow",
        "freed blocks are given out before their checkpoint is durable",
        Histories(How::Watched, 928),
    ),
    mutant(
        "noquarantine",
        "freed blocks are given out while a fallback needs them",
        Histories(How::LostCheckpoints, 60),
    ),
    mutant(
        "punchearly",
        "freed blocks are discarded while a fallback needs them",
        Histories(How::LostCheckpoints, 0),
    ),
    mutant(
        "reusepunched",
        "freed blocks are given out before their discard is complete",
        Histories(How::Tight, 1706),
    ),
    mutant(
        "unpinned",
        "freed blocks are given out while a reader may read them",
        Test("scrub", "what_is_overwritten_meanwhile_is_no_damage"),
    ),
    // The map, and what a fold makes of it.
    mutant(
        "birthcopy",
        "a leaf that is written anew calls one block of its parent's its own",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "birthlow",
        "a map node that is written anew keeps its old birth",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "holezero",
        "a map node below a hole does not take over the birth of the hole",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "killequal",
        "what was born with the parent is freed when a head replaces it",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "cleanclone",
        "a clean clone starts from a root of before the fold",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "bitmapnow",
        "the bitmap holds blocks of records after the freeze",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "tablenow",
        "the node table is written as it is, not as it was at the freeze",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "undolayer",
        "a fold drops what an undo snapshot holds and no fold has seen",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "losthole",
        "what hangs below a map node that cannot be read becomes zeros",
        Test("damage", "a_leaf_that_cannot_be_read"),
    ),
    mutant(
        "growthless",
        "the reserve leaves out one of the map nodes that a root grows by",
        Test("reserve", "a_root_grows_inside_of_the_reserve"),
    ),
    // Reclaim.
    mutant(
        "nocursor",
        "kills during a walk are judged against the walked node",
        Histories(How::Crashes, 259),
    ),
    mutant(
        "cursorlate",
        "a walk that stops has freed one leaf more than its cursor says",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "walkafter",
        "the walker takes deletes sequenced after the freeze",
        Workload("delete during a checkpoint", 0),
    ),
    mutant(
        "walkblind",
        "a walk takes a map node of the child that cannot be read for a hole",
        Test("damage", "a_node_of_the_child_that_a_walk_cannot_read"),
    ),
    mutant(
        "walkdetached",
        "nodes are spliced while a discard of theirs is not all given back",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "nohoist",
        "trim leaves the deaths that it cleared in the rows of the children",
        Histories(How::Crashes, 196),
    ),
    mutant(
        "trimstale",
        "trim frees blocks and leaves the pointers to them",
        Histories(How::Tight, 216),
    ),
    mutant(
        "deleteopen",
        "a snapshot is deleted that a client has open",
        Killer::Script("a_snapshot_in_use_stays", scripts::a_snapshot_in_use_stays),
    ),
    mutant(
        "trimheld",
        "a trim passes over a child that is held, and clears what only that one has",
        Killer::Script("a_held_snapshot_beside_a_trim", scripts::a_held_snapshot_beside_a_trim),
    ),
    // Sizes and space.
    mutant(
        "spliceown",
        "a splice leaves what died in the count of what its node still has",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "uniquestale",
        "a death in the only child is not counted as unique to its parent",
        Histories(How::Crashes, 0),
    ),
    mutant(
        "deletemeta",
        "a delete waits for the room that a snapshot needs",
        Killer::Script("a_delete_needs_no_room", scripts::a_delete_needs_no_room),
    ),
    mutant(
        "enospcsoon",
        "an operation waits for one checkpoint for room, where that takes two",
        Killer::Script(
            "room_comes_after_two_checkpoints",
            scripts::room_comes_after_two_checkpoints,
        ),
    ),
    // Snapshots that rules and people keep.
    mutant("pruneheld", "a prune counts what is held as what may go", Histories(How::Policies, 0)),
    mutant("keepless", "last=N keeps one less", Histories(How::Policies, 0)),
    mutant(
        "keeptimed",
        "rules count and take snapshots with a time of their own",
        Histories(How::Policies, 0),
    ),
    mutant(
        "limitauto",
        "automatic snapshots count for the limit of a volume",
        Histories(How::Policies, 0),
    ),
    mutant(
        "grouponce",
        "a group snapshot counts once for a limit of several volumes",
        Histories(How::Policies, 404),
    ),
    mutant("undotwo", "a volume keeps two undo snapshots, not three", Histories(How::Compared, 47)),
    mutant(
        "undoheld",
        "a rollback lets an undo snapshot go that is held",
        Unit("cow-snaptree", "tests::verbs::rollback_keeps_the_newest_three_undo_snapshots"),
    ),
    // Writes, and reads beside them.
    mutant(
        "flushblind",
        "a flush does not wait for the data that its frames name",
        Histories(How::Writeback, 0),
    ),
    mutant(
        "readbehind",
        "a block is read from the device while it is written",
        Histories(How::Writeback, 152),
    ),
    mutant(
        "reuseflying",
        "a block is given out again while it is written",
        Histories(How::Writeback, 119),
    ),
    mutant(
        "latebytes",
        "what is written is what the caller's buffer holds later than its checksum was taken",
        Histories(How::Writeback, 0),
    ),
    mutant(
        "oldlayer",
        "a read asks the layer that is being folded before the one above it",
        Killer::Script("a_read_beside_a_fold", scripts::a_read_beside_a_fold),
    ),
    mutant(
        "cachestale",
        "a map node is read from a cache that still has what stood there before",
        Killer::Script("a_map_node_where_another_was", scripts::a_map_node_where_another_was),
    ),
    mutant(
        "twoflushes",
        "a verb flushes the device twice",
        Test("op_counts", "a_verb_costs_one_frame_and_one_flush"),
    ),
    mutant(
        "twoframes",
        "a verb writes two frames",
        Test("op_counts", "a_verb_costs_one_frame_and_one_flush"),
    ),
    mutant(
        "firstfold",
        "the first write after a snapshot folds what the snapshot holds",
        Test("op_counts", "an_overwrite_after_a_snapshot_copies_nothing"),
    ),
    mutant(
        "firstcopy",
        "the first write after a snapshot reads what it replaces",
        Test("op_counts", "an_overwrite_after_a_snapshot_copies_nothing"),
    ),
    mutant(
        "nowblind",
        "a write is accepted at once while one of part of its block is under way",
        Planted("linear", PLANTED),
    ),
    mutant(
        "nowroom",
        "a write is accepted at once whether or not there is room for it and for its fold",
        Planted("known_bugs", PLANTED),
    ),
    mutant(
        "nowhomeless",
        "a write is accepted at once where the file system below has no room for the bitmap of its group",
        Test("writeback", "a_write_waits_for_the_bitmap_of_its_group"),
    ),
    mutant(
        "holestale",
        "of a hole among data a read gives what its buffer held before",
        Test("reads", "a_run_is_one_device_read_and_holes_between_runs_are_zeros"),
    ),
    // Data that moves.
    mutant("foldrush", "a fold merges data that may still move", Histories(How::Moving, 0)),
    mutant("moveblind", "a Move takes the place of a newer write", Histories(How::Moving, 0)),
    mutant(
        "moveapart",
        "a flush covers data that moved, and not the Move",
        Histories(How::Moving, 0),
    ),
    mutant("noexcuse", "a Move excuses nothing in recovery", Histories(How::Moving, 0)),
    mutant(
        "excusecut",
        "a Move excuses though it is cut itself",
        Killer::Script("a_move_that_is_cut", scripts::a_move_that_is_cut),
    ),
    mutant(
        "movetwice",
        "a replay applies a Move that the checkpoint has",
        Histories(How::Moving, 0),
    ),
    mutant(
        "movefolded",
        "a replay folds between a record and the Move of its data",
        Histories(How::Moving, 80),
    ),
    mutant(
        "movelate",
        "what a Move after the freeze names is given out one checkpoint early",
        Killer::Script("a_move_after_the_freeze", scripts::a_move_after_the_freeze),
    ),
    // Checksums, one structure each.
    mutant(
        "anydata",
        "a read gives out what does not match its checksum",
        Planted("exploration", "data_that_is_given_out_unverified_is_found"),
    ),
    mutant(
        "runblind",
        "a read of one run gives out what does not match its checksum",
        Test("reads", "a_damaged_block_in_the_middle_is_an_error_and_its_neighbours_are_read"),
    ),
    mutant(
        "nodeblind",
        "the checksum of a map node is not compared",
        Unit("cow-format", "tests::map_node_round_trip_and_every_bit"),
    ),
    mutant(
        "blobblind",
        "the checksum of kill rows and properties is not compared",
        Unit("cow-format", "tests::blob_chain_round_trip_and_every_bit"),
    ),
    mutant(
        "frameblind",
        "the checksum of the records in a frame is not compared",
        Unit("cow-format", "tests::frame_round_trip_chain_and_every_bit"),
    ),
    mutant(
        "cpblind",
        "the checksum of the body of a checkpoint is not compared",
        Unit("cow-format", "tests::checkpoint_round_trip_and_damage"),
    ),
    mutant(
        "sbblind",
        "the checksum of a superblock is not compared",
        Unit("cow-format", "tests::superblock_round_trip_and_every_bit"),
    ),
    mutant(
        "bitmapblind",
        "the checksum of a bitmap page is not compared",
        Unit("cow-alloc", "tests::pages::every_flipped_bit_and_every_false_descriptor_is_refused"),
    ),
    mutant(
        "tableblind",
        "the checksum of a node table page is not compared",
        Test("node_table", "a_page_that_is_not_what_was_written_is_named"),
    ),
    mutant(
        "pageempty",
        "a writer takes a bitmap page that is damaged for one of a zone where nothing is",
        Test("repair", "states::a_bad_bitmap_page_keeps_nobody_from_reading"),
    ),
    // What another version has written.
    mutant(
        "frameversion",
        "a frame of another version is taken for the end of the journal",
        Test("unknown_flags", "frames_of_another_version_are_refused"),
    ),
    mutant(
        "entryflags",
        "an entry of a node with flags that nobody knows is taken for a damaged one",
        Test("unknown_flags", "unknown_flags_are_refused"),
    ),
    // Scrubs, comparisons and roots.
    mutant(
        "scrubskip",
        "a scrub that goes on leaves out the block that it goes on from",
        Test("scrub", SCRUB_STEP),
    ),
    mutant(
        "scrubloose",
        "a scrub holds no pin, and calls damaged what was overwritten meanwhile",
        Test("scrub", "what_is_overwritten_meanwhile_is_no_damage"),
    ),
    mutant(
        "diffnext",
        "a comparison whose answer is full goes on one block too late",
        Planted("diffs", "a_broken_comparison_is_noticed"),
    ),
    mutant(
        "difflayer",
        "what is not folded of the second state is not seen",
        Planted("diffs", "a_broken_comparison_is_noticed"),
    ),
    mutant(
        "diffclear",
        "ranges that one state has cleared leave the layers of both out",
        Planted("diffs", "a_broken_comparison_is_noticed"),
    ),
    mutant(
        "rootsince",
        "a root passes over what the first snapshot after an ancestor has written",
        Planted("roots", "a_root_that_misses_a_change_is_noticed"),
    ),
    mutant(
        "roothole",
        "a root passes over what was discarded as a whole since an ancestor",
        Planted("roots", "a_root_that_misses_a_change_is_noticed"),
    ),
    mutant(
        "rootsize",
        "a root takes pages of an ancestor of another size as they are",
        Planted("roots", "a_root_that_misses_a_change_is_noticed"),
    ),
    // Bugs that others have had.
    mutant("fualost", "FUA is answered before it is durable", Planted("known_bugs", PLANTED)),
    mutant(
        "noreserve",
        "writes are admitted without room for their fold",
        Planted("known_bugs", PLANTED),
    ),
    mutant(
        "growlate",
        "a pool says that it is larger before its file is",
        Planted("known_bugs", PLANTED),
    ),
    mutant(
        "holeless",
        "a comparison leaves out what is a hole in the second state",
        Planted("known_bugs", PLANTED),
    ),
    // Clients beside each other, and threads.
    mutant(
        "foldblind",
        "a read beside a fold takes its view from before it",
        Planted("linear", PLANTED),
    ),
    mutant(
        "latefence",
        "a write that waited is not fenced by the rollback that came meanwhile",
        Planted("linear", PLANTED),
    ),
    mutant(
        "noturn",
        "a write of part of a block does not wait for another one of that block",
        Planted("linear", PLANTED),
    ),
    mutant("nowake", "whoever submits wakes nobody", Killer::Threads(PLANTED)),
    mutant("sleepblind", "the reactor sleeps though something came", Killer::Threads(PLANTED)),
    mutant("noclear", "a notification that was taken stays", Killer::Threads(PLANTED)),
    mutant("forgetful", "a queue that ends forgets who waits in it", Killer::Threads(PLANTED)),
    mutant("answertwice", "a request is answered twice", Killer::Threads(PLANTED)),
    // Repair.
    mutant(
        "lossmute",
        "a repair does not tell what it has lost",
        Test("corruption", "repair_of_bad_sectors"),
    ),
    mutant(
        "knownlost",
        "a repair gives up a pointer that newer maps know",
        Test("repair", "every_block_of_a_closed_pool"),
    ),
    mutant(
        "cutmore",
        "a repair gives up the map node beside the one that cannot be read",
        Test("corruption", "repair_of_bad_sectors"),
    ),
    mutant(
        "noagain",
        "a repair cuts out what can be read again",
        Test("repair", "states::what_reads_again_is_not_cut_out"),
    ),
    mutant(
        "builtloose",
        "a repair builds upon a checkpoint that is in a cache only",
        Test("repair", "states::what_is_built_upon_is_durable"),
    ),
    mutant(
        "newloose",
        "a repair writes its checkpoint without the flush before it",
        Test("repair", "a_crash_at_every_step"),
    ),
    mutant(
        "cleanloose",
        "a repair that finds nothing to be done does not flush",
        Test("repair", "states::what_is_found_in_order_is_durable"),
    ),
    mutant(
        "areabeside",
        "a repair leaves a damaged checkpoint area beside the one that it writes",
        Test("repair", "states::a_damaged_area_is_wiped_before_the_one_beside_it_is_written"),
    ),
    mutant(
        "homeused",
        "a repair writes pages to the homes in use",
        Test("repair", "states::a_device_that_fails"),
    ),
    mutant(
        "namedtaken",
        "a repair writes where only the journal says that data is",
        Test("repair", "states::blocks_that_only_the_journal_names_are_left_alone"),
    ),
    mutant(
        "pairapart",
        "a repair counts a node that is being reclaimed and its only child each by itself",
        Unit("cow-sim", FOUND),
    ),
    mutant(
        "pastlost",
        "a repair calls lost what lies past the end of a volume",
        Unit("cow-sim", FOUND),
    ),
    mutant(
        "tornwhole",
        "a repair writes its checkpoint over a damaged one, which a torn write makes whole",
        Unit("cow-sim", FOUND),
    ),
];
