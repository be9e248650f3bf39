//! What `@sys` stands for: the kind of system that this is, by names that cells use for their folders of programs.

use std::str::FromStr;

/// The names in the order in which they are tried. There is one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysNames(Vec<String>);

/// A list of such names that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSysNames {
    /// There are too many of them.
    #[error("at most {MAX} names")]
    Many,
    /// One is too long, or there is nothing between two commas.
    #[error("a name has 1 to {LONGEST} bytes")]
    Length,
    /// One cannot be a part of a file name.
    #[error("a name is a file name that does not end in @sys")]
    Name,
}

impl SysNames {
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Default for SysNames {
    /// What OpenAFS calls Linux on this processor.
    fn default() -> Self {
        let processor = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "i386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self(vec![format!("{processor}_linux26")])
    }
}

impl FromStr for SysNames {
    type Err = BadSysNames;

    /// Reads names with commas between them.
    fn from_str(text: &str) -> Result<Self, BadSysNames> {
        let names: Vec<_> = text.split(',').map(str::to_owned).collect();
        if names.len() > MAX {
            return Err(BadSysNames::Many);
        }
        for name in &names {
            if !(1..=LONGEST).contains(&name.len()) {
                return Err(BadSysNames::Length);
            }
            let is_reserved = name == "." || name == ".." || name.ends_with("@sys");
            if is_reserved || name.contains(['/', '\0']) {
                return Err(BadSysNames::Name);
            }
        }
        Ok(Self(names))
    }
}

/// As many as the kernel's client takes, and as long as OpenAFS takes them (afs-dir.md 5.1).
const MAX: usize = 16;
const LONGEST: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_order() {
        let names: SysNames = "amd64_linux26,i386_linux26".parse().unwrap();
        assert_eq!(
            names.iter().collect::<Vec<_>>(),
            ["amd64_linux26", "i386_linux26"]
        );
        assert!(SysNames::default().iter().next().unwrap().ends_with("_linux26"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, why) in [
            ("", BadSysNames::Length),
            ("a,,b", BadSysNames::Length),
            (&"x".repeat(128), BadSysNames::Length),
            ("a/b", BadSysNames::Name),
            ("..", BadSysNames::Name),
            ("x@sys", BadSysNames::Name),
            (&["a"; 17].join(","), BadSysNames::Many),
        ] {
            assert_eq!(text.parse::<SysNames>(), Err(why), "{text:?}");
        }
    }
}
