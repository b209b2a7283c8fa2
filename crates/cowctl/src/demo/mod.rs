//! `demo`: a real file system lives in a pool, is snapshotted, broken over NBD, and brought back.
//!
//! Every step is checked, not only shown: what is not as it should be ends the demo with an
//! error.

mod image;
mod nbd;
mod stage;

use crate::args::Demo;
use crate::failure::Failure;
use crate::output::line;
use crate::units::human_size;
use stage::{Stage, wrong};
use std::time::Instant;

/// The volume of the demo.
const VOLUME: &str = "vm";
const CLEAN: &str = "vm@clean";

pub fn run(args: &Demo) -> Result<(), Failure> {
    let start = Instant::now();
    let mut stage = Stage::new(args)?;
    stage.make_image()?;
    stage.make_pool()?;
    let result = act(&mut stage).and_then(|()| stage.show());
    let closed = stage.close();
    result.and(closed)?;
    stage.check()?;
    line(format!("\nAll of it as it should be, in {:.1} s.", start.elapsed().as_secs_f64()))
}

/// The story, once the volume is there.
fn act(stage: &mut Stage) -> Result<(), Failure> {
    stage.snapshot(CLEAN)?;
    stage.damage()?;
    let broken = stage.export("broken.raw")?;
    stage.must_be_broken(&broken)?;

    let undo = stage.rollback(CLEAN)?.ok_or_else(|| wrong("the rollback kept nothing"))?;
    let healed = stage.export("healed.raw")?;
    stage.must_be_clean(&healed)?;
    stage.must_equal(&healed, stage.original(), "the imported image")?;

    stage.undo()?;
    let again = stage.export("again.raw")?;
    stage.must_equal(&again, &broken, "the damaged volume")?;
    line(format!("  the damage is back: a rollback destroys nothing ({undo} had kept it)"))?;

    if let Some(again) = stage.rollback(CLEAN)? {
        return Err(wrong(format!("{again} keeps what {undo} has already")));
    }
    let healed = stage.export("healed-again.raw")?;
    stage.must_equal(&healed, stage.original(), "the imported image")?;

    line("\nThe tree of snapshots:")?;
    stage.draw()?;
    let freed = stage.delete(&[&undo])?;
    line(format!("  deleted {undo}: exactly the {} foretold came back", human_size(freed)))
}
