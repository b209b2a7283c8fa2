//! What must not come back: stale laps, cut histories, broken chains, torn frames.

use super::*;
use cow_format::FormatError;
use cow_format::frame::FLAG_PAD;

/// Writes `count` frames of one record each and gives the positions after them.
fn fill(disk: &mut Disk, writer: &mut JournalWriter, ids: std::ops::Range<u64>) -> Vec<JournalPos> {
    ids.map(|id| {
        writer.append(&[map_set(id, 1)], Reserve::Normal).unwrap();
        writer.seal();
        disk.drain(writer);
        writer.next()
    })
    .collect()
}

#[test]
fn frames_of_an_earlier_lap_end_the_scan() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    for round in 0..30 {
        let tail = writer.next();
        writer.set_retained(tail);
        fill(&mut disk, &mut writer, round * 10..round * 10 + 7);
        let scan = disk.scan(tail, &[]);
        assert_eq!(scan.frames.len(), 7);
        if round > 10 {
            assert!(matches!(scan.reason, EndReason::Seq { .. }), "{:?}", scan.reason);
        }
    }
}

#[test]
fn cut_frames_never_return() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    let after = fill(&mut disk, &mut writer, 0..10);
    assert_eq!(disk.scan(ORIGIN, &[]).frames.len(), 10);
    // Recovery accepts six frames, fences, and crashes before it has written anything else.
    let cut = after[5];
    let fence = Fence { end: FrameSeq(6), chain: cut.chain, epoch: Epoch(2) };
    let scan = disk.scan(ORIGIN, &[fence]);
    assert_eq!(scan.scanner.next(), cut);
    assert_eq!(scan.reason, EndReason::Epoch { seq: FrameSeq(7), epoch: Epoch(1) });
    assert_eq!((scan.scanner.stable(), scan.scanner.epoch()), (FrameSeq(6), Epoch(2)));
    // The same from a checkpoint whose tail is the cut, and from inside of the prefix.
    assert_eq!(disk.scan(cut, &[fence]).frames.len(), 0);
    assert_eq!(disk.scan(after[3], &[fence]).frames.len(), 2);
    // A second cut at the same place.
    let again = Fence { epoch: Epoch(3), ..fence };
    assert_eq!(disk.scan(ORIGIN, &[fence, again]).scanner.epoch(), Epoch(3));
    // One new frame of the new epoch: the old ones after it do not chain.
    let mut writer = disk.writer(3, cut, ORIGIN);
    fill(&mut disk, &mut writer, 50..51);
    let scan = disk.scan(ORIGIN, &[fence, again]);
    assert_eq!((scan.frames.len(), scan.reason), (7, EndReason::Chain { seq: FrameSeq(8) }));
    // A later checkpoint needs no fence: the epoch of the frames themselves is the floor.
    assert_eq!(disk.scan(ORIGIN, &[]).frames.len(), 7);
}

#[test]
fn a_fence_of_another_history_says_nothing() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    fill(&mut disk, &mut writer, 0..10);
    let foreign = Fence { end: FrameSeq(6), chain: 1, epoch: Epoch(9) };
    let scan = disk.scan(ORIGIN, &[foreign]);
    assert_eq!((scan.frames.len(), scan.scanner.stable()), (10, FrameSeq(0)));
}

#[test]
fn a_missing_frame_breaks_the_chain() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    let after = fill(&mut disk, &mut writer, 0..3);
    // The same numbers again with other content in the third frame, as after a lost write.
    let mut other = disk.writer(1, after[1], ORIGIN);
    fill(&mut disk, &mut other, 9..10);
    fill(&mut disk, &mut writer, 3..5);
    let scan = disk.scan(ORIGIN, &[]);
    assert_eq!((scan.frames.len(), scan.reason), (3, EndReason::Chain { seq: FrameSeq(4) }));
}

#[test]
fn every_flipped_byte_of_a_frame_ends_the_scan() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    let after = fill(&mut disk, &mut writer, 0..1);
    writer.append(&[map_set(7, 256), long(8, 6000)], Reserve::Normal).unwrap();
    writer.seal();
    disk.drain(&mut writer);
    assert_eq!(disk.scan(ORIGIN, &[]).frames.len(), 2);
    let from = after[0].block as usize * BLOCK_SIZE;
    let len = disk.scan(ORIGIN, &[]).frames[1].payload.len() + cow_format::frame::HEADER_LEN;
    for at in (from..from + len).step_by(13).chain(from..from + 64) {
        disk.bytes[at] ^= 0x10;
        let scan = disk.scan(ORIGIN, &[]);
        assert_eq!((scan.frames.len(), scan.scanner.next()), (1, after[0]), "byte {at}");
        disk.bytes[at] ^= 0x10;
    }
    // A torn write: the first sectors arrived and the rest did not.
    for sector in 1..(len / 512) {
        let mut torn = Disk { ring: disk.ring, bytes: disk.bytes.clone() };
        torn.bytes[from + sector * 512..from + len].fill(0);
        let scan = torn.scan(ORIGIN, &[]);
        assert!(matches!(scan.reason, EndReason::Format(_)) && scan.frames.len() == 1);
    }
}

