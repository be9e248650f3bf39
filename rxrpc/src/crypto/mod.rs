//! Ciphers that the security classes and Kerberos need.

pub mod krb5;
