//! The security classes, and which of them a client calls with.

mod null;
pub mod rxkad;

use std::sync::Arc;

pub use null::Null;

use crate::proto::{Connection, ConnectionParams, Level, PacketSecurity, SecurityIndex};

/// As whom a client calls, and how well protected. Calls that differ in this share no connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// As nobody, and not protected.
    #[default]
    None,
    /// As whom a ticket says.
    Rxkad {
        /// The ticket and its key.
        token: Arc<rxkad::Token>,
        /// How well protected.
        level: Level,
    },
}

impl Security {
    /// The class on the wire.
    #[must_use]
    pub fn index(&self) -> SecurityIndex {
        match self {
            Self::None => Null.index(),
            Self::Rxkad { .. } => rxkad::INDEX,
        }
    }

    /// A client's connection of this class.
    #[must_use]
    pub fn connect(&self, params: ConnectionParams) -> Connection {
        match self {
            Self::None => Connection::new(params),
            Self::Rxkad { token, level } => {
                let rxkad = rxkad::Rxkad::client(params.epoch, params.cid, token, *level);
                Connection::secured(params, Arc::new(rxkad))
            }
        }
    }
}
