//! What all clones of an open volume or snapshot share; its end closes the export.

use crate::completion::Completion;
use crate::core::{Core, Label};
use crate::error::{Error, unexpected};
use cow_engine::{ExportId, Op, Reply};
use cow_format::NodeId;
use std::sync::Arc;

pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
    pub(crate) id: ExportId,
    pub(crate) label: Arc<Label>,
    pub(crate) node: NodeId,
    pub(crate) read_only: bool,
    pub(crate) rollback_gen: u64,
}

impl Handle {
    /// For the answer to `OpenExport`.
    pub(crate) fn new(core: Arc<Core>, name: &str, reply: Reply) -> Result<Self, Error> {
        let Reply::Export { export, size_bytes, node, read_only, rollback_gen } = reply else {
            return Err(unexpected(&reply));
        };
        let label = core.add_label(name, size_bytes);
        Ok(Self { core, id: export, label, node, read_only, rollback_gen })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.queue.push(Op::CloseExport { export: self.id }, Completion::ignored());
    }
}
