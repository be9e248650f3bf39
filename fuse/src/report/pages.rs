//! The pages of debugging: lists of what there is at this moment.
//!
//! The machine: a page is made of rows of one kind. Its JSON is derived from them, and so is the table for people: a column
//! for each field. No page tells whose something is: whoever reaches the address of the metrics can read them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::time::SystemTime;

use rxrpc::net::Listed;
use rxrpc::proto::debug::PeerSnapshot;
use rxrpc::security::rxkad;
use serde::Serialize;

use super::Reports;
use super::status::{RoundTrips, ServerStatus};
use crate::telemetry::labels::{security_name, service_name, side_name};

/// Rows, as many as are shown, and how many there are.
#[derive(Clone, Debug, Serialize)]
pub struct Page<R> {
    /// How many there are.
    pub total: usize,
    /// Figures of all of them, if there are any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// Those that are shown.
    pub rows: Vec<R>,
}

/// One line of a page.
pub trait Row: Serialize {
    /// The names of the fields.
    const COLUMNS: &'static [&'static str];

    /// The fields, as people read them.
    fn cells(&self) -> Vec<String>;
}

/// A field of a row.
trait Cell {
    fn shown(&self) -> String;
}

macro_rules! cells {
    ($($kind:ty)*) => {
        $(impl Cell for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        })*
    };
}

cells! { bool u32 u64 usize String SocketAddrV4 &'static str }

impl Cell for f64 {
    fn shown(&self) -> String {
        format!("{self:.6}")
    }
}

impl<T: Cell> Cell for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "-".to_owned(), Cell::shown)
    }
}

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Serialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $kind,)*
            }

            impl Row for $name {
                const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];

                fn cells(&self) -> Vec<String> {
                    vec![$(self.$field.shown()),*]
                }
            }
        )*
    };
}

rows! {
    /// A connection.
    ConnectionRow {
        /// `client`: of calls that we make; `service`: of calls that are made to us.
        side: &'static str,
        /// The other end.
        peer: SocketAddrV4,
        /// The cell.
        cell: String,
        /// The service.
        service: &'static str,
        /// The security class.
        security: &'static str,
        /// `active`, `idle` or `aborted`.
        state: &'static str,
        /// In hexadecimal, as rxdebug and tshark show them.
        epoch: String,
        /// The same.
        cid: String,
        /// Its age.
        age_seconds: f64,
        /// Calls it has carried.
        calls: u64,
        /// The time to the peer and back.
        rtt_seconds: Option<f64>,
    }

    /// A call on a channel of a connection.
    CallRow {
        /// Which side we are.
        side: &'static str,
        /// The other end.
        peer: SocketAddrV4,
        /// The service.
        service: &'static str,
        /// In hexadecimal.
        epoch: String,
        /// The same, with the channel in its two low bits.
        cid: String,
        /// Its number.
        call: u32,
        /// `waiting` for a thread, `active`, `replied` and not acknowledged, or `over` and remembered.
        state: &'static str,
        /// `sending`, `receiving`, `failed` or `done`.
        mode: &'static str,
        /// Somebody waits for the other side.
        waits: bool,
    }

    /// A peer.
    PeerRow {
        /// Its address.
        peer: SocketAddrV4,
        /// Connections to and from it.
        connections: u32,
        /// The time to it and back.
        rtt_seconds: Option<f64>,
        /// Bytes of UDP payload that travel to it in one piece.
        datagram: u32,
        /// Packets sent to it.
        packets_sent: u64,
        /// How many of them were DATA sent again.
        packets_resent: u64,
        /// Packets from it.
        packets_received: u64,
        /// How often the network said that it cannot be reached.
        errors: u32,
        /// Packets sent to keep its way to us open.
        keep_alives: u64,
    }

    /// An address of a file server.
    ServerRow {
        /// A cell that it has volumes of.
        cell: String,
        /// What makes the server itself.
        server: String,
        /// The address.
        address: SocketAddrV4,
        /// It answers, or was never asked.
        up: bool,
        /// For how long the whole server has not answered.
        down_seconds: Option<f64>,
        /// The time to it and back.
        rtt_seconds: Option<f64>,
        /// The server has promised to call us.
        promised: bool,
    }

    /// What a server has promised.
    PromiseRow {
        /// The server.
        server: String,
        /// Where it is called.
        address: Option<SocketAddrV4>,
        /// Objects that it will tell of.
        promises: usize,
        /// When the first of these promises ends.
        first_ends_seconds: f64,
    }

    /// A token, without a word on whose it is.
    TokenRow {
        /// The cell.
        cell: String,
        /// The security class.
        security: &'static str,
        /// `valid` or `expired`.
        state: &'static str,
        /// When it ends, in seconds since the epoch.
        expires: u32,
        /// It is renewed here.
        renews: bool,
    }
}

