//! Faults on demand: on the n-th call that matches, do this.
//!
//! The machine: a [`Rule`] counts the calls it matches and fires on some of them; what it does is a list of
//! [`Action`]s. Every call asks the rules once, when it is known what it is for, and carries what they say with it. So a
//! fault sits at an exact place in an exact call, however threads run. Rules are made in Rust or read from a
//! script by [`parse`].

mod script;

use std::fmt;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use afs_client::rpc::types::AfsFid;
use parking_lot::Mutex;
use rxrpc::proto::AbortCode;

pub use script::{ScriptError, parse};

/// Which of the calls that match a rule fires on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From the first to the last, both counted from 1.
    Between(u64, u64),
    /// The n-th, the 2n-th and so on.
    Every(u64),
}

impl When {
    /// The n-th call only.
    #[must_use]
    pub const fn nth(n: u64) -> Self {
        Self::Between(n, n)
    }

    /// Every call.
    pub const ALWAYS: Self = Self::Every(1);

    const fn holds(self, seen: u64) -> bool {
        match self {
            Self::Between(first, last) => first <= seen && seen <= last,
            Self::Every(n) => n > 0 && seen.is_multiple_of(n),
        }
    }
}

/// A service of the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// File servers.
    File,
    /// The volume location server.
    Location,
}

/// Which calls a rule is about. `None` is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// The service.
    pub service: Service,
    /// The number of the procedure.
    pub opcode: Option<u32>,
    /// The file named first.
    pub fid: Option<AfsFid>,
    /// Who calls; port 0 is any.
    pub client: Option<SocketAddrV4>,
    /// Which file server is called, from 1.
    pub server: Option<usize>,
}

impl Calls {
    /// All calls of a procedure of the file servers.
    #[must_use]
    pub const fn to(opcode: u32) -> Self {
        Self {
            service: Service::File,
            opcode: Some(opcode),
            fid: None,
            client: None,
            server: None,
        }
    }

    fn matches(&self, call: &Seen) -> bool {
        let client = |wanted: SocketAddrV4| {
            wanted.ip() == call.client.ip() && (wanted.port() == 0 || wanted.port() == call.client.port())
        };
        self.service == call.service
            && self.opcode.is_none_or(|opcode| opcode == call.opcode)
            && self.fid.is_none_or(|fid| call.fid == Some(fid))
            && self.client.is_none_or(client)
            && self.server.is_none_or(|server| server == call.server)
    }
}

/// A place in the life of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing is done yet.
    Before,
    /// All is done, and the reply begun if it carries data; the rest is not sent.
    Between,
    /// The reply is sent.
    After,
}

/// What a reply lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It carries half of the data.
    ShortData,
    /// Its statuses have another data version.
    DataVersion,
    /// Its statuses are of nothing that there is.
    Status,
    /// A directory has a page that is none.
    DirectoryPage,
}

/// What a server remembers over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Hosts and promises, as one that saves its state.
    Kept,
    /// Nothing but the volumes, as after a crash.
    Lost,
}

/// What a hook does, in its own time.
pub type Hook = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What is done to a call.
#[derive(Clone)]
pub enum Action {
    /// It waits before anything is done.
    Delay(Duration),
    /// It is done, and the caller never hears of it: until the caller gives up nothing is said.
    DropReply,
    /// It is done twice, as by a server that takes a repeated request for a new one. The first answer counts.
    Duplicate,
    /// It is refused before anything is done.
    Abort(AbortCode),
    /// The caller's promise on the file is broken.
    Break(Moment),
    /// Breaks that it owes do not arrive: those they are for are down then, and hear at their next call what they have missed,
    /// or that they have missed something.
    Unheard(Memory),
    /// The server goes away and comes back; the call dies with it, before anything is done.
    Restart(Memory),
    /// The reply lies.
    Lie(Lie),
    /// The server takes calls and answers none, this one neither, for a while.
    Freeze(Duration),
    /// Data of this call moves at half the speed.
    HalfBandwidth,
    /// Something else happens, for tests.
    Run(Moment, Hook),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(time) => write!(f, "Delay({time:?})"),
            Self::DropReply => f.write_str("DropReply"),
            Self::Duplicate => f.write_str("Duplicate"),
            Self::Abort(code) => write!(f, "Abort({code})"),
            Self::Break(moment) => write!(f, "Break({moment:?})"),
            Self::Unheard(memory) => write!(f, "Unheard({memory:?})"),
            Self::Restart(memory) => write!(f, "Restart({memory:?})"),
            Self::Lie(lie) => write!(f, "Lie({lie:?})"),
            Self::Freeze(time) => write!(f, "Freeze({time:?})"),
            Self::HalfBandwidth => f.write_str("HalfBandwidth"),
            Self::Run(moment, _) => write!(f, "Run({moment:?})"),
        }
    }
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Rule {
    when: When,
    calls: Calls,
    actions: Vec<Action>,
    /// Calls that matched so far.
    seen: u64,
}

