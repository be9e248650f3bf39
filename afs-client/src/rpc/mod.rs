//! The remote procedures: each is written once, in the table of its service.
//!
//! The machine: a row of a table gives number, name, arguments and results; `service!` makes of it a request that knows
//! its reply. [`client`] calls them, [`serve`] answers those of the callback service.

pub mod cb;
pub mod client;
pub mod fs;
pub mod pt;
pub mod serve;
pub mod types;
pub mod vl;

use rxrpc::proto::ServiceId;

use crate::vnode::status::BadStatus;
use crate::xdr::{Decode, Encode};

/// A request and what it is answered with.
pub trait Procedure: Encode + Decode + Send + Sync {
    /// What it is answered with.
    type Reply: Encode + Decode + Send;
    /// The first word of the request.
    const OPCODE: u32;
    /// Its name.
    const NAME: &'static str;
    /// The service that has it.
    const SERVICE: ServiceId;

    /// Does a reply make sense?
    ///
    /// # Errors
    ///
    /// No honest server sends it.
    fn check(&self, _reply: &Self::Reply) -> Result<(), BadStatus> {
        Ok(())
    }
}

/// Defines the procedures of a service, and the trait of those that answer them.
macro_rules! service {
    (
        $(#[$doc:meta])* service $service:literal, trait $server:ident;
        $($(#[$row_doc:meta])* $opcode:literal $name:ident $method:ident ($($arg:ident: $arg_type:ty),*)
            -> $reply:ident ($($result:ident: $result_type:ty),*) $(if $check:path)?;)*
    ) => {
        $(
            $crate::xdr::xdr_struct! {
                $(#[$row_doc])*
                pub struct $name { $(#[doc = concat!("Argument: ", stringify!($arg), ".")] $arg: $arg_type,)* }

                #[doc = concat!("What [`", stringify!($name), "`] is answered with.")]
                pub struct $reply { $(#[doc = concat!("Result: ", stringify!($result), ".")] $result: $result_type,)* }
            }

            impl $crate::rpc::Procedure for $name {
                type Reply = $reply;
                const OPCODE: u32 = $opcode;
                const NAME: &'static str = stringify!($name);
                const SERVICE: rxrpc::proto::ServiceId = rxrpc::proto::ServiceId($service);

                $(fn check(&self, reply: &$reply) -> Result<(), $crate::vnode::status::BadStatus> {
                    $check(self, reply)
                })?
            }
        )*

        /// Every procedure of the service: number and name.
        pub const PROCEDURES: &[(u32, &str)] = &[$(($opcode, stringify!($name)),)*];

        $(#[$doc])*
        pub trait $server: Send + Sync + 'static {
            $(
                $(#[$row_doc])*
                ///
                /// # Errors
                ///
                /// The code that the call is aborted with; by default that there is no such procedure.
                fn $method(
                    &self,
                    _peer: std::net::SocketAddrV4,
                    _request: $name,
                ) -> Result<$reply, rxrpc::proto::AbortCode> {
                    Err(rxrpc::proto::abort_codes::RXGEN_OPCODE)
                }
            )*

            /// Answers the call `opcode` with these arguments.
            ///
            /// # Errors
            ///
            /// The code that the call is aborted with.
            fn dispatch(
                &self,
                peer: std::net::SocketAddrV4,
                opcode: u32,
                arguments: &[u8],
            ) -> Result<Vec<u8>, rxrpc::proto::AbortCode> {
                match opcode {
                    $($opcode => {
                        let request = $crate::xdr::from_bytes(arguments)
                            .map_err(|_| rxrpc::proto::abort_codes::RXGEN_SS_UNMARSHAL)?;
                        let mut out = Vec::new();
                        $crate::xdr::Encode::encode(&self.$method(peer, request)?, &mut out);
                        Ok(out)
                    })*
                    _ => Err(rxrpc::proto::abort_codes::RXGEN_OPCODE),
                }
            }
        }
    };
}
use service;
