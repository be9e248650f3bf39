//! The parts of the afs program: command line, mount and daemon, the adapter between FUSE and `afs-client`, telemetry.
//!
//! Time is taken here; the layers below get it as an argument.
#![allow(clippy::disallowed_methods, reason = "this crate is where clocks may be read")]
#![deny(unsafe_code)]

pub mod adapter;
pub mod attach;
pub mod cli;
pub mod ctl;
pub mod daemon;
pub mod demo;
mod descriptors;
pub mod environment;
pub mod failure;
pub mod fstab;
pub mod identity;
pub mod inode;
pub mod keeper;
pub mod kept;
pub mod kernel;
pub mod mount;
pub mod mount_table;
pub mod notify;
pub mod owners;
pub mod pagsh;
pub mod process;
pub mod program;
pub mod protection;
pub mod read_ahead;
pub mod report;
pub mod restore;
pub mod scope;
pub mod secret;
pub mod serve;
pub mod service;
pub mod session;
pub mod size;
pub mod status;
pub mod telemetry;
pub mod token;
pub mod top;
pub mod trace;
pub mod why;
