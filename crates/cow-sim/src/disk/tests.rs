use super::*;
use crate::value::{Value, fill};

fn write(disk: &mut SimDisk, id: u64, at: u64, tokens: &[u64]) {
    let mut buf = Buf::zeroed(tokens.len());
    for (index, &token) in tokens.iter().enumerate() {
        fill(token, buf.block_mut(index));
    }
    disk.issue(Action::Write {
        id: IoId(id),
        at: Phys(at),
        bufs: vec![BufSlice::whole(buf)],
        lazy: false,
    });
}

fn value(disk: &SimDisk, block: u64) -> Value {
    Value::of(&disk.peek(block))
}

#[test]
fn a_flush_covers_only_what_was_complete_when_it_was_emitted() {
    let mut disk = SimDisk::new(100);
    write(&mut disk, 1, 10, &[1]);
    disk.complete(0);
    write(&mut disk, 2, 11, &[2]);
    disk.issue(Action::Flush { id: IoId(3) });
    disk.complete(0); // the write, while the flush is on its way
    disk.complete(0);
    let after = disk.crash(Crash::LoseAll);
    assert_eq!(value(&after, 10), Value::Token(1));
    assert_eq!(value(&after, 11), Value::Zero);
    assert_eq!(value(&disk, 11), Value::Token(2));
    assert_eq!(value(&disk.crash(Crash::Kill(1)), 11), Value::Token(2));
}

#[test]
fn a_crash_drops_reorders_and_tears() {
    let mut disk = SimDisk::new(100);
    write(&mut disk, 1, 10, &[1, 2]);
    disk.complete(0);
    write(&mut disk, 2, 10, &[3, 4]);
    assert_eq!(disk.pending_writes(), 2);
    let first = disk.crash(Crash::Writes(0b01));
    assert_eq!((value(&first, 10), value(&first, 11)), (Value::Token(1), Value::Token(2)));
    let second = disk.crash(Crash::Writes(0b10));
    assert_eq!((value(&second, 10), value(&second, 11)), (Value::Token(3), Value::Token(4)));
    let (mut split, mut torn) = (false, false);
    for seed in 0..400 {
        let how = if seed % 2 == 0 { Crash::Sectors(seed) } else { Crash::Blocks(seed) };
        let disk = disk.crash(how);
        torn |= matches!(value(&disk, 10), Value::Mixed(..));
        split |= value(&disk, 10) == Value::Token(1) && value(&disk, 11) == Value::Token(4);
    }
    assert!(split && torn);
}

#[test]
fn a_failed_flush_is_not_made_good_by_the_next() {
    let mut disk = SimDisk::new(100);
    let nth = NthFault { class: Class::Flush, nth: 0, sticky: false, errno: EIO };
    disk.set_faults(Faults { nth: vec![nth], ..Faults::default() }, 1);
    write(&mut disk, 1, 10, &[1]);
    disk.complete(0);
    for id in [2, 3] {
        disk.issue(Action::Flush { id: IoId(id) });
        disk.complete(0);
    }
    assert_eq!(value(&disk, 10), Value::Token(1));
    assert_eq!(value(&disk.crash(Crash::LoseAll), 10), Value::Zero);
}

#[test]
fn faults_of_the_engine_are_seen() {
    let mut disk = SimDisk::new(100);
    write(&mut disk, 1, 10, &[1, 2, 3]);
    write(&mut disk, 2, 12, &[4]);
    write(&mut disk, 3, 99, &[5, 6]);
    let bugs = disk.take_bugs();
    assert_eq!(bugs.len(), 2, "{bugs:?}");
    disk.complete(0);
    disk.complete(0);
    disk.issue(Action::Discard { id: IoId(4), at: Phys(10), blocks: 2 });
    disk.complete(1);
    assert!(matches!(value(&disk, 10), Value::Mixed(..)));
    assert_eq!(value(&disk, 12), Value::Token(4));
}

#[test]
fn a_misread_happens_once_and_a_reread_is_right() {
    let mut disk = SimDisk::new(100);
    write(&mut disk, 1, 10, &[1]);
    disk.complete(0);
    disk.set_faults(Faults { misread_ppm: 1_000_000, ..Faults::default() }, 1);
    for (bypass_cache, right) in [(false, false), (true, true)] {
        let (id, buf) = (IoId(9), Buf::zeroed(1));
        disk.issue(Action::Read { id, at: Phys(10), buf, bypass_cache });
        let Event::IoDone { buf: Some(buf), .. } = disk.complete(0) else { panic!("no buffer") };
        assert_eq!(Value::of(buf.block(0)) == Value::Token(1), right);
    }
}

