//! A small pool with edits of its structures, sealed again (`cow_sim::corruption::forge`): checked, opened,
//! read, written to and folded; and repaired, if it can be, and then all of that again.

use cow_sim::corruption::exercise::exercise;
use cow_sim::corruption::forge::Forge;
use cow_sim::corruption::mend::mend;
use cow_sim::corruption::specimen::Specimen;
use std::cell::OnceCell;

thread_local! {
    static SPECIMENS: OnceCell<[Specimen; 2]> = const { OnceCell::new() };
}

fn specimens() -> [Specimen; 2] {
    let make = || Ok::<_, cow_sim::sim::Stop>([Specimen::whole()?, Specimen::scarred()?]);
    make().unwrap_or_else(|stop| panic!("no pool: {stop:?}"))
}

/// See the module. The first byte chooses the pool, the rest is for [`Forge::forge`].
pub fn run(data: &[u8]) {
    let Some((&first, edits)) = data.split_first() else { return };
    SPECIMENS.with(|cell| {
        let specimen = &cell.get_or_init(specimens)[usize::from(first & 1)];
        let Some(forge) = Forge::new(specimen) else { return };
        let disk = forge.forge(edits);
        let (config, seed) = (&specimen.config, u64::from(first));
        assert_eq!(exercise(&disk, config, seed), Ok(()));
        match mend(&disk, config, seed) {
            Ok(Some(mended)) => assert_eq!(exercise(&mended.disk, config, seed), Ok(())),
            Ok(None) => {}
            Err(text) => panic!("{text}"),
        }
    });
}
