//! Sizes as people write them: on a command line, and in the values of properties, which are stored
//! as they were written.

/// What stands for the powers of 1024, from the first on.
pub const SIZE_UNITS: &[u8] = b"KMGTP";

/// Bytes of `123`, `64K`, `10G`, `10GiB`: powers of 1024.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let complaint = || format!("{text:?} is no size: bytes, or a number with K, M, G or T");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if number.is_empty() {
        return Err(complaint());
    }
    let unit = unit.to_ascii_uppercase();
    let letter = unit.strip_suffix("IB").unwrap_or(&unit);
    let power = match letter.as_bytes() {
        [] if unit.is_empty() => 0,
        [letter] => match SIZE_UNITS.iter().position(|known| known == letter) {
            Some(index) => index as u32 + 1,
            None => return Err(complaint()),
        },
        _ => return Err(complaint()),
    };
    let too_large = || format!("{text} is larger than any size can be");
    let number: u64 = number.parse().map_err(|_| too_large())?;
    number.checked_mul(1 << (10 * power)).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, want) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("2m", 2 << 20),
            ("10G", 10 << 30),
            ("16T", 16 << 40),
            ("3GiB", 3 << 30),
            ("9223372036854775808", 1 << 63),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "1 G", "10GB", "10Q", "iB", "5iB", "0x10", "99999999T"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_size("18446744073709551616").is_err());
    }
}
