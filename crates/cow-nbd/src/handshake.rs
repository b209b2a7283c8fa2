//! Negotiation with one client, from the greeting to the choice of an export.
//!
//! Nothing a client does here can cost the server more than one thread, one open export, some
//! kilobytes and the time that [`crate::conn::Inbound`] allows. Whatever has the form of an option is answered,
//! also when it is refused; what has not ends the connection.

use crate::conn::Conn;
use crate::context::{self, Context};
use crate::export::{Export, ExportError, Exports};
use crate::reader::Reader;
use crate::wire::{self, ClientOption, MetaQuery, WireError, info, opt, rep};
use std::io::{self, Read};
use std::sync::Arc;
use thiserror::Error;

/// Options longer than this are not even skipped.
const SKIP_MAX_BYTES: u32 = 1 << 20;

/// Why a negotiation ended without a choice.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the client left")]
    Left,
    #[error("export {name:?}: {source}")]
    Export { name: String, source: ExportError },
}

/// What a negotiation leads to.
pub(crate) struct Deal {
    pub(crate) export: Arc<dyn Export>,
    pub(crate) structured: bool,
    pub(crate) contexts: Vec<Context>,
}

/// Whether haggling goes on.
enum Step {
    Continue,
    Done(Deal),
}

struct Negotiation<'a> {
    conn: &'a Conn,
    exports: &'a dyn Exports,
    structured: bool,
    no_zeroes: bool,
    /// The export that was looked at last, so that the choice after it finds it unchanged.
    opened: Option<(String, Arc<dyn Export>)>,
    /// The contexts selected, and the export for which they are.
    meta: Option<(String, Vec<Context>)>,
}

/// Negotiates with the client.
pub(crate) fn negotiate(
    conn: &Conn,
    exports: &dyn Exports,
    reader: &mut Reader<'_>,
) -> Result<Deal, HandshakeError> {
    send(conn, reader, &wire::greeting())?;
    let mut flags = [0; 4];
    reader.read_exact(&mut flags)?;
    let flags = wire::parse_client_flags(flags)?;
    let mut negotiation = Negotiation {
        conn,
        exports,
        structured: false,
        no_zeroes: flags.no_zeroes,
        opened: None,
        meta: None,
    };
    loop {
        let mut out = Vec::new();
        let step = negotiation.option(reader, &mut out);
        send(conn, reader, &out)?;
        if let Step::Done(deal) = step? {
            return Ok(deal);
        }
    }
}

