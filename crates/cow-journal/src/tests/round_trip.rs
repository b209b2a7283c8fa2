//! What was appended comes back, in order and in whole groups.

use super::*;
use cow_format::frame::FLAG_MORE;
use proptest::prelude::*;

/// Record sizes of one group.
fn group() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        6 => prop::collection::vec(1usize..300, 1..20),
        2 => prop::collection::vec(1usize..40, 200..600),
        1 => prop::collection::vec(20_000usize..60_000, 1..6),
    ]
}

fn records(sizes: &[usize], id: &mut u64) -> Vec<Record> {
    sizes
        .iter()
        .map(|&size| {
            *id += 1;
            if size > 256 { long(*id, size) } else { map_set(*id, size) }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Many laps with a moving retained position; at each point the scan from there gives
    /// exactly what was sealed since.
    #[test]
    fn groups_come_back(
        blocks in 160u64..400,
        steps in prop::collection::vec((group(), any::<bool>(), any::<bool>()), 40..160),
    ) {
        let mut disk = Disk::new(blocks);
        let mut writer = disk.writer(1, ORIGIN, ORIGIN);
        let (mut id, mut laps, mut last_block) = (0, 0, 0);
        // Appended since the tail, with the frame that each group was said to end in.
        let mut kept: Vec<(Vec<Record>, FrameSeq)> = Vec::new();
        let mut tail = ORIGIN;
        for (sizes, seal, check) in steps {
            let group = records(&sizes, &mut id);
            let seq = match writer.append(&group, Reserve::Normal) {
                Ok(seq) => seq,
                Err(AppendError::TooLarge { .. }) => continue,
                Err(AppendError::RingFull) => {
                    writer.seal();
                    disk.drain(&mut writer);
                    tail = writer.next();
                    writer.set_retained(tail);
                    kept.clear();
                    prop_assert_eq!(writer.used_blocks(), 0);
                    writer.append(&group, Reserve::Normal).unwrap()
                }
            };
            kept.push((group, seq));
            if seal {
                writer.seal();
                prop_assert_eq!(writer.last_sealed(), seq);
            }
            disk.drain(&mut writer);
            if check && writer.open_records() == 0 {
                let scan = disk.scan(tail, &[]);
                let expected: Vec<_> = kept.iter().flat_map(|(g, _)| g.clone()).collect();
                prop_assert_eq!(scan.records(), expected);
                prop_assert_eq!(scan.scanner.next(), writer.next());
                prop_assert_eq!(complete_prefix(&scan.frames), scan.frames.len());
                check_groups(&scan, &kept);
            }
            laps += u64::from(writer.next().block < last_block);
            last_block = writer.next().block;
        }
        prop_assume!(laps > 0);
    }
}

/// Each group ends in the frame that `append` named, and a cut at any frame keeps whole groups.
fn check_groups(scan: &Scan, kept: &[(Vec<Record>, FrameSeq)]) {
    for (cut, frame) in scan.frames.iter().enumerate() {
        let whole = complete_prefix(&scan.frames[..=cut]);
        assert_eq!(whole == cut + 1, frame.flags & FLAG_MORE == 0);
        let count: usize =
            scan.frames[..whole].iter().map(|frame| records_of(frame).unwrap().len()).sum();
        let limit = whole.checked_sub(1).map_or(FrameSeq(0), |last| scan.frames[last].seq);
        let expected: usize =
            kept.iter().filter(|(_, seq)| *seq <= limit).map(|(group, _)| group.len()).sum();
        assert_eq!(count, expected);
    }
}

#[test]
fn a_full_frame_is_sealed_at_256_records() {
    let disk = Disk::new(256);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    for _ in 0..MAX_RECORDS {
        assert_eq!(writer.append(&[Record::Marker], Reserve::Normal), Ok(FrameSeq(1)));
    }
    assert_eq!((writer.open_records(), writer.last_sealed()), (0, FrameSeq(1)));
    let group = vec![Record::Marker; MAX_RECORDS + 1];
    assert_eq!(writer.append(&group, Reserve::Normal), Ok(FrameSeq(3)));
    let sealed = writer.take_sealed();
    let flags = |index: usize| Frame::decode(&sealed[index].buf, TAG, sealed[index].at).unwrap().0;
    assert_eq!((flags(1).flags, flags(1).record_count), (FLAG_MORE, 256));
    assert_eq!((flags(2).flags, flags(2).record_count), (0, 1));
}

#[test]
fn frames_of_one_block_go_around_without_pads() {
    let mut disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    let mut tail = ORIGIN;
    for lap in 0..1000 {
        let before = writer.next();
        writer.append(&[map_set(lap, 1)], Reserve::Normal).unwrap();
        writer.seal();
        assert_eq!(disk.drain(&mut writer).len(), 1);
        assert_eq!(disk.scan(tail, &[]).scanner.next(), writer.next());
        if lap % 20 == 19 {
            tail = before;
            writer.set_retained(tail);
        }
    }
}

#[test]
fn a_pad_inside_of_a_group_does_not_end_it() {
    let mut disk = Disk::new(200);
    // Seven blocks are left at the end: the second frame of the group needs a pad before it.
    let from = JournalPos { block: 177, ..ORIGIN };
    let mut writer = disk.writer(1, from, from);
    let group = [long(1, 60_000), long(2, 60_000), long(3, 10)];
    assert_eq!(writer.append(&group, Reserve::Normal), Ok(FrameSeq(3)));
    assert_eq!(disk.drain(&mut writer).iter().map(|s| s.blocks).collect::<Vec<_>>(), [15, 8, 15]);
    let scan = disk.scan(from, &[]);
    assert_eq!(scan.records(), group);
    assert_eq!(complete_prefix(&scan.frames[..1]), 0);
    let pad = Frame { flags: cow_format::frame::FLAG_PAD, ..scan.frames[0].clone() };
    let with_pad = [scan.frames[0].clone(), pad, scan.frames[1].clone()];
    assert_eq!(complete_prefix(&with_pad[..2]), 0);
    assert_eq!(complete_prefix(&with_pad), 3);
}
