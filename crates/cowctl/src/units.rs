//! Sizes and times, between people and programs.

use crate::failure::Failure;
use cow_format::SIZE_UNITS;
pub use cow_format::parse_size;
use jiff::Timestamp;

/// `0`, `512`, `64.0K`, `1.50G`: three digits that count.
pub fn human_size(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < SIZE_UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", char::from(SIZE_UNITS[unit]))
}

/// RFC 3339 in UTC; `None` for 0, which stands for never.
pub fn rfc3339(ns: u64) -> Option<String> {
    let time = Timestamp::from_nanosecond(i128::from(ns)).ok()?;
    (ns != 0).then(|| time.to_string())
}

/// To the second, for people.
pub fn human_time(ns: u64) -> Option<String> {
    rfc3339(ns / 1_000_000_000 * 1_000_000_000)
}

/// A duration with three digits that count.
pub fn human_duration(time: std::time::Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        m if m < 1e3 => format!("{m:.0} us"),
        m if m < 1e6 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

/// The name of a volume.
pub fn volume_name(text: &str) -> Result<String, String> {
    check_word(text, text)?;
    Ok(text.to_owned())
}

/// `VOL@SNAP`.
pub fn snapshot_name(text: &str) -> Result<String, String> {
    let Some((volume, snapshot)) = text.split_once('@') else {
        return Err(format!("{}: a snapshot's name is VOL@SNAP", shortened(text)));
    };
    check_word(volume, text)?;
    check_word(snapshot, text)?;
    Ok(text.to_owned())
}

/// `VOL` or `VOL@SNAP`.
pub fn object_name(text: &str) -> Result<String, String> {
    if text.contains('@') { snapshot_name(text) } else { volume_name(text) }
}

fn check_word(word: &str, whole: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !word.is_empty()
        && word.len() <= 128
        && !word.starts_with(['.', '-'])
        && word.chars().all(allowed)
    {
        return Ok(());
    }
    let rule = "a name has 1 to 128 characters of A-Z a-z 0-9 . _ - and begins with none of . -";
    Err(format!("{}: {rule}", shortened(whole)))
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 60 {
        return format!("{text:?}");
    }
    let front: String = text.chars().take(40).collect();
    format!("{front:?}... ({} bytes)", text.len())
}

/// `KEY=VALUE`; an empty value removes the key.
pub fn property(text: &str) -> Result<(String, Option<String>), String> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(format!("{}: a property is set as KEY=VALUE", shortened(text)));
    };
    if key.starts_with("cow.") {
        return Err(format!("{key}: properties cow.* are kept for the engine"));
    }
    Ok((key.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty())))
}

/// The run of `doctor` that numbers are of.
pub fn run_id(text: &str) -> Result<u64, String> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
    id.ok_or_else(|| format!("{}: a run is named by 16 hexadecimal digits", shortened(text)))
}

/// The second name of a diff, which may be given as `@SNAP` only, or not at all.
pub fn same_family(from: &str, to: Option<&str>) -> Result<String, Failure> {
    let volume = from.split('@').next().unwrap_or_default();
    let Some(to) = to else { return Ok(volume.to_owned()) };
    let Some(snapshot) = to.strip_prefix('@') else {
        return object_name(to).map_err(Failure::Usage);
    };
    snapshot_name(&format!("{volume}@{snapshot}")).map_err(Failure::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_with_three_digits() {
        for (bytes, want) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.00K"),
            (64 << 10, "64.0K"),
            (1023 << 10, "1.00M"),
            (3 << 29, "1.50G"),
            (u64::MAX, "16384P"),
        ] {
            assert_eq!(human_size(bytes), want);
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_500_000_000_250_000_000).unwrap(), "2017-07-14T02:40:00.25Z");
        assert_eq!(human_time(1_500_000_000_250_000_000).unwrap(), "2017-07-14T02:40:00Z");
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "vm-1.disk_0", &"x".repeat(128)] {
            assert!(volume_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "a@b", "ä", &"x".repeat(129)] {
            assert!(volume_name(bad).is_err(), "{bad}");
        }
        assert!(snapshot_name("vm@a").is_ok());
        for bad in ["vm", "vm@", "@a", "vm@a@b", "vm@a/b"] {
            assert!(snapshot_name(bad).is_err(), "{bad}");
        }
        assert!(same_family("vm@a", Some("@b")).is_ok_and(|name| name == "vm@b"));
        assert!(same_family("vm@a", Some("vm")).is_ok_and(|name| name == "vm"));
    }

    #[test]
    fn runs_are_named_by_digits() {
        assert_eq!(run_id("0000000000000abc"), Ok(0xabc));
        for bad in ["", "abc", "+000000000000abc", "0000000000000abg"] {
            assert!(run_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn properties_are_parsed() {
        assert_eq!(property("a=b=c"), Ok(("a".into(), Some("b=c".into()))));
        assert_eq!(property("a="), Ok(("a".into(), None)));
        assert!(property("a").is_err() && property("=a").is_err() && property("cow.x=1").is_err());
    }
}
