//! A whole AFS cell in this process: a volume location server and file servers on loopback addresses.
//!
//! The machine: a [`Cell`] owns its servers, each an RxRPC endpoint with volumes, hosts and promises of its
//! own, built on the same procedure tables as the client. It behaves as OpenAFS does where a client can tell
//! (afs-rpc.md 11): callbacks come before the change is answered, an unknown client is asked who it is, a dead one is
//! waited for once. It fails on demand: servers stop, restart and freeze, and [fault rules](faults) act on single calls.
//! Who shows a ticket has the rights of its owner, if the cell has a key ([`Accounts`]); others are anonymous. What belongs
//! to administrators is done through the [`Cell`] itself.

mod accounts;
mod answer;
mod breaks;
mod cell;
mod clock;
mod content;
pub mod faults;
mod furniture;
mod hosts;
mod location;
mod location_server;
mod offline;
mod procedures;
mod promises;
mod server;
mod storage;

pub use accounts::Accounts;
pub use cell::{Cell, CellError, Settings};
pub use clock::Clock;
pub use offline::Offline;