/// Replies are short, and the socket's buffer nearly always takes them at once.
fn send(conn: &Conn, reader: &mut Reader<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        reader.inbound().arm()?;
        match conn.stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn skip(reader: &mut Reader<'_>, len: u32) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(len.into()), &mut io::sink())?;
    if skipped == u64::from(len) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

impl Negotiation<'_> {
    /// Reads one option and answers it in `out`, which is sent even if the connection then ends.
    fn option(
        &mut self,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        let mut header = [0; wire::OPTION_HEADER_BYTES];
        reader.read_exact(&mut header)?;
        let header = wire::parse_option_header(&header)?;
        let parsed = if header.len > wire::OPTION_MAX_BYTES {
            let error = WireError::TooBig { what: "option data" };
            if header.len > SKIP_MAX_BYTES {
                wire::option_reply(out, header.code, rep::ERR_TOO_BIG, b"option data");
                return Err(error.into());
            }
            skip(reader, header.len)?;
            Err(error)
        } else {
            let mut data = vec![0; header.len as usize];
            reader.read_exact(&mut data)?;
            wire::parse_option(header.code, &data)
        };
        match parsed {
            Ok(option) => self.answer(option, header.code, out),
            // There is no reply to this option that says no.
            Err(error) if header.code == opt::EXPORT_NAME => Err(error.into()),
            Err(error) => {
                if header.code == opt::SET_META_CONTEXT {
                    self.forget_contexts();
                }
                let kind = match error {
                    WireError::TooBig { .. } => rep::ERR_TOO_BIG,
                    _ => rep::ERR_INVALID,
                };
                wire::option_reply(out, header.code, kind, error.to_string().as_bytes());
                Ok(Step::Continue)
            }
        }
    }

    fn answer(
        &mut self,
        option: ClientOption,
        code: u32,
        out: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        match option {
            ClientOption::ExportName(name) => return self.export_name(name, out),
            ClientOption::Abort => {
                wire::option_reply(out, code, rep::ACK, &[]);
                return Err(HandshakeError::Left);
            }
            ClientOption::List => {
                for name in self.exports.list() {
                    wire::server_reply(out, &name);
                }
                wire::option_reply(out, code, rep::ACK, &[]);
            }
            ClientOption::Info { name, requests } => {
                self.info(&name, &requests, code, out);
            }
            ClientOption::Go { name, requests } => {
                if let Some((name, export)) = self.info(&name, &requests, code, out) {
                    return Ok(Step::Done(self.deal(&name, export)));
                }
            }
            ClientOption::StructuredReply => {
                self.structured = true;
                wire::option_reply(out, code, rep::ACK, &[]);
            }
            ClientOption::ListMetaContext { name, queries } => {
                self.list_contexts(&name, &queries, out);
            }
            ClientOption::SetMetaContext { name, queries } => {
                self.set_contexts(&name, &queries, out);
            }
            ClientOption::Unknown(_) => wire::option_reply(out, code, rep::ERR_UNSUP, &[]),
        }
        Ok(Step::Continue)
    }

    /// Opens an export, or returns the one just opened, with its canonical name. The name is
    /// published before the export is opened: whoever fences an export finds the connection.
    fn open(&mut self, name: &str) -> Result<(String, Arc<dyn Export>), ExportError> {
        let name = match name {
            "" => self.exports.default_export().unwrap_or_default(),
            name => name.to_owned(),
        };
        if let Some((last, export)) = &self.opened
            && *last == name
        {
            return Ok((name, Arc::clone(export)));
        }
        self.opened = None;
        {
            let mut chosen = self.conn.chosen.lock();
            chosen.export = Some(name.clone());
            chosen.read_only = None;
        }
        match self.exports.open(&name) {
            Ok(export) => {
                self.conn.chosen.lock().read_only = Some(export.read_only());
                self.opened = Some((name.clone(), Arc::clone(&export)));
                Ok((name, export))
            }
            Err(error) => {
                self.conn.chosen.lock().export = None;
                Err(error)
            }
        }
    }

    /// The same, with a refusal as the answer to option `code`.
    fn open_or_refuse(
        &mut self,
        name: &str,
        code: u32,
        out: &mut Vec<u8>,
    ) -> Option<(String, Arc<dyn Export>)> {
        self.open(name)
            .inspect_err(|error| {
                let kind = match error {
                    ExportError::NotFound => rep::ERR_UNKNOWN,
                    ExportError::Stale => rep::ERR_SHUTDOWN,
                    _ => rep::ERR_POLICY,
                };
                let text = error.to_string();
                wire::option_reply(out, code, kind, wire::error_payload(&text).as_bytes());
            })
            .ok()
    }

    fn deal(&mut self, name: &str, export: Arc<dyn Export>) -> Deal {
        let contexts = match self.meta.take() {
            Some((for_name, contexts)) if for_name == name => contexts,
            _ => {
                self.forget_contexts();
                Vec::new()
            }
        };
        Deal { export, structured: self.structured, contexts }
    }

    fn export_name(&mut self, name: String, out: &mut Vec<u8>) -> Result<Step, HandshakeError> {
        let (name, export) =
            self.open(&name).map_err(|source| HandshakeError::Export { name, source })?;
        let flags = wire::transmission_flags(export.read_only(), self.structured);
        wire::export_name_reply(out, export.size_bytes(), flags, self.no_zeroes);
        Ok(Step::Done(self.deal(&name, export)))
    }

    fn info(
        &mut self,
        name: &str,
        requests: &[u16],
        code: u32,
        out: &mut Vec<u8>,
    ) -> Option<(String, Arc<dyn Export>)> {
        let (name, export) = self.open_or_refuse(name, code, out)?;
        let flags = wire::transmission_flags(export.read_only(), self.structured);
        wire::info_export(out, code, export.size_bytes(), flags);
        if requests.contains(&info::NAME) {
            wire::info_name(out, code, &name);
        }
        if requests.contains(&info::BLOCK_SIZE) {
            wire::info_block_size(out, code);
        }
        wire::option_reply(out, code, rep::ACK, &[]);
        Some((name, export))
    }

    fn list_contexts(&mut self, name: &str, queries: &[MetaQuery], out: &mut Vec<u8>) {
        const CODE: u32 = opt::LIST_META_CONTEXT;
        if self.refuse_contexts(CODE, out) {
            return;
        }
        let Some((_, export)) = self.open_or_refuse(name, CODE, out) else { return };
        for context in context::list(&*export, queries) {
            wire::meta_context_reply(out, CODE, 0, &context);
        }
        wire::option_reply(out, CODE, rep::ACK, &[]);
    }

    /// Forgets what was selected before, whether this succeeds or not.
    fn set_contexts(&mut self, name: &str, queries: &[MetaQuery], out: &mut Vec<u8>) {
        const CODE: u32 = opt::SET_META_CONTEXT;
        self.forget_contexts();
        if self.refuse_contexts(CODE, out) {
            return;
        }
        let Some((name, export)) = self.open_or_refuse(name, CODE, out) else { return };
        let Some(contexts) = context::select(&*export, queries) else {
            return wire::option_reply(out, CODE, rep::ERR_TOO_BIG, b"too many contexts");
        };
        for context in &contexts {
            wire::meta_context_reply(out, CODE, context.id, &context.name);
        }
        let bases = contexts.iter().filter_map(|context| context.base.as_ref());
        self.conn.chosen.lock().bases = bases.map(|base| base.name()).collect();
        self.meta = Some((name, contexts));
        wire::option_reply(out, CODE, rep::ACK, &[]);
    }

    fn forget_contexts(&mut self) {
        self.meta = None;
        self.conn.chosen.lock().bases.clear();
    }

    fn refuse_contexts(&self, code: u32, out: &mut Vec<u8>) -> bool {
        if !self.structured {
            let text = b"structured replies must be negotiated first";
            wire::option_reply(out, code, rep::ERR_INVALID, text);
        }
        !self.structured
    }
}
