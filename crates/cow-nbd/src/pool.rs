//! The volumes and snapshots of a pool, as the server sees them.

use crate::export::{
    Base, Change, Completion, Export, ExportError, Exports, Extent, Request, Response,
};
use crate::server::ServerHandle;
use cowstore::{Buf, DiffPage, Error, ExportInfo, Pool, Source};
use std::sync::Arc;

/// Changed extents of one answer: with what lies between them, 128 KiB of descriptors.
const CHANGES_MAX: usize = 8192;

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
            .filter(|conn| conn.export.as_ref() == Some(&name) || conn.bases.contains(&name))
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
        Ok(Arc::new(Opened { pool: Arc::clone(&self.pool), export }))
    }
}

/// One client's hold on a volume or snapshot.
struct Opened {
    pool: Arc<Pool>,
    export: cowstore::Export,
}

impl Opened {
    fn volume(&self) -> String {
        self.export.name().split('@').next().unwrap_or_default().to_owned()
    }
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

    fn serve(&self, source: Box<dyn Source>) {
        self.pool.serve(source);
    }

    fn bases(&self, most: usize) -> Vec<String> {
        let (own, prefix) = (self.export.name(), format!("{}@", self.volume()));
        let snapshots = names(&self.pool).into_iter().filter(|name| *name != own);
        snapshots.filter_map(|name| name.strip_prefix(&prefix).map(Into::into)).take(most).collect()
    }

    fn base(&self, name: &str) -> Option<Arc<dyn Base>> {
        let base = self.pool.open_export(&format!("{}@{name}", self.volume()), false).ok()?;
        Some(Arc::new(Compared { export: self.export.clone(), base }))
    }
}

/// An export and a snapshot that it is compared with. The snapshot is open: it cannot be deleted
/// while the client may ask.
struct Compared {
    export: cowstore::Export,
    base: cowstore::Export,
}

impl Base for Compared {
    fn name(&self) -> String {
        self.base.name()
    }

    fn changes(&self, offset: u64, len: u32, done: Completion) {
        let since = self.base.as_side();
        // The answer keeps the snapshot open.
        let base = self.base.clone();
        let len = u64::from(len);
        let request = cowstore::Request::Changes { since, offset, len, limit: CHANGES_MAX };
        self.export.submit(request, move |outcome| {
            done(match outcome {
                Ok(cowstore::Response::Changes(page)) => {
                    Ok(Response::Changes(runs(offset, len, &page)))
                }
                Ok(_) => Err(ExportError::Failed("no changes told".into())),
                Err(error) => Err(translate(error)),
            });
            drop(base);
        });
    }
}

/// Runs of changed and unchanged bytes from `offset` on, as far as `page` tells.
fn runs(offset: u64, len: u64, page: &DiffPage) -> Vec<Change> {
    let mut runs = Vec::new();
    let mut at = offset;
    let mut push = |end: u64, dirty| {
        if end > at {
            runs.push(Change { len: end - at, dirty });
            at = end;
        }
    };
    for &(start, changed) in &page.extents {
        push(start, false);
        push(start.saturating_add(changed), true);
    }
    push(page.next.unwrap_or(offset + len).min(offset + len), false);
    runs
}

fn answer(response: cowstore::Response, len: usize) -> Response {
    match response {
        cowstore::Response::Done | cowstore::Response::Changes(_) => Response::Done,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(offset: u64, len: u64, extents: &[(u64, u64)], next: Option<u64>) -> Vec<(u64, bool)> {
        let page = DiffPage { extents: extents.to_vec(), next };
        runs(offset, len, &page).iter().map(|run| (run.len, run.dirty)).collect()
    }

    /// Whoever asked goes on where the answer ends: what is not known yet must not be told unchanged.
    #[test]
    fn an_answer_ends_where_the_comparison_did() {
        let all = [(4096, false), (8192, true), (4096, false)];
        assert_eq!(told(0, 16384, &[(4096, 8192)], None), all);
        assert_eq!(told(0, 16384, &[(4096, 8192)], Some(12288)), all[..2]);
        assert_eq!(told(0, 16384, &[], Some(4096)), all[..1]);
        // It may have looked further than it was asked for.
        assert_eq!(told(0, 16384, &[(4096, 8192)], Some(1 << 20)), all);
        assert_eq!(told(8192, 4096, &[(8192, 4096)], None), [(4096, true)]);
        assert_eq!(told(8192, 4096, &[], None), [(4096, false)]);
    }
}
