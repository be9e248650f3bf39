//! rxkad: authentication by Kerberos tickets, packets sealed with fcrypt.
//!
//! The machine: client and service share the session key of a ticket. The client seals its packets with it from the first
//! on. A service that sees them asks with a [`Challenge`]; the client answers with a [`Response`]: the ticket, and
//! a proof that it has the session key, bound to the connection and to the question. From then on each packet is checked by
//! the [`Session`]: a checksum of its place in every header, and at the higher levels the first block or all of it encrypted.
//!
//! The cipher is weak (see [`fcrypt`](crate::crypto::fcrypt)); the level that hides most is the one to use.
//!
//! rx-security.md 2 to 5.

mod code;
mod kdf;
mod proof;
mod session;

pub use code::Refusal;
pub use kdf::{NoKey, SessionKey};
pub use proof::{Challenge, Proven, Response};
pub use session::{Level, Session};
