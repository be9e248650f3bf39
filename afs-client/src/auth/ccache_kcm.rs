//! Credential caches with a daemon (KCM): a small protocol over a socket of the file system.
//!
//! The machine: a request is its length, a version, a number and parameters; a reply is its length, an error of the
//! transport, and then a status with data. Numbers are big-endian, names end with a zero byte.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::ccache::{CcacheError, Credentials};
use super::credential::Credential;
use super::reader::Reader;

/// Reads the cache `wanted`, or the one that the daemon calls the default.
pub(super) fn read(socket: &Path, wanted: Option<&str>) -> Result<Credentials, CcacheError> {
    let mut daemon = Daemon {
        name: format!("KCM:{}", wanted.unwrap_or_default()),
        stream: UnixStream::connect(socket).map_err(|error| CcacheError::Io {
            name: format!("KCM:{}", wanted.unwrap_or_default()),
            error: io::Error::new(error.kind(), format!("{}: {error}", socket.display())),
        })?,
    };
    let name = match wanted {
        Some(name) => [name.as_bytes(), b"\0"].concat(),
        None => daemon.ask(GET_DEFAULT_CACHE, &[])?.to_vec(),
    };
    let principal = daemon.ask(GET_PRINCIPAL, &name)?;
    let owner = Reader::new(&principal).principal();
    let owner = owner.map_err(|malformed| daemon.malformed(malformed))?;
    let identifiers = daemon.ask(GET_CREDENTIAL_UUIDS, &name)?;
    let mut credentials = Vec::new();
    for uuid in identifiers.chunks_exact(UUID_LEN).take(MAX_CREDENTIALS) {
        let reply = daemon.ask(GET_CREDENTIAL, &[name.as_slice(), uuid].concat())?;
        let credential = Credential::read(&mut Reader::new(&reply));
        credentials.push(credential.map_err(|malformed| daemon.malformed(malformed))?);
    }
    credentials.retain(|credential| !credential.is_note());
    Ok(Credentials { owner, credentials })
}

struct Daemon {
    name: String,
    stream: UnixStream,
}

impl Daemon {
    fn ask(&mut self, operation: u16, parameters: &[u8]) -> Result<Zeroizing<Vec<u8>>, CcacheError> {
        match self.exchange(operation, parameters) {
            Ok((0, reply)) => Ok(reply),
            Ok((KRB5_FCC_NOFILE | KRB5_CC_NOTFOUND, _)) => Err(CcacheError::Missing(self.name.clone())),
            Ok((code, _)) => Err(CcacheError::Refused {
                name: self.name.clone(),
                code,
            }),
            Err(error) => Err(CcacheError::Io {
                name: self.name.clone(),
                error,
            }),
        }
    }

    /// One request. Gives the status and the data behind it.
    fn exchange(&mut self, operation: u16, parameters: &[u8]) -> io::Result<(i32, Zeroizing<Vec<u8>>)> {
        let stream = &mut self.stream;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = [&VERSION[..], &operation.to_be_bytes(), parameters].concat();
        let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        stream.write_all(&[&length.to_be_bytes()[..], &request].concat())?;
        let length = u32::from_be_bytes(self.word()?);
        let transport = i32::from_be_bytes(self.word()?);
        if transport != 0 {
            return Ok((transport, Zeroizing::default()));
        }
        if !(4..=MAX_REPLY).contains(&length) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a reply of no possible length",
            ));
        }
        let status = i32::from_be_bytes(self.word()?);
        let rest = usize::try_from(length - 4).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut data = Zeroizing::new(vec![0; rest]);
        self.stream.read_exact(&mut data)?;
        Ok((status, data))
    }

    fn word(&mut self) -> io::Result<[u8; 4]> {
        let mut word = [0; 4];
        self.stream.read_exact(&mut word)?;
        Ok(word)
    }

    fn malformed(&self, malformed: super::reader::Malformed) -> CcacheError {
        CcacheError::Malformed {
            name: self.name.clone(),
            malformed,
        }
    }
}

const VERSION: [u8; 2] = [2, 0];
const GET_PRINCIPAL: u16 = 8;
const GET_CREDENTIAL_UUIDS: u16 = 9;
const GET_CREDENTIAL: u16 = 10;
const GET_DEFAULT_CACHE: u16 = 20;
const UUID_LEN: usize = 16;
const MAX_CREDENTIALS: usize = 1000;
const MAX_REPLY: u32 = 10 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
// Errors of the krb5 library that such daemons send.
const KRB5_CC_NOTFOUND: i32 = -1_765_328_243;
const KRB5_FCC_NOFILE: i32 = -1_765_328_189;
