//! Where an export is, read back from its address.

/// Where an export is.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// The path of a unix socket.
    Unix(String),
    /// Host and port.
    Tcp(String, String),
}

impl Place {
    /// The place in an address as our server gives them: `nbd+unix:///NAME?socket=PATH` or
    /// `nbd://HOST:PORT/NAME`.
    pub fn of_uri(uri: &str) -> Option<Self> {
        if let Some(rest) = uri.strip_prefix("nbd+unix:///") {
            let path = unescape(rest.split_once("?socket=")?.1)?;
            return (!path.contains(char::is_control)).then_some(Self::Unix(path));
        }
        let (authority, _) = uri.strip_prefix("nbd://")?.split_once('/')?;
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self::Tcp(host.to_owned(), port.to_owned()))
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back() {
        let unix = |path: &str| Some(Place::Unix(path.into()));
        let tcp = |host: &str| Some(Place::Tcp(host.into(), "7".into()));
        assert_eq!(
            Place::of_uri("nbd+unix:///v@a?socket=/a%20b/n%26%25.sock"),
            unix("/a b/n&%.sock")
        );
        assert_eq!(Place::of_uri("nbd://127.0.0.1:7/v"), tcp("127.0.0.1"));
        assert_eq!(Place::of_uri("nbd://[::1]:7/v"), tcp("::1"));
        for bad in ["", "nbd+unix:///v", "nbd+unix:///v?socket=/%0a", "nbd+unix:///v?socket=/%z"] {
            assert_eq!(Place::of_uri(bad), None, "{bad}");
        }
    }
}
