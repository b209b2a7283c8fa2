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

fn assert_refused(forge: &Forge<'_>, specimen: &Specimen, flags: &Flags, bit: u32) {
    let disk = forge.flip(flags.block, flags.byte + bit as usize / 8, bit % 8);
    let Flags { name, block, .. } = flags;
    let says = format!("{name} at block {block}: unknown flags {:#x}", 1u64 << bit);
    for read_only in [false, true] {
        let (opened, writes) = open(&disk, specimen, read_only);
        let Err(Error::Unsupported(text)) = &opened else { panic!("{says}: {opened:?}") };
        assert_eq!((text.as_str(), writes), (says.as_str(), 0), "read only: {read_only}");
    }
    let found = checked(&disk);
    assert!(found.contains(&says), "{says}: the checker says\n{found}");
    let plan = cow_check::repair::plan(&mut View(&disk), &cow_check::Options::default());
    let Err(refused) = plan else { panic!("{says}: a repair would {:?}", plan.map(|p| p.actions)) };
    assert!(refused.to_string().contains(&says), "{says}: the repair says {refused}");
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
