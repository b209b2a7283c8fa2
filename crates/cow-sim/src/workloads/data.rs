//! Writes, discards, flushes and checkpoints.

use super::*;
use crate::scripts::{discard, flush};

fn zero(volume: &str, offset: u64, len: u64, fua: bool) -> Cmd {
    Cmd::Zero { volume: volume.to_owned(), offset, len, discard: false, fua }
}

fn fua(volume: &str, lba: u64, blocks: u64, token: u64) -> Cmd {
    let (offset, len) = (lba * 4096, blocks * 4096);
    Cmd::Write { volume: volume.to_owned(), offset, len, token, fua: true }
}

pub(super) fn all() -> Vec<Workload> {
    let many = |base: u64| all_at_once((0..12).map(|i| write("a", 7 * i, 1, base + i)).collect());
    let mut wraps = Vec::new();
    for round in 0..12 {
        // Records of single blocks fill a frame of their own with each flush.
        wraps.push(all_at_once(vec![write("a", 2 * round, 1, 1000 + round), flush("a")]));
        if round % 4 == 3 {
            wraps.push(one(Cmd::Checkpoint));
        }
    }
    let mut journaled = workload(
        "journaled writes",
        two_states(),
        vec![
            one(write("a", 0, 2, 200)),
            all_at_once(vec![write("a", 1, 1, 210), write("b", 0, 1, 220)]),
            one(flush("a")),
            one(write("a", 2, 1, 230)),
            one(discard("a", 0, 8)),
        ],
    );
    journaled.ack = AckMode::Journaled;
    vec![
        workload("twelve writes", two_states(), vec![many(1000), one(flush("a")), many(2000)]),
        workload(
            "overwrites without a flush",
            two_states(),
            (0..5).map(|round| one(write("a", 0, 2, 1000 + 10 * round))).collect(),
        ),
        workload(
            "write zeroes",
            two_states(),
            vec![
                one(zero("a", 0, 8192, false)),
                all_at_once(vec![
                    zero("a", 80_000 * 4096 + 512, 6000, true),
                    write("b", 1, 1, 200),
                ]),
                one(flush("b")),
                one(zero("b", 0, 64 * MIB, false)),
            ],
        ),
        workload(
            "fua alone",
            two_states(),
            vec![one(fua("a", 0, 1, 200)), one(fua("b", 0, 2, 210)), one(fua("a", 0, 1, 220))],
        ),
        workload(
            "fua beside a flush",
            two_states(),
            vec![
                all_at_once(vec![fua("a", 0, 1, 200), write("a", 9, 1, 210), flush("b")]),
                all_at_once(vec![write("a", 0, 1, 220), fua("a", 20, 1, 230)]),
            ],
        ),
        workload(
            "sectors of one block",
            two_states(),
            (0..4)
                .map(|i| Cmd::Write {
                    volume: "a".into(),
                    offset: 512 * i,
                    len: 512,
                    token: 200 + i,
                    fua: i == 3,
                })
                .map(one)
                .collect(),
        ),
        workload(
            "checkpoints with nothing between",
            two_states(),
            vec![one(Cmd::Checkpoint), one(Cmd::Checkpoint), one(Cmd::Checkpoint)],
        ),
        workload(
            "checkpoint under writes",
            two_states(),
            vec![
                all_at_once(vec![
                    write("a", 3, 1, 200),
                    Cmd::Checkpoint,
                    write("a", 3, 1, 210),
                    write("b", 3, 1, 220),
                    flush("b"),
                ]),
                all_at_once(vec![Cmd::Checkpoint, discard("a", 0, 4), write("b", 4, 1, 230)]),
            ],
        ),
        workload("the ring wraps", two_states(), wraps),
        workload("close", two_states(), vec![one(write("a", 5, 1, 200)), one(Also::Close)]),
        journaled,
    ]
}
