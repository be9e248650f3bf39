//! The class without security: index 0, bodies as they are.

use bytes::Bytes;

use crate::proto::{AbortCode, PacketSecurity, Place, Sealed, SecurityIndex};

/// No authentication, no checksums, no encryption.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

impl PacketSecurity for Null {
    fn index(&self) -> SecurityIndex {
        SecurityIndex(0)
    }

    fn payload_max(&self, room: usize) -> usize {
        room
    }

    fn seal(&self, _place: Place, payload: Bytes) -> Sealed {
        Sealed {
            body: payload,
            checksum: 0,
        }
    }

    fn open(&self, _place: Place, _checksum: u16, body: Bytes) -> Result<Bytes, AbortCode> {
        Ok(body)
    }
}
