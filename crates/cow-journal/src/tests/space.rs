//! Room in the ring, the reserve, and the durable position.

use super::*;

/// Appends and seals records of one block until the ring says no.
fn fill(writer: &mut JournalWriter, reserve: Reserve) -> u64 {
    let mut frames = 0;
    while writer.append(&[map_set(frames, 1)], reserve).is_ok() {
        writer.seal();
        frames += 1;
    }
    frames
}

#[test]
fn the_reserve_is_for_the_privileged() {
    for blocks in [64, 100, 8192] {
        for start in [0, 1, blocks / 2, blocks - 1] {
            let disk = Disk::new(blocks);
            let from = JournalPos { block: start, ..ORIGIN };
            let mut writer = disk.writer(1, from, from);
            assert_eq!(fill(&mut writer, Reserve::Normal), blocks - 1 - 32);
            assert_eq!(
                writer.append(&[Record::Marker], Reserve::Normal),
                Err(AppendError::RingFull)
            );
            assert_eq!(fill(&mut writer, Reserve::Privileged), 32);
            assert_eq!(writer.seal_marker(), Err(AppendError::RingFull));
            assert_eq!((writer.used_blocks(), writer.capacity()), (blocks - 1, blocks));
            // Two frames of the largest size become free: a normal append still has none.
            let tail = JournalPos { block: start + 32, seq: FrameSeq(33), chain: 0 };
            writer.set_retained(tail);
            assert_eq!(
                writer.append(&[Record::Marker], Reserve::Normal),
                Err(AppendError::RingFull)
            );
            assert_eq!(writer.seal_marker(), Ok(FrameSeq(blocks)));
        }
    }
}

#[test]
fn a_refused_group_leaves_no_trace() {
    let mut disk = Disk::new(128);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    writer.append(&[map_set(1, 1)], Reserve::Normal).unwrap();
    let group: Vec<Record> = (0..5).map(|id| long(id, 60_000)).collect();
    writer.append(&group, Reserve::Normal).unwrap();
    writer.append(&[map_set(2, 1)], Reserve::Normal).unwrap();
    let before = (writer.next(), writer.open_records(), writer.used_blocks());
    assert_eq!(writer.append(&group, Reserve::Normal), Err(AppendError::RingFull));
    assert_eq!(before, (writer.next(), writer.open_records(), writer.used_blocks()));
    writer.append(&[map_set(3, 1)], Reserve::Normal).unwrap();
    writer.seal();
    disk.drain(&mut writer);
    let mut expected = vec![map_set(1, 1)];
    expected.extend(group);
    expected.extend([map_set(2, 1), map_set(3, 1)]);
    assert_eq!(disk.scan(ORIGIN, &[]).records(), expected);
}

#[test]
fn what_can_never_fit_is_too_large() {
    let disk = Disk::new(8192);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    let too_large = |result| matches!(result, Err(AppendError::TooLarge { .. }));
    assert!(too_large(writer.append(&[long(1, 65_500)], Reserve::Normal)));
    let eight_mib: Vec<Record> = (0..140).map(|id| long(id, 60_000)).collect();
    assert!(too_large(writer.append(&eight_mib, Reserve::Normal)));
    assert!(writer.append(&eight_mib[..139], Reserve::Normal).is_ok());
    let mut small = Disk::new(64).writer(1, ORIGIN, ORIGIN);
    assert!(too_large(small.append(&eight_mib[..3], Reserve::Normal)));
    assert!(small.append(&eight_mib[..3], Reserve::Privileged).is_ok());
    assert_eq!((writer.open_records(), small.open_records()), (0, 0));
}

#[test]
fn durable_stands_in_later_frames_and_never_inside_a_group() {
    let mut disk = Disk::new(256);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    assert_eq!(writer.seal_marker(), Ok(FrameSeq(1)));
    let group: Vec<Record> = (0..3).map(|id| long(id, 60_000)).collect();
    assert_eq!(writer.append(&group, Reserve::Normal), Ok(FrameSeq(4)));
    let mut seen = Vec::new();
    for seq in [1, 2, 3, 1, 4, 2] {
        writer.set_durable(FrameSeq(seq));
        writer.seal_marker().unwrap();
        seen.push(writer.durable().0);
    }
    assert_eq!(seen, [1, 1, 1, 1, 4, 4]);
    disk.drain(&mut writer);
    let scan = disk.scan(ORIGIN, &[]);
    let durable: Vec<u64> = scan.frames.iter().map(|frame| frame.durable.0).collect();
    assert_eq!(durable, [0, 0, 0, 0, 1, 1, 1, 1, 4, 4]);
    assert_eq!(scan.scanner.stable(), FrameSeq(4));
    assert_eq!(disk.scan(scan.after[7], &[]).scanner.stable(), FrameSeq(8));
}

#[test]
fn an_open_frame_is_sealed_by_seal_marker_as_it_is() {
    let disk = Disk::new(64);
    let mut writer = disk.writer(1, ORIGIN, ORIGIN);
    writer.seal();
    assert!(writer.take_sealed().is_empty());
    assert_eq!(writer.append(&[map_set(1, 3)], Reserve::Normal), Ok(FrameSeq(1)));
    assert_eq!(writer.append(&[], Reserve::Normal), Ok(FrameSeq(1)));
    assert_eq!((writer.next(), writer.seal_marker()), (ORIGIN, Ok(FrameSeq(1))));
    let sealed = writer.take_sealed();
    let frame = Frame::decode(&sealed[0].buf, TAG, sealed[0].at).unwrap().0;
    assert_eq!(records_of(&frame).unwrap(), [map_set(1, 3)]);
    assert_eq!(writer.append(&[], Reserve::Normal), Ok(FrameSeq(1)));
}
