//! The class without security: index 0, bodies as they are.

use bytes::Bytes;

use crate::proto::{
    AbortCode, CallNumber, ChannelIndex, PacketSecurity, Place, Sealed, SecurityIndex, abort_codes,
};

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

    fn seal(&self, _first: Place, _bodies: &mut [Sealed]) {}

    fn check(&self, _place: Place, _checksum: u16, _body: &[u8]) -> Result<(), AbortCode> {
        Ok(())
    }

    fn open(&self, _place: Place, _checksum: u16, body: Bytes) -> Result<Bytes, AbortCode> {
        Ok(body)
    }

    /// Nobody is to be asked who he is (rx-security.md 1).
    fn respond(
        &self,
        _challenge: &[u8],
        _calls: [CallNumber; ChannelIndex::COUNT],
    ) -> Result<Bytes, AbortCode> {
        Err(abort_codes::RX_PROTOCOL_ERROR)
    }
}
