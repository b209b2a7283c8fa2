//! What names may be, and the identities of servers and snapshots. Everything that a client can
//! name is checked here; none of it ever becomes a path.

use super::error::AgentError;
use super::model::{
    MAX_DESCRIPTION, MAX_NAME, MAX_VOLUME_NAME, MAX_VOLUMES, ServerRequest, SnapshotRequest,
};
use std::collections::BTreeSet;

/// Smallest and largest size of a volume.
const SIZES: std::ops::RangeInclusive<u64> = 512..=4 << 50;

fn check_name(
    field: &'static str,
    name: &str,
    most: usize,
    extra: &[u8],
) -> Result<(), AgentError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b) || extra.contains(&b);
    if (1..=most).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    let dot = if extra.is_empty() { "" } else { ", dots" };
    Err(AgentError::invalid(
        field,
        format!("must be 1 to {most} letters, digits, hyphens, underscores{dot}"),
    ))
}

/// Checks what a client wants to be a snapshot.
pub(super) fn check_snapshot(request: &SnapshotRequest) -> Result<(), AgentError> {
    check_name("name", &request.name, MAX_NAME, b"")?;
    if request.description.len() > MAX_DESCRIPTION {
        let bytes = request.description.len();
        let detail = format!("has {bytes} bytes; at most {MAX_DESCRIPTION} are kept");
        return Err(AgentError::invalid("description", detail));
    }
    Ok(())
}

/// Checks what a client wants to be a server.
pub(super) fn check_server(request: &ServerRequest) -> Result<(), AgentError> {
    check_name("name", &request.name, MAX_NAME, b".")?;
    let count = request.volumes.len();
    if !(1..=MAX_VOLUMES).contains(&count) {
        let detail = format!("must be 1 to {MAX_VOLUMES}, not {count}");
        return Err(AgentError::invalid("volumes", detail));
    }
    let mut seen = BTreeSet::new();
    for volume in &request.volumes {
        check_name("volumes.name", &volume.name, MAX_VOLUME_NAME, b"")?;
        if !seen.insert(&volume.name) {
            return Err(AgentError::invalid("volumes.name", format!("{} twice", volume.name)));
        }
        if !SIZES.contains(&volume.size_bytes) || volume.size_bytes % 512 != 0 {
            let (least, most) = (SIZES.start(), SIZES.end());
            let detail =
                format!("{} is not a multiple of 512 from {least} to {most}", volume.size_bytes);
            return Err(AgentError::invalid("volumes.size_bytes", detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DriverSpec, ServerId, VolumeRequest};

    fn field(result: Result<(), AgentError>) -> &'static str {
        match result {
            Err(AgentError::Invalid { field, .. }) => field,
            other => panic!("not invalid: {other:?}"),
        }
    }

    #[test]
    fn names_of_snapshots_have_no_paths_in_them() {
        let request = |name: &str, description: &str| SnapshotRequest {
            server: ServerId(1),
            name: name.into(),
            description: description.into(),
        };
        for good in ["a", "before-update_2", "-x", "_", &"n".repeat(128)] {
            assert_eq!(check_snapshot(&request(good, "ü / anything")), Ok(()), "{good}");
        }
        for bad in ["", " ", "a b", "a/b", "..", ".", "ü", "a@b", "a\0", &"n".repeat(129)] {
            assert_eq!(field(check_snapshot(&request(bad, ""))), "name", "{bad}");
        }
        assert_eq!(field(check_snapshot(&request("a", &"d".repeat(2049)))), "description");
    }

    #[test]
    fn servers_have_volumes_of_different_names() {
        let request = |name: &str, volumes: &[(&str, u64)]| ServerRequest {
            name: name.into(),
            volumes: volumes
                .iter()
                .map(|&(name, size_bytes)| VolumeRequest { name: name.into(), size_bytes })
                .collect(),
            driver: DriverSpec::None,
        };
        assert_eq!(check_server(&request("web-1.example.org", &[("root", 1 << 30)])), Ok(()));
        for (bad, at) in [
            (request("a b", &[("root", 512)]), "name"),
            (request("a", &[]), "volumes"),
            (request("a", &[("x", 512); 17]), "volumes"),
            (request("a", &[("x", 512), ("x", 512)]), "volumes.name"),
            (request("a", &[("../x", 512)]), "volumes.name"),
            (request("a", &[("x", 0)]), "volumes.size_bytes"),
            (request("a", &[("x", 513)]), "volumes.size_bytes"),
            (request("a", &[("x", u64::MAX)]), "volumes.size_bytes"),
        ] {
            assert_eq!(field(check_server(&bad)), at);
        }
    }
}
