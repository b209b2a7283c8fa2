#![allow(clippy::unwrap_used)]

use super::*;

fn write(offset: u64) -> Cmd {
    Cmd::Write { volume: "v".to_owned(), offset, len: 4096, token: 1 + offset, fua: false }
}

/// Two writes that were in flight together and were answered in the other order; then a third.
fn answered_crosswise(ack: AckMode) -> (Oracle, State) {
    let mut oracle = Oracle::new(ack);
    let mut empty = State::default();
    let create = Cmd::Create { name: "v".to_owned(), size: 1 << 20 };
    empty.apply(&create, &Kept::Guess(0)).unwrap();
    oracle.settle(empty.clone());
    oracle.begin(OpId(1), &write(0));
    oracle.begin(OpId(2), &write(4096));
    oracle.finish(OpId(2), &Ok(Reply::Done)).unwrap();
    oracle.finish(OpId(1), &Ok(Reply::Done)).unwrap();
    oracle.begin(OpId(3), &write(8192));
    oracle.finish(OpId(3), &Ok(Reply::Done)).unwrap();
    (oracle, empty)
}

fn holding(empty: &State, offsets: &[u64]) -> State {
    let mut state = empty.clone();
    for &offset in offsets {
        state.apply(&write(offset), &Kept::Guess(0)).unwrap();
    }
    state
}

#[test]
fn writes_are_cut_as_they_were_answered_where_the_answer_is_the_order() {
    for ack in [AckMode::Writeback, AckMode::Writethrough] {
        let (oracle, empty) = answered_crosswise(ack);
        for fine in [&[][..], &[4096], &[4096, 0], &[4096, 0, 8192]] {
            oracle.judge(&holding(&empty, fine), false).unwrap();
        }
        oracle.judge(&holding(&empty, &[0]), false).unwrap_err();
        oracle.judge(&holding(&empty, &[0, 8192]), false).unwrap_err();
    }
}

/// One frame holds both, and its waiters are told in any order.
#[test]
fn journaled_writes_that_were_in_flight_together_are_cut_in_either_order() {
    let (oracle, empty) = answered_crosswise(AckMode::Journaled);
    for fine in [&[][..], &[0], &[4096], &[4096, 0], &[4096, 0, 8192]] {
        oracle.judge(&holding(&empty, fine), false).unwrap();
    }
    for lost in [&[8192][..], &[0, 8192], &[4096, 8192]] {
        oracle.judge(&holding(&empty, lost), false).unwrap_err();
    }
    // The process died: all that was acknowledged is in the file.
    oracle.judge(&holding(&empty, &[0]), true).unwrap_err();
}