impl Reports {
    /// The connections.
    pub fn connections(&self) -> Page<ConnectionRow> {
        let (listed, total) = self.fs.connections(SHOWN);
        Page::new(listed.iter().map(ConnectionRow::from), total)
    }

    /// The calls on them.
    pub fn calls(&self) -> Page<CallRow> {
        let (listed, _) = self.fs.connections(SHOWN);
        let rows: Vec<_> = listed.iter().flat_map(call_rows).collect();
        let total = rows.len();
        Page::new(rows, total)
    }

    /// The peers.
    pub fn peers(&self) -> Page<PeerRow> {
        let peers = self.fs.peers();
        let total = peers.len();
        Page::new(peers.into_iter().map(PeerRow::from), total)
    }

    /// The file servers.
    pub fn servers(&self) -> Page<ServerRow> {
        let trips = RoundTrips::now(self);
        let state = self.fs.state();
        let servers = state.servers.iter().map(|server| trips.server(server));
        let rows: Vec<_> = servers.flat_map(server_rows).collect();
        let total = rows.len();
        Page::new(rows, total)
    }

    /// The promises, and what became of breaks.
    pub fn callbacks(&self) -> Page<PromiseRow> {
        let promises = self.fs.promises();
        let total = promises.len();
        let rows = promises.into_iter().map(|promise| PromiseRow {
            server: promise.server.to_string(),
            address: promise.peer,
            promises: promise.count,
            first_ends_seconds: promise.first_ends.as_secs_f64(),
        });
        let mut page = Page::new(rows, total);
        let breaks = self
            .fs
            .breaks()
            .iter()
            .map(|(what, count)| (format!("broken_{what}"), count));
        page.counts.extend(breaks);
        page.counts
            .insert("broken_received".to_owned(), self.fs.breaks_received());
        page.counts
            .insert("last_request".to_owned(), self.fs.requests().last());
        let requests = self.fs.requests().iter().filter(|(_, count)| *count > 0);
        page.counts
            .extend(requests.map(|(rpc, count)| (format!("requests_{rpc}"), count)));
        page
    }

    /// The tokens.
    pub fn tokens(&self) -> Page<TokenRow> {
        let now = SystemTime::now();
        let held = self.fs.tokens();
        let total = held.len();
        let rows = held.into_iter().map(|held| TokenRow {
            cell: held.token.cell.to_string(),
            security: security_name(rxkad::INDEX),
            state: if held.token.is_expired(now) {
                "expired"
            } else {
                "valid"
            },
            expires: held.token.expires,
            renews: held.renews,
        });
        Page::new(rows, total)
    }
}

impl<R: Row> Page<R> {
    fn new(rows: impl IntoIterator<Item = R>, total: usize) -> Self {
        Self {
            total,
            counts: BTreeMap::new(),
            rows: rows.into_iter().take(SHOWN).collect(),
        }
    }

    /// For people: a line for each row, below the names of the columns.
    pub fn table(&self) -> String {
        let mut lines = vec![
            R::COLUMNS
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        ];
        lines.extend(self.rows.iter().map(Row::cells));
        let widest = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..R::COLUMNS.len()).map(widest).collect();
        let mut out = String::new();
        for line in &lines {
            let padded = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            let _ = writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        }
        let hidden = self.total.saturating_sub(self.rows.len());
        if hidden > 0 {
            let _ = writeln!(out, "and {hidden} more");
        }
        for (name, count) in &self.counts {
            let _ = writeln!(out, "{name} {count}");
        }
        out
    }
}

