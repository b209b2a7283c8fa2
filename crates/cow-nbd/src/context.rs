//! The meta contexts of a connection: what is listed, what a client selects, and what a selected
//! one holds open.

use crate::export::{Base, Export};
use crate::wire::{CONTEXTS_MAX, MetaContext, MetaQuery};
use std::sync::Arc;

/// Snapshots that one listing names.
const LISTED_MAX: usize = 1024;

/// A selected context.
pub(crate) struct Context {
    /// How replies name it.
    pub(crate) id: u32,
    pub(crate) name: MetaContext,
    /// What the export is compared with; for `base:allocation` nothing.
    pub(crate) base: Option<Arc<dyn Base>>,
}

/// The contexts of `export` that a listing with `queries` names; no query means all.
pub(crate) fn list(export: &dyn Export, queries: &[MetaQuery]) -> Vec<MetaContext> {
    let wanted = |context: &MetaContext| {
        queries.is_empty() || queries.iter().any(|query| query.lists(context))
    };
    // Who asks for nothing of the kind does not make the storage look.
    let any = queries.is_empty() || queries.iter().any(|query| query.namespace == "qemu");
    let bases = if any { export.bases(LISTED_MAX) } else { Vec::new() };
    let bitmaps = bases.into_iter().map(MetaContext::DirtyBitmap);
    [MetaContext::BaseAllocation].into_iter().chain(bitmaps).filter(wanted).collect()
}

/// Opens the contexts of `export` that `queries` select. What there is not is left out. None if they
/// are too many.
pub(crate) fn select(export: &dyn Export, queries: &[MetaQuery]) -> Option<Vec<Context>> {
    let mut contexts: Vec<Context> = Vec::new();
    for name in queries.iter().filter_map(MetaQuery::selects) {
        if contexts.iter().any(|context| context.name == name) {
            continue;
        }
        let base = match &name {
            MetaContext::BaseAllocation => None,
            MetaContext::DirtyBitmap(snapshot) => match export.base(snapshot) {
                Some(base) => Some(base),
                None => continue,
            },
        };
        if contexts.len() == CONTEXTS_MAX {
            return None;
        }
        contexts.push(Context { id: contexts.len() as u32 + 1, name, base });
    }
    Some(contexts)
}
