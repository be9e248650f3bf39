//! What must hold for any input at all.
//!
//! The machine: a [`Target`] takes bytes, plays them to one part of the program and asserts what no input may break: no
//! panic, what is encoded is parsed as it was, nothing is kept or answered beyond its bound. `tests/corpus.rs` plays the
//! committed inputs of `corpus/` and mutations of them in every `make test`; `run` (`make fuzz`) looks for new ones with
//! libFuzzer. An input that fails is kept in `corpus/` for ever.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "the targets' own mistakes may panic")]

mod ack;
mod call_ops;
mod challenge;
mod debug;
mod directory;
mod input;
mod kerberos;
mod packet;
mod records;
mod rpc;
mod server;
mod text;

/// A part of the program that takes any input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of the folder with its corpus.
    pub name: &'static str,
    /// Plays an input. Panics if something does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "ack",
        run: ack::run,
    },
    Target {
        name: "call_ops",
        run: call_ops::run,
    },
    Target {
        name: "ccache",
        run: kerberos::ccache,
    },
    Target {
        name: "challenge",
        run: challenge::run,
    },
    Target {
        name: "debug",
        run: debug::run,
    },
    Target {
        name: "directory",
        run: directory::run,
    },
    Target {
        name: "jumbo",
        run: packet::jumbo,
    },
    Target {
        name: "kdc_reply",
        run: kerberos::kdc_reply,
    },
    Target {
        name: "keytab",
        run: kerberos::keytab,
    },
    Target {
        name: "krb5_conf",
        run: kerberos::krb5_conf,
    },
    Target {
        name: "packet",
        run: packet::run,
    },
    Target {
        name: "records",
        run: records::run,
    },
    Target {
        name: "rpc",
        run: rpc::run,
    },
    Target {
        name: "server",
        run: server::run,
    },
    Target {
        name: "text",
        run: text::run,
    },
];