impl Rule {
    /// Does `actions` to some of the calls.
    #[must_use]
    pub fn new(when: When, calls: Calls, actions: impl Into<Vec<Action>>) -> Self {
        Self {
            when,
            calls,
            actions: actions.into(),
            seen: 0,
        }
    }
}

/// The rules of a cell. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Rule>>>);

/// A call as the rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) service: Service,
    pub(crate) opcode: u32,
    pub(crate) fid: Option<AfsFid>,
    pub(crate) client: SocketAddrV4,
    pub(crate) server: usize,
}

impl Faults {
    /// Adds a rule.
    pub fn add(&self, rule: Rule) {
        self.0.lock().push(rule);
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// What is done to this call: it counts as seen.
    pub(crate) fn on(&self, call: &Seen) -> Plan {
        let mut rules = self.0.lock();
        let mut actions = Vec::new();
        for rule in rules.iter_mut().filter(|rule| rule.calls.matches(call)) {
            rule.seen += 1;
            if rule.when.holds(rule.seen) {
                tracing::info!(?call, actions = ?rule.actions, "fault");
                actions.extend_from_slice(&rule.actions);
            }
        }
        Plan(actions)
    }
}

/// What is done to one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan(Vec<Action>);

impl Plan {
    pub(crate) fn actions(&self) -> &[Action] {
        &self.0
    }

    pub(crate) fn lie(&self) -> Option<Lie> {
        self.0.iter().find_map(|action| match action {
            Action::Lie(lie) => Some(*lie),
            _ => None,
        })
    }

    pub(crate) fn drops_reply(&self) -> bool {
        self.0.iter().any(|action| matches!(action, Action::DropReply))
    }

    /// What is remembered of the breaks that do not arrive, if they do not.
    pub(crate) fn unheard(&self) -> Option<Memory> {
        self.0.iter().find_map(|action| match action {
            Action::Unheard(memory) => Some(*memory),
            _ => None,
        })
    }

    pub(crate) fn is_done_twice(&self) -> bool {
        self.0.iter().any(|action| matches!(action, Action::Duplicate))
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.0
            .iter()
            .any(|action| matches!(action, Action::HalfBandwidth))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn call(opcode: u32, port: u16) -> Seen {
        Seen {
            service: Service::File,
            opcode,
            fid: Some(AfsFid {
                volume: 1,
                vnode: 2,
                unique: 3,
            }),
            client: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            server: 1,
        }
    }

    #[test]
    fn a_rule_fires_on_the_calls_it_counts() {
        let fires = |when, calls: Calls| {
            let faults = Faults::default();
            faults.add(Rule::new(when, calls, [Action::DropReply]));
            let fired = (0..12_u16).filter(|n| {
                let call = call(u32::from(n % 2), n / 6);
                faults.on(&call).drops_reply()
            });
            fired.collect::<Vec<_>>()
        };
        assert_eq!(fires(When::nth(2), Calls::to(1)), [3]);
        assert_eq!(fires(When::Between(2, 4), Calls::to(0)), [2, 4, 6]);
        assert_eq!(fires(When::Every(3), Calls::to(0)), [4, 10]);
        let any = Calls {
            opcode: None,
            ..Calls::to(0)
        };
        assert_eq!(fires(When::ALWAYS, any.clone()).len(), 12);
        let second = Calls {
            client: Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)),
            ..any.clone()
        };
        assert_eq!(fires(When::nth(1), second), [6]);
        for nobody in [
            Calls {
                fid: Some(AfsFid::default()),
                ..any.clone()
            },
            Calls {
                server: Some(2),
                ..any.clone()
            },
            Calls {
                service: Service::Location,
                ..any
            },
        ] {
            assert_eq!(fires(When::ALWAYS, nobody), []);
        }
    }
}
