//! Who a caller is to a cell: Kerberos tickets, and the tokens made of them.
//!
//! The machine: a credential cache or a keytab gives a ticket-granting ticket; a KDC gives one for the cell's service in
//! exchange; that ticket, with the key inside, is the [`Token`] that calls to the cell's servers are made with. Who has a
//! key of the servers themselves makes [one](localauth) without a KDC. All of it is spoken here: no library of the system is
//! needed.

pub mod ccache;
mod ccache_file;
mod ccache_kcm;
mod ccache_keyring;
pub mod credential;
pub mod kdc;
pub(crate) mod keeper;
pub mod keytab;
pub mod krb5_conf;
pub mod localauth;
mod principal;
mod reader;
mod service;
pub mod source;
mod token;
pub(crate) mod tokens;

pub use principal::{BadPrincipal, Principal};
pub use reader::Malformed;
pub use service::{names_of_service, realm_of_cell};
pub use token::Token;
pub use tokens::{Identity, TokenRules};
