//! Names in memory. A pool with many snapshots has many of them, nearly all short: those need no
//! memory of their own.

use std::fmt;
use std::ops::Deref;

/// Longest name, in bytes, that lies in the [`Name`] itself.
const SHORT_NAME: usize = 22;

/// A name that does not change. 24 bytes.
#[derive(Clone)]
pub struct Name(Kept);

#[derive(Clone)]
enum Kept {
    Short(u8, [u8; SHORT_NAME]),
    Long(Box<str>),
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // It was text when it was put there.
            Kept::Short(len, bytes) => {
                bytes.get(..usize::from(*len)).and_then(|b| str::from_utf8(b).ok()).unwrap_or("")
            }
            Kept::Long(name) => name,
        }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        let mut bytes = [0; SHORT_NAME];
        let Some(place) = bytes.get_mut(..name.len()) else {
            return Self(Kept::Long(name.into()));
        };
        place.copy_from_slice(name.as_bytes());
        Self(Kept::Short(name.len() as u8, bytes))
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::from("")
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_it_was_made_of_however_long() {
        assert_eq!(size_of::<Name>(), 24);
        for len in 0..40 {
            let text: String = ('a'..='z').cycle().take(len).collect();
            let name = Name::from(text.as_str());
            assert_eq!((name.as_str(), &name), (text.as_str(), &Name::from(text.clone())));
            assert_eq!(matches!(name.0, Kept::Short(..)), len <= SHORT_NAME, "{len}");
            assert_ne!(name, Name::from(format!("{text}x")));
            assert_eq!(
                (name.to_string(), format!("{name:?}")),
                (text.clone(), format!("{text:?}"))
            );
        }
        // A character that would not fit whole.
        let text = format!("{}ä", "a".repeat(SHORT_NAME - 1));
        assert_eq!(Name::from(text.as_str()), *text);
        assert_eq!(Name::default(), "");
    }
}
