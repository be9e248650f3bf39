//! Ciphers that the security classes and Kerberos need.

pub mod des;
pub mod fcrypt;
pub mod krb5;