/// The rest of a transfer comes later. A crash finds a prefix, and a flush in between covers it.
#[test]
fn a_short_write_goes_on_and_a_flush_covers_what_was_moved() {
    let (mut torn, mut whole) = (false, false);
    for seed in 0..100 {
        let mut disk = SimDisk::new(100);
        disk.set_faults(Faults { short_ppm: 1_000_000, ..Faults::default() }, seed);
        write(&mut disk, 1, 10, &[1, 2]);
        assert!(disk.falls_short(0));
        disk.issue(Action::Flush { id: IoId(2) });
        disk.complete(1);
        let after = disk.crash(Crash::LoseAll);
        torn |= matches!(value(&after, 10), Value::Mixed(..));
        whole |= value(&after, 10) == Value::Token(1);
        assert_ne!(value(&after, 11), Value::Token(2));
        assert_ne!(value(&after, 10), Value::Zero);
        disk.set_faults(Faults::default(), 0);
        assert!(!disk.falls_short(0));
        disk.complete(0);
        assert_eq!((value(&disk, 10), value(&disk, 11)), (Value::Token(1), Value::Token(2)));
        // No flush was issued after that.
        assert_ne!(value(&disk.crash(Crash::LoseAll), 11), Value::Token(2));
    }
    assert!(torn && whole);
}

/// A read that goes on does not see again what it has passed.
#[test]
fn a_short_read_goes_on() {
    let mut disk = SimDisk::new(100);
    write(&mut disk, 1, 10, &[1, 2]);
    disk.complete(0);
    disk.set_faults(Faults { short_ppm: 1_000_000, ..Faults::default() }, 1);
    disk.issue(Action::Read {
        id: IoId(2),
        at: Phys(10),
        buf: Buf::zeroed(2),
        bypass_cache: false,
    });
    assert!(disk.falls_short(0));
    disk.set_faults(Faults::default(), 0);
    write(&mut disk, 3, 10, &[3, 4]);
    disk.complete(1);
    let Event::IoDone { buf: Some(buf), .. } = disk.complete(0) else { panic!("no buffer") };
    assert_eq!(Value::of(buf.block(0)), Value::Token(1));
    assert_eq!(Value::of(buf.block(1)), Value::Token(4));
}

/// The file system below has room for a part: that is written, in one transfer or in several, and then there is none.
#[test]
fn a_write_without_room_for_all_takes_what_there_is() {
    let (mut torn, mut at_once) = (false, false);
    for seed in 0..60 {
        let mut disk = SimDisk::new(100);
        let short_ppm = if seed % 3 == 0 { 0 } else { 1_000_000 };
        disk.set_faults(Faults { short_ppm, ..Faults::default() }, seed);
        disk.limit_room(2);
        write(&mut disk, 1, 10, &[1, 2, 3, 4]);
        let mut parts = 0;
        while disk.falls_short(0) {
            parts += 1;
            torn |= matches!(value(&disk, 11), Value::Mixed(..));
        }
        let Event::IoDone { result, .. } = disk.complete(0) else { panic!("no completion") };
        assert_eq!((result, disk.room()), (Err(IoFailure { errno: 28 }), Some(0)));
        at_once |= parts == 0;
        if parts > 0 {
            assert_eq!((value(&disk, 10), value(&disk, 11)), (Value::Token(1), Value::Token(2)));
        }
        // The two have their space, and no other has.
        disk.set_faults(Faults::default(), 0);
        for (at, errno) in [(10, None), (11, None), (12, Some(28))] {
            write(&mut disk, 2, at, &[5]);
            let Event::IoDone { result, .. } = disk.complete(0) else { panic!("no completion") };
            assert_eq!(result.err().map(|failure| failure.errno), errno, "block {at}");
        }
    }
    assert!(torn && at_once);
}

/// Before a block that cannot be moved, others are.
#[test]
fn a_transfer_goes_on_up_to_what_it_cannot_move() {
    let faults =
        Faults { short_ppm: 1_000_000, bad: 12..13, unreadable: 22..23, ..Faults::default() };
    for seed in 0..20 {
        let mut disk = SimDisk::new(100);
        write(&mut disk, 1, 20, &[6, 7, 8, 9]);
        disk.complete(0);
        disk.set_faults(faults.clone(), seed);
        write(&mut disk, 2, 10, &[1, 2, 3, 4]);
        let (id, buf) = (IoId(3), Buf::zeroed(4));
        disk.issue(Action::Read { id, at: Phys(20), buf, bypass_cache: false });
        while disk.falls_short(0) {}
        while disk.falls_short(1) {}
        let Event::IoDone { result, buf, .. } = disk.complete(1) else { panic!("no completion") };
        let buf = buf.unwrap();
        assert!(result.is_err());
        assert_eq!(
            (Value::of(buf.block(1)), Value::of(buf.block(2))),
            (Value::Token(7), Value::Zero)
        );
        let Event::IoDone { result, .. } = disk.complete(0) else { panic!("no completion") };
        assert!(result.is_err());
        assert_eq!((value(&disk, 10), value(&disk, 11)), (Value::Token(1), Value::Token(2)));
    }
}

#[test]
fn what_is_slow_is_overtaken() {
    let mut disk = SimDisk::new(100);
    disk.set_faults(Faults { slow_ppm: 1_000_000, ..Faults::default() }, 1);
    write(&mut disk, 1, 10, &[1]);
    disk.set_faults(Faults::default(), 1);
    write(&mut disk, 2, 11, &[2]);
    assert_eq!((disk.due().collect::<Vec<_>>(), disk.next_due_ns()), (vec![1], Some(0)));
    disk.complete(1);
    assert_eq!(disk.due().count(), 0);
    let due = disk.next_due_ns().unwrap();
    assert!(due > 0);
    disk.at_time(due);
    assert!(disk.due().eq([0]));
}