impl From<&Listed> for ConnectionRow {
    fn from(listed: &Listed) -> Self {
        let counted = &listed.counted;
        Self {
            side: side_name(counted.side),
            peer: listed.peer,
            cell: counted.scope.to_string(),
            service: service_name(counted.side, counted.service),
            security: security_name(listed.state.security),
            state: match () {
                () if listed.state.error.0 != 0 => "aborted",
                () if counted.idle => "idle",
                () => "active",
            },
            epoch: hexadecimal(listed.state.epoch.0),
            cid: hexadecimal(listed.state.cid.0),
            age_seconds: listed.age.as_secs_f64(),
            calls: listed.calls,
            rtt_seconds: listed.rtt.map(|rtt| rtt.smoothed.as_secs_f64()),
        }
    }
}

fn call_rows(listed: &Listed) -> Vec<CallRow> {
    let calls = (0_u32..).zip(&listed.state.calls);
    calls
        .filter(|(_, call)| call.state != 0)
        .map(|(channel, call)| CallRow {
            side: side_name(listed.counted.side),
            peer: listed.peer,
            service: service_name(listed.counted.side, listed.counted.service),
            epoch: hexadecimal(listed.state.epoch.0),
            cid: hexadecimal(listed.state.cid.0 | channel),
            call: call.number.0,
            state: match call.state {
                1 => "waiting",
                2 => "active",
                3 => "over",
                _ => "replied",
            },
            mode: match call.mode {
                1 => "sending",
                2 => "receiving",
                3 => "failed",
                _ => "done",
            },
            waits: call.flags & 1 != 0,
        })
        .collect()
}

impl From<PeerSnapshot> for PeerRow {
    fn from(peer: PeerSnapshot) -> Self {
        Self {
            peer: peer.address,
            connections: peer.connections.into(),
            rtt_seconds: peer.rtt.map(|rtt| rtt.smoothed.as_secs_f64()),
            datagram: peer.datagram.into(),
            packets_sent: peer.packets_sent,
            packets_resent: peer.packets_resent,
            packets_received: peer.packets_received,
            errors: peer.errors,
            keep_alives: peer.keep_alives_sent,
        }
    }
}

fn server_rows(server: ServerStatus) -> Vec<ServerRow> {
    let row = |address: super::status::AddressStatus| ServerRow {
        cell: server.cell.clone(),
        server: server.id.clone(),
        address: address.address,
        up: address.up,
        down_seconds: server.down_seconds,
        rtt_seconds: address.rtt_seconds,
        promised: server.promised,
    };
    server.addresses.iter().cloned().map(row).collect()
}

fn hexadecimal(number: u32) -> String {
    format!("{number:08x}")
}

/// What is shown of more.
const SHOWN: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_table_and_says_what_it_leaves_out() {
        let row = |cell: &str| TokenRow {
            cell: cell.to_owned(),
            security: "rxkad",
            state: "valid",
            expires: 7,
            renews: true,
        };
        let mut page = Page::new([row("a"), row("long.example")], 5);
        page.counts.insert("all".to_owned(), 9);
        assert_eq!(
            page.table(),
            "cell          security  state  expires  renews\n\
             a             rxkad     valid  7        true\n\
             long.example  rxkad     valid  7        true\n\
             and 3 more\nall 9\n"
        );
        let json = serde_json::to_value(&page).unwrap();
        assert_eq!(
            (&json["total"], &json["rows"][1]["cell"]),
            (&5.into(), &"long.example".into())
        );
    }

    #[test]
    fn pages_are_bounded() {
        let rows = (0..SHOWN + 7).map(|_| PromiseRow {
            server: String::new(),
            address: None,
            promises: 1,
            first_ends_seconds: 0.5,
        });
        let page = Page::new(rows, SHOWN + 7);
        assert_eq!(page.rows.len(), SHOWN);
        assert!(page.table().ends_with("and 7 more\n"), "{}", page.table().len());
    }
}
