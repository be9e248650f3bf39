//! Names of Kerberos.

use std::fmt;

/// Who somebody is: `component/component@REALM`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The components, at least one.
    pub components: Vec<String>,
    /// The realm.
    pub realm: String,
}

/// A text that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a principal")]
pub struct BadPrincipal(String);

impl Principal {
    /// A principal of these components.
    #[must_use]
    pub fn new(components: &[&str], realm: &str) -> Self {
        Self {
            components: components.iter().map(|part| (*part).to_owned()).collect(),
            realm: realm.to_owned(),
        }
    }

    /// The one who gives tickets for `realm` to those who have been let into `from`.
    #[must_use]
    pub fn ticket_granter(realm: &str, from: &str) -> Self {
        Self::new(&[KRBTGT, realm], from)
    }

    /// The realm that this principal gives tickets for, if it is a ticket granter.
    #[must_use]
    pub fn grants_for(&self) -> Option<&str> {
        match self.components.as_slice() {
            [name, realm] if name == KRBTGT => Some(realm),
            _ => None,
        }
    }

    /// Reads `component/component@REALM`; a backslash takes what follows as it is. Without a realm it is `realm`.
    ///
    /// # Errors
    ///
    /// A component is empty, or there is no realm to be had.
    pub fn parse(text: &str, realm: Option<&str>) -> Result<Self, BadPrincipal> {
        let bad = || BadPrincipal(text.to_owned());
        let mut parts = vec![String::new()];
        let mut named_realm = None;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let plain = match character {
                '\\' => characters.next().ok_or_else(bad)?,
                '/' if named_realm.is_none() => {
                    parts.push(String::new());
                    continue;
                }
                '@' if named_realm.is_none() => {
                    named_realm = Some(String::new());
                    continue;
                }
                other => other,
            };
            let part = named_realm.as_mut().or_else(|| parts.last_mut());
            part.ok_or_else(bad)?.push(plain);
        }
        let realm = match named_realm {
            Some(named) => named,
            None => realm.unwrap_or_default().to_owned(),
        };
        if realm.is_empty() || parts.iter().any(String::is_empty) {
            return Err(bad());
        }
        Ok(Self {
            components: parts,
            realm,
        })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, component) in self.components.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            escaped(f, component)?;
        }
        f.write_str("@")?;
        escaped(f, &self.realm)
    }
}

fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for character in text.chars() {
        if matches!(character, '/' | '@' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{character}")?;
    }
    Ok(())
}

const KRBTGT: &str = "krbtgt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, components, realm) in [
            ("alice", &["alice"][..], "LAB"),
            ("alice/admin@OTHER", &["alice", "admin"], "OTHER"),
            (r"a\/b\@c@R", &["a/b@c"], "R"),
            (
                "afs/lab.example@LAB.EXAMPLE",
                &["afs", "lab.example"],
                "LAB.EXAMPLE",
            ),
        ] {
            let principal = Principal::parse(text, Some("LAB")).unwrap();
            assert_eq!(principal, Principal::new(components, realm), "{text}");
            assert_eq!(Principal::parse(&principal.to_string(), None), Ok(principal));
        }
        for text in ["", "@R", "a//b@R", "a@", "a\\", "nobody"] {
            assert!(Principal::parse(text, None).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ticket_granters_are_known() {
        assert_eq!(Principal::ticket_granter("B", "A").to_string(), "krbtgt/B@A");
        assert_eq!(Principal::ticket_granter("B", "A").grants_for(), Some("B"));
        assert_eq!(Principal::new(&["afs", "B"], "A").grants_for(), None);
    }
}
