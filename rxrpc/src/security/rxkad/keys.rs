//! The keys with which a service opens tickets.

use std::fmt;

use crate::crypto::krb5::{Enctype, Key};

/// Keys of a service, by version and kind, as a keytab has them.
#[derive(Clone, Default)]
pub struct ServerKeys(Vec<(u32, Key)>);

impl ServerKeys {
    /// The key of a version and kind.
    #[must_use]
    pub fn find(&self, kvno: u32, enctype: Enctype) -> Option<&Key> {
        let found = self
            .0
            .iter()
            .find(|(version, key)| *version == kvno && key.enctype() == enctype);
        found.map(|(_, key)| key)
    }
}

impl FromIterator<(u32, Key)> for ServerKeys {
    fn from_iter<I: IntoIterator<Item = (u32, Key)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(kvno, _)| kvno))
            .finish()
    }
}
