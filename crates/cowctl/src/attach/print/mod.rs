//! `attach --print`: what others need to use a volume, to be pasted where they want it. Nothing is
//! attached, and nothing is changed.

mod libvirt;
mod qemu;
mod systemd;

use super::link;
use super::place::Place;
use crate::args::{Attach, Format};
use crate::failure::Failure;
use crate::mount::connect;
use crate::output;
use crate::session::{self, Access, must_exist};
use cow_nbd::socket_beside;
use cowstore::{Answer, ExportInfo, Identity, Manage, Verb, runtime};
use std::path::Path;

/// How many seconds a machine waits for a server that is started again before its requests fail.
const RECONNECT_SECONDS: u32 = 60;

/// A volume or snapshot, and where it is served.
struct Disk<'a> {
    name: &'a str,
    place: Place,
    read_only: bool,
}

pub fn print(path: &Path, args: &Attach, format: Format) -> Result<(), Failure> {
    must_exist(path)?;
    let name = args.name.as_str();
    let label = session::with(path, Access::Look, |session| {
        let nodes = session.list(false)?;
        session.find(&nodes, name)?;
        let props = session.props("")?.props;
        Ok(props.into_iter().find(|(key, _)| key == super::LABEL).map(|(_, value)| value))
    })?;
    if let Format::Systemd = format {
        let pool = text_of(&std::path::absolute(path).map_err(Failure::file(path))?)?;
        let program = std::env::current_exe().map_err(|e| Failure::Failed(e.to_string()))?;
        let label = link::pool_name(label.as_deref(), path);
        return output::line(systemd::units(&text_of(&program)?, &pool, &label, name));
    }
    let place = place(path, name)?;
    let disk = Disk { name, place, read_only: name.contains('@') };
    output::line(match format {
        Format::Libvirt => libvirt::disk(&disk),
        _ => qemu::arguments(&disk),
    })
}

/// Where it is served; or would be, by a server that is told nothing else.
fn place(path: &Path, name: &str) -> Result<Place, Failure> {
    let identity = Identity::read(path).map_err(Failure::of(path))?;
    let exports = match connect(path)? {
        Some(client) => match client.call(Verb::Exports, &mut |_| {}) {
            Ok(Answer::Exports(exports)) => exports,
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let is_it = |export: &&ExportInfo| export.name == name && !export.uri.is_empty();
    if let Some(export) = exports.iter().find(is_it) {
        return Place::of_uri(&export.uri).ok_or_else(|| {
            Failure::Failed(format!("{}: not understood: {}", path.display(), export.uri))
        });
    }
    eprintln!("cowctl: note: {}: not served now; `cowctl serve` serves it", path.display());
    let control = runtime::path_of(&identity, "sock").map_err(Failure::of(path))?;
    let mut notes = Vec::new();
    let socket = socket_beside(path, &control, &mut notes);
    Ok(Place::Unix(text_of(&socket)?))
}

/// A path as text. None of the formats has a way to write any other.
fn text_of(path: &Path) -> Result<String, Failure> {
    match path.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let path = path.display();
            Err(Failure::Usage(format!("{path:?}: not UTF-8, or with control characters")))
        }
    }
}
