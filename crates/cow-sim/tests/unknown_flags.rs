//! Flags that nobody knows, with right checksums: no open passes over them, none goes on with an older
//! version of what has them, and nothing is written. The checker names them too, and no repair is planned.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{Engine, Error, Op};
use cow_sim::checked::View;
use cow_sim::corruption::flags::{Flags, flags};
use cow_sim::corruption::forge::Forge;
use cow_sim::corruption::specimen::Specimen;
use cow_sim::disk::SimDisk;
use cow_sim::world::World;
use std::collections::BTreeMap;

/// What an open says, and how often it wrote.
fn open(disk: &SimDisk, specimen: &Specimen, read_only: bool) -> (Result<(), Error>, u64) {
    let mut world = World::<Engine>::new(disk.fork_durable(), &specimen.config, 0);
    let opened = world.run_op(Op::Open { read_only }).unwrap().map(drop);
    (opened, world.disk().counts().write.ops)
}

/// All that the checker says.
fn checked(disk: &SimDisk) -> String {
    match cow_check::check(&mut View(disk), &cow_check::Options::default()) {
        Ok(report) => {
            assert!(!report.is_clean());
            report.findings.iter().map(|finding| format!("{finding}\n")).collect()
        }
        Err(refused) => refused.to_string(),
    }
}

/// Nobody opens it, repairs it or writes to it, and all say why.
fn assert_unknown(disk: &SimDisk, specimen: &Specimen, says: &str) {
    for read_only in [false, true] {
        let (opened, writes) = open(disk, specimen, read_only);
        let Err(Error::Unsupported(text)) = &opened else { panic!("{says}: {opened:?}") };
        assert_eq!((text.as_str(), writes), (says, 0), "read only: {read_only}");
    }
    let found = checked(disk);
    assert!(found.contains(says), "{says}: the checker says\n{found}");
    let plan = cow_check::repair::plan(&mut View(disk), &cow_check::Options::default());
    let Err(refused) = plan else { panic!("{says}: a repair would {:?}", plan.map(|p| p.actions)) };
    assert!(refused.to_string().contains(says), "{says}: the repair says {refused}");
}

fn assert_refused(forge: &Forge<'_>, specimen: &Specimen, flags: &Flags, bit: u32) {
    let disk = forge.flip(flags.block, flags.byte + bit as usize / 8, bit % 8);
    let Flags { name, block, .. } = flags;
    let says = format!("{name} at block {block}: unknown flags {:#x}", 1u64 << bit);
    assert_unknown(&disk, specimen, &says);
}

#[test]
fn unknown_flags_are_refused() {
    let specimens = [Specimen::whole().unwrap(), Specimen::scarred().unwrap()];
    let mut tried = BTreeMap::<String, u64>::new();
    for specimen in &specimens {
        let forge = Forge::new(specimen).unwrap();
        // Sealed again without a change, it opens.
        assert_eq!(open(&forge.forge(&[]), specimen, false).0, Ok(()));
        for flags in flags(&forge) {
            for bit in (0..flags.bits).filter(|bit| flags.known >> bit & 1 == 0) {
                assert_refused(&forge, specimen, &flags, bit);
                let kind = flags.name.trim_end_matches(|c: char| c.is_ascii_digit());
                *tried.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }
    println!("{tried:?}");
    assert_eq!(tried.len(), 4, "{tried:?}");
}

/// A frame that goes on with the journal is not its end, whatever version has written it.
#[test]
fn frames_of_another_version_are_refused() {
    let mut tried = 0;
    for specimen in &[Specimen::whole().unwrap(), Specimen::scarred().unwrap()] {
        let forge = Forge::new(specimen).unwrap();
        for &(block, _) in &forge.frames {
            let page = specimen.disk.peek(block);
            let (seq, version) = (u64::from_le_bytes(page[16..24].try_into().unwrap()), 1u16);
            for bit in 0..16 {
                let disk = forge.flip(block, 4 + bit / 8, bit as u32 % 8);
                let found = version ^ 1 << bit;
                let says = format!(
                    "journal frame {seq} at block {block}: version {found} is not supported (this program knows 1)"
                );
                assert_unknown(&disk, specimen, &says);
                tried += 1;
            }
        }
    }
    assert!(tried > 30, "{tried}");
}

/// The byte of a descriptor that says which home is active has one bit.
#[test]
fn unknown_bits_of_descriptors_are_refused() {
    let specimen = Specimen::whole().unwrap();
    let forge = Forge::new(&specimen).unwrap();
    let cp = &forge.cp;
    let at = forge.layout.cp_start[cow_format::checkpoint::Checkpoint::area(cp.seq)];
    let before =
        8 * (cp.chunks.len() + cp.withheld.len()) + 24 * cp.damage.len() + 48 * cp.detached.len();
    for byte in [before + 8, before + 16 * cp.zones.len() + 4] {
        for bit in 1..8 {
            let disk = forge.flip(at + 1, byte, bit);
            let seq = cp.seq;
            let bits = 1 << bit;
            let says = format!(
                "page descriptor of checkpoint {seq} at block {at}: unknown flags {bits:#x}"
            );
            assert_unknown(&disk, &specimen, &says);
        }
    }
}

/// An intact checkpoint that says what cannot be is the newest all the same: no open goes back to the one
/// before it without a word.
#[test]
fn what_cannot_be_is_not_passed_over() {
    let specimen = Specimen::whole().unwrap();
    let forge = Forge::new(&specimen).unwrap();
    let at = forge.layout.cp_start[cow_format::checkpoint::Checkpoint::area(forge.cp.seq)];
    // The highest byte of the block of the journal tail.
    let disk = forge.flip(at, 64 + 7, 0);
    for read_only in [false, true] {
        let (opened, writes) = open(&disk, &specimen, read_only);
        let Err(Error::Corrupt(text)) = &opened else { panic!("{opened:?}") };
        let says = format!("checkpoint {} is the newest, and journal tail cannot be", forge.cp.seq);
        assert!(text.starts_with(&says) && writes == 0, "{text}");
    }
    assert!(checked(&disk).contains("journal tail cannot be"));
}
