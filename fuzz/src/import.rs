//! The front and the end of an image that is to be imported: which format it is. More than that an import
//! does not parse.

use cowstore::transfer::Format;

/// See the module.
pub fn run(data: &[u8]) {
    let found = Format::of_head(data).or_else(|| Format::of_tail(data));
    if let Some(format) = found {
        assert!(!format.name().is_empty());
    }
}
