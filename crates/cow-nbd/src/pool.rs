//! The volumes and snapshots of a pool, as the server sees them.

use crate::export::{Completion, Export, ExportError, Exports, Extent, Request, Response};
use crate::server::ServerHandle;
use cowstore::{Buf, Error, ExportInfo, Pool};
use std::sync::Arc;

/// The exports of a pool: `VOL`, and `VOL@SNAP` for reading.
pub struct PoolExports {
    pool: Arc<Pool>,
}

impl PoolExports {
    /// All that is in `pool`, as of each moment.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }
}

/// What is served of `pool`, where, and who has it open: volumes and snapshots in order.
pub fn exports_of(pool: &Pool, server: &ServerHandle) -> Vec<ExportInfo> {
    let connections = server.connections();
    let info = |name: String| ExportInfo {
        uri: server.uris(&name).into_iter().next().unwrap_or_default(),
        read_only: pool.is_read_only() || name.contains('@'),
        clients: connections
            .iter()
            .filter(|conn| conn.export.as_deref() == Some(name.as_str()))
            .map(|conn| conn.client.clone())
            .collect(),
        name,
    };
    names(pool).into_iter().map(info).collect()
}

fn names(pool: &Pool) -> Vec<String> {
    let nodes = match pool.list(false) {
        Ok(nodes) => nodes,
        Err(error) => {
            tracing::warn!(%error, "the volumes cannot be listed");
            return Vec::new();
        }
    };
    let mut names: Vec<String> =
        nodes.into_iter().filter(|node| node.live).map(|node| node.name).collect();
    names.sort();
    names
}

impl Exports for PoolExports {
    fn list(&self) -> Vec<String> {
        names(&self.pool)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Export>, ExportError> {
        let write = !name.contains('@') && !self.pool.is_read_only();
        let export = self.pool.open_export(name, write).map_err(translate)?;
        Ok(Arc::new(Opened { export }))
    }
}

/// One client's hold on a volume or snapshot.
struct Opened {
    export: cowstore::Export,
}

impl Export for Opened {
    fn size_bytes(&self) -> u64 {
        self.export.size_bytes()
    }

    fn read_only(&self) -> bool {
        self.export.is_read_only()
    }

    fn buffer(&self, bytes: usize) -> Buf {
        self.export.buffer(bytes)
    }

    fn submit(&self, request: Request, done: Completion) {
        let mut read_len = 0;
        let request = match request {
            Request::Read { offset, len } => {
                read_len = len as usize;
                cowstore::Request::Read { offset, len: len.into() }
            }
            Request::Write { offset, data, len, fua } => {
                cowstore::Request::Write { offset, len: len.into(), data, fua }
            }
            Request::Flush => cowstore::Request::Flush,
            Request::Trim { offset, len, fua } => {
                cowstore::Request::Discard { offset, len: len.into(), fua }
            }
            // A thin pool keeps no promise of space: zeros are holes, and always fast.
            Request::WriteZeroes { offset, len, fua, .. } => {
                cowstore::Request::WriteZeroes { offset, len: len.into(), fua }
            }
            Request::Cache { .. } => return done(Ok(Response::Done)),
            Request::BlockStatus { offset, len } => {
                cowstore::Request::Extents { offset, len: len.into() }
            }
        };
        self.export.submit(request, move |outcome| {
            done(outcome.map(|response| answer(response, read_len)).map_err(translate));
        });
    }
}

fn answer(response: cowstore::Response, len: usize) -> Response {
    match response {
        cowstore::Response::Done => Response::Done,
        cowstore::Response::Data { buf, skip } => Response::Data { buf, skip, len },
        cowstore::Response::Extents(extents) => Response::Extents(
            extents
                .into_iter()
                .map(|extent| Extent {
                    len: extent.len,
                    hole: !extent.mapped,
                    zero: !extent.mapped,
                })
                .collect(),
        ),
    }
}

fn translate(error: Error) -> ExportError {
    match error {
        Error::NotFound(_) => ExportError::NotFound,
        Error::NoSpace(_) => ExportError::NoSpace,
        Error::ReadOnly(_) => ExportError::ReadOnly,
        Error::Stale(_) => ExportError::Stale,
        Error::Invalid(_) => ExportError::Invalid,
        other => ExportError::Failed(other.to_string()),
    }
}
