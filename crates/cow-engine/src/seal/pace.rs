//! How much of the machine hashing takes.

use crate::error::Error;
use crate::task::Cx;
use cow_format::NodeId;

/// Ticks between two slices while somebody else has something to do. There are some 200 of them a
/// second: that is 5 MB/s, and 100 MB/s when nobody has.
const BUSY_TICKS: usize = 20;

/// Who wants the root.
pub(super) enum Pace {
    /// Somebody waits for it.
    Asked,
    /// Nobody does: a slice with each tick, fewer while there is anything else to do.
    Unasked,
}

impl Pace {
    /// Waits until the next slice may begin.
    pub(super) async fn turn(&self, cx: &Cx, node: NodeId) -> Result<(), Error> {
        if matches!(self, Self::Asked) {
            // Whoever asked waits; others have their turn between the slices.
            cx.pause().await;
            return Ok(());
        }
        for tick in 0..BUSY_TICKS {
            cx.wait(|core| &mut core.tick_wait).await;
            let core = cx.core();
            if core.closing || core.seal.unsaved.contains_key(&node) {
                return Err(Error::Busy("somebody else has hashed it, or the pool ends".into()));
            }
            if tick > 0 && core.ops_in_progress == 0 && !core.fold.running {
                break;
            }
        }
        Ok(())
    }
}
