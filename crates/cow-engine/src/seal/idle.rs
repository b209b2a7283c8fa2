//! Sealing unasked: snapshots of volumes that have the property `roots=on`, or of all when the pool
//! has it. Nothing else is read unasked.

use super::pace::Pace;
use super::{pages, view};
use crate::core::Core;
use crate::error::Error;
use crate::loading::load_props;
use crate::task::Cx;
use cow_format::NodeId;
use cow_snaptree::POOL_NODE;

/// Begins to seal when there may be something to seal. Called with each tick.
pub(crate) fn start_if_due(cx: &Cx) {
    {
        let mut core = cx.core();
        let due = core.seal.look && !core.seal.sealing && core.serving && !core.closing;
        core.seal.look = false;
        if !due || core.writable().is_err() {
            return;
        }
        core.seal.sealing = true;
    }
    let cx = cx.clone();
    let task = cx.clone();
    cx.spawn(async move {
        // Without them nobody is known to have asked for anything.
        let _ = load_props(&task, POOL_NODE).await;
        loop {
            let next = task.core().next_unsealed();
            let Some((node, name)) = next else { break };
            if let Err(error) = seal(&task, &name).await {
                let mut core = task.core();
                // A delete ends it, or somebody who asked was faster.
                if !matches!(error, Error::NotFound(_) | Error::Busy(_)) {
                    core.seal.failed.insert(node);
                }
                if core.closing || core.writable().is_err() {
                    break;
                }
            }
        }
        task.core().seal.sealing = false;
    });
}

async fn seal(cx: &Cx, name: &str) -> Result<(), Error> {
    let view = view::take(cx, name).await?;
    pages(cx, &view, &Pace::Unasked).await.map(|_| ())
}

impl Core {
    /// The oldest snapshot that is to have a root and has none: so that each one's ancestors come
    /// before it.
    fn next_unsealed(&self) -> Option<(NodeId, String)> {
        let tree = &self.pool.as_ref()?.tree;
        if !tree.seals_any() {
            return None;
        }
        let wanting = |id: &NodeId| {
            self.known_root(*id).is_none() && !self.seal.failed.contains(id) && tree.seals(*id)
        };
        let mut ids = tree.iter().filter(|node| node.is_snapshot()).map(|node| node.entry.id);
        let id = ids.find(wanting)?;
        Some((id, tree.full_name(id)?))
    }
}
