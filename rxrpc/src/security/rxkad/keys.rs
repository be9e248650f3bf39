//! The keys with which a service opens tickets.

use std::fmt;

use crate::crypto::des;
use crate::crypto::krb5::{Enctype, Key};

/// Keys of a service, by version and kind: those that a keytab has, and those of DES, for tickets of Kerberos 4.
#[derive(Clone, Default)]
pub struct ServerKeys {
    keys: Vec<(u32, Key)>,
    des: Vec<(u32, des::Key)>,
}

impl ServerKeys {
    /// These keys, and one of DES.
    #[must_use]
    pub fn with_des(mut self, kvno: u32, key: des::Key) -> Self {
        self.des.push((kvno, key));
        self
    }

    /// The DES key of a version.
    #[must_use]
    pub fn find_des(&self, kvno: u32) -> Option<&des::Key> {
        let found = self.des.iter().find(|(version, _)| *version == kvno);
        found.map(|(_, key)| key)
    }

    /// The key of a version and kind.
    #[must_use]
    pub fn find(&self, kvno: u32, enctype: Enctype) -> Option<&Key> {
        let found = self
            .keys
            .iter()
            .find(|(version, key)| *version == kvno && key.enctype() == enctype);
        found.map(|(_, key)| key)
    }
}

impl FromIterator<(u32, Key)> for ServerKeys {
    fn from_iter<I: IntoIterator<Item = (u32, Key)>>(keys: I) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            des: Vec::new(),
        }
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self.keys.iter().map(|(kvno, _)| kvno);
        let of_des = self.des.iter().map(|(kvno, _)| kvno);
        f.debug_list().entries(versions.chain(of_des)).finish()
    }
}
