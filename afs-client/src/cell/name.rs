//! Names of cells.

use std::fmt;
use std::sync::Arc;

/// Longest name of a cell (that of a DNS domain).
const NAME_MAX: usize = 253;

/// The name of a cell: checked, in lower case, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellName(Arc<str>);

/// A text that cannot be the name of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a cell")]
pub struct BadCellName;

impl CellName {
    /// Checks a name. Upper case becomes lower case; one full stop at the end, as in DNS, is dropped.
    ///
    /// # Errors
    /// It is empty or too long, or has other characters than letters, digits, `-`, `_` and full stops between them.
    pub fn new(name: &str) -> Result<Self, BadCellName> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > NAME_MAX || !name.split('.').all(label) {
            return Err(BadCellName);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared: the scope of the cell's calls in events.
    #[must_use]
    pub const fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// True if it is more than one label, so that asking DNS for it makes sense.
    #[must_use]
    pub fn is_domain(&self) -> bool {
        self.0.contains('.')
    }
}

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::str::FromStr for CellName {
    type Err = BadCellName;

    fn from_str(name: &str) -> Result<Self, BadCellName> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_lowered() {
        assert_eq!(CellName::new("Lab.EXAMPLE.").unwrap().as_str(), "lab.example");
        assert!(CellName::new("lab").is_ok_and(|name| !name.is_domain()));
        let (long_label, long) = ("x".repeat(64), "x.".repeat(126) + "xx");
        for bad in [
            "",
            ".",
            ".lab",
            "a..b",
            "a/b",
            "a@b",
            "a b",
            "caf\u{e9}",
            "..",
            &long_label,
            &long,
        ] {
            assert_eq!(CellName::new(bad), Err(BadCellName), "{bad}");
        }
    }
}
