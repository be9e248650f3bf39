//! Credential caches in files (MIT's format, version 4).

use std::path::Path;

use super::ccache::{CcacheError, Credentials};
use super::credential::Credential;
use super::reader::{Malformed, Reader};

/// Reads a cache.
///
/// # Errors
///
/// There is none, it cannot be read, or it is damaged.
pub(super) fn read(path: &Path) -> Result<Credentials, CcacheError> {
    let name = || format!("FILE:{}", path.display());
    let data = std::fs::read(path).map_err(|error| CcacheError::io(name(), error))?;
    let data = zeroize::Zeroizing::new(data);
    parse(&data).map_err(|malformed| CcacheError::Malformed {
        name: name(),
        malformed,
    })
}

pub(super) fn parse(data: &[u8]) -> Result<Credentials, Malformed> {
    let mut input = Reader::new(data);
    if input.u16()? != VERSION_4 {
        return Err(Malformed {
            at: 0,
            what: "not a credential cache of version 4",
        });
    }
    let _tags = input.short_bytes()?;
    let owner = input.principal()?;
    let mut credentials = Vec::new();
    while !input.is_empty() {
        credentials.push(Credential::read(&mut input)?);
    }
    credentials.retain(|credential| !credential.is_note());
    Ok(Credentials { owner, credentials })
}

const VERSION_4: u16 = 0x0504;