#[test]
fn hostile_input_does_not_panic() {
    let ring = Ring { start: Phys(START), blocks: 64 };
    let from = JournalPos { block: u64::MAX, seq: FrameSeq(u64::MAX), chain: 0 };
    let fence = Fence { end: FrameSeq(u64::MAX), chain: 0, epoch: Epoch(1) };
    let mut scanner = Scanner::new(ring, TAG, from, &[fence]);
    let (at, blocks) = scanner.want();
    assert!(at.0 >= START && at.0 + blocks <= START + 64);
    for len in [0, 1, 63, 64, 4096] {
        assert!(matches!(scanner.accept(&vec![0; len]), Step::End(EndReason::Format(_))));
    }
    let frame = |seq, durable, flags, blocks| Frame {
        flags,
        seq: FrameSeq(seq),
        chain: 0,
        durable: FrameSeq(durable),
        epoch: Epoch(1),
        record_count: 1,
        blocks,
        payload: Vec::new(),
    };
    let pad = cow_format::frame::FLAG_PAD;
    for bad in [frame(u64::MAX, 0, 0, 1), frame(u64::MAX, u64::MAX, pad, u16::MAX)] {
        assert!(matches!(scanner.accept(&bad.encode(TAG).0), Step::End(_)));
    }
    let mut scanner = Scanner::new(ring, TAG, JournalPos { chain: 0, ..ORIGIN }, &[]);
    for bad in [frame(1, 1, 0, 1), frame(1, 0, pad, 65), frame(1, 0, pad, 64)] {
        assert!(matches!(scanner.accept(&bad.encode(TAG).0), Step::End(_)));
    }
    assert!(records_of(&frame(1, 0, 0, 1)).is_err(), "a record is counted that is not there");
}

/// A frame that would go on but for flags that nobody knows is no end like others. One of another lap,
/// history or epoch may have any flags.
#[test]
fn unknown_flags_are_no_end() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(2, ORIGIN, ORIGIN);
    fill(&mut disk, &mut writer, 0..3);
    let next = writer.next();
    let at = Phys(START + next.block);
    let scan = |change: &dyn Fn(&mut Frame)| {
        let mut frame = Frame {
            flags: 0,
            seq: next.seq,
            chain: next.chain,
            durable: FrameSeq(0),
            epoch: Epoch(2),
            record_count: 0,
            blocks: 1,
            payload: Vec::new(),
        };
        change(&mut frame);
        let mut disk = Disk { ring: disk.ring, bytes: disk.bytes.clone() };
        disk.put(&Sealed { seq: next.seq, at, buf: frame.encode(TAG).0, blocks: 1 });
        let scan = disk.scan(ORIGIN, &[]);
        (scan.frames.len(), scan.reason)
    };
    let goes_on = scan(&|_| {});
    assert_eq!(goes_on.0, 4);
    for bit in 2..16 {
        let (what, number, bits) = ("journal frame", next.seq.0, 1 << bit);
        let unknown = FormatError::Flags { what, number, at, bits };
        assert_eq!(scan(&|frame| frame.flags = 1 << bit), (3, unknown.clone().into()));
        let pad = FLAG_PAD | 1 << bit;
        assert_eq!(scan(&|frame| frame.flags = pad), (3, unknown.into()));
        let flag = |frame: &mut Frame| frame.flags = 1 << bit;
        let stale = scan(&|frame| (flag(frame), frame.seq = FrameSeq(1)).1);
        assert!(matches!(stale, (3, EndReason::Seq { .. })), "{stale:?}");
        let other = scan(&|frame| (flag(frame), frame.chain ^= 1).1);
        assert!(matches!(other, (3, EndReason::Chain { .. })), "{other:?}");
        let cut = scan(&|frame| (flag(frame), frame.epoch = Epoch(1)).1);
        assert!(matches!(cut, (3, EndReason::Epoch { .. })), "{cut:?}");
    }
}
