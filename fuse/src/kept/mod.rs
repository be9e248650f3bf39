//! What must outlive the process that serves a mount, so that another can go on where it stopped.
//!
//! The machine: somebody else (`afs keeper`, systemd) holds the descriptor of the kernel's device and that of a [`Log`] in
//! memory. The process writes each step down before the kernel can know of it: node ids given, names, open files, changes
//! begun and done. One that takes over reads the [`Image`], and has the kernel send again what was not answered. A change is
//! not made twice: what was written down of it is the answer; if only its beginning was, the names themselves tell whether it
//! was made. Data that was written and that neither a server nor a cache directory has is lost with the process: whoever has
//! such a file open is told so by every further use of it.

mod image;
mod log;
mod record;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use afs_client::auth::{Holding, Identity, Token};
use afs_client::fs::{AfsFs, HandleId, OpenFlags};
use afs_client::lock::LeftLocks;
use afs_client::types::{CellId, Fid};
use parking_lot::Mutex;

use crate::ctl::Request;
use crate::inode::Names;

pub use image::{Change, Image, Node};
pub use log::Log;
pub use record::{Init, OpenFile, Outcome, Record};

/// The written state of a mount that is being served.
pub struct Kept {
    log: Mutex<Option<Log>>,
    cells: Mutex<Numbers>,
    names: Arc<Names>,
    fs: AfsFs,
    /// How often each file was written to since a server had all of it.
    written: Mutex<HashMap<Fid, u64>>,
    before: Mutex<Before>,
}

/// The numbers that the log has for cells.
#[derive(Debug, Default)]
struct Numbers {
    of: HashMap<CellId, CellId>,
    names: HashMap<String, CellId>,
}

/// What the process before has left behind.
#[derive(Debug, Default)]
struct Before {
    /// Its changes that were not answered.
    changes: HashMap<u64, Change>,
    /// Its handles, by the requests that opened them.
    opened: HashMap<u64, OpenFile>,
    /// Its handles whose data is lost.
    spoiled: HashSet<u64>,
}

impl Kept {
    /// Writes on in a log.
    pub fn new(log: Log, image: &Image, names: Arc<Names>, fs: AfsFs) -> Self {
        let names_of_cells = image.cells.iter().map(|(id, name)| (name.clone(), *id));
        let kept = Self {
            log: Mutex::new(Some(log)),
            cells: Mutex::new(Numbers {
                of: HashMap::new(),
                names: names_of_cells.collect(),
            }),
            names,
            fs,
            written: Mutex::default(),
            before: Mutex::default(),
        };
        kept.write(&Record::Attached);
        kept
    }

    /// Writes down how the session with the kernel begins.
    pub fn begin(&self, init: Init) {
        self.write(&Record::Init(init));
    }

    /// The kernel is about to be given a node id once more.
    pub fn looked(&self, node: u64, fid: Fid) {
        let (fid, times) = (self.stored(fid), 1);
        self.write(&Record::Looked { node, fid, times });
    }

    /// The kernel gave it back.
    pub fn forgot(&self, node: u64, times: u64) {
        self.write(&Record::Forgot { node, times });
    }

    /// The kernel may come to believe in a name.
    pub fn named(&self, directory: u64, name: &[u8]) {
        self.write(&Record::Name(directory, name.into()));
    }

    /// A file is open; the kernel does not know yet.
    pub fn opened(&self, unique: u64, handle: HandleId, fid: Fid, flags: OpenFlags, who: Identity) {
        self.write(&Record::Opened(OpenFile {
            unique: plain(unique),
            handle: handle.0,
            fid: self.stored(fid),
            flags,
            who,
        }));
    }

    /// The kernel is about to read it by itself.
    pub fn lent(&self, handle: HandleId, node: u64) {
        let handle = handle.0;
        self.write(&Record::Lent { handle, node });
    }

    /// The object of a node is about to get another one.
    pub fn retired(&self, node: u64) {
        self.write(&Record::Retired(node));
    }

    /// It is not any more.
    pub fn released(&self, handle: HandleId) {
        self.before.lock().spoiled.remove(&handle.0);
        self.write(&Record::Released(handle.0));
    }

    /// Something was written to a file; who wrote it does not know yet.
    pub fn wrote(&self, fid: Fid) {
        let first = {
            let mut written = self.written.lock();
            let times = written.entry(fid).or_insert(0);
            *times += 1;
            *times == 1
        };
        if first {
            self.write(&Record::Dirty(self.stored(fid)));
        }
    }

    /// What was written to a file so far: to be asked before it is stored.
    pub fn written(&self, fid: Fid) -> Option<u64> {
        self.written.lock().get(&fid).copied()
    }

    /// A server has all that was written up to then.
    pub fn stored_all(&self, fid: Fid, written: Option<u64>) {
        let clean = {
            let mut now = self.written.lock();
            let clean = written.is_some() && now.get(&fid).copied() == written;
            if clean {
                now.remove(&fid);
            }
            clean
        };
        if clean {
            self.write(&Record::Clean(self.stored(fid)));
        }
    }

    /// Writes down who has which tokens.
    pub fn has_tokens(&self, held: &[Holding]) {
        let request = |token: &Arc<Token>| Request::SetToken(Box::new(Token::clone(token)), None);
        let tokens = held
            .iter()
            .map(|held| (held.owner, request(&held.token).encode()));
        self.write(&Record::Tokens(tokens.collect()));
    }

    /// A file that was removed while it was open is hidden, or gone.
    pub fn hides(&self, words: &str, is_hidden: bool) {
        self.write(&Record::Hidden(words.to_owned(), is_hidden));
    }

    /// What programs hold on a file from now on.
    pub fn locked(&self, fid: Fid, left: LeftLocks) {
        self.write(&Record::Locks(self.stored(fid), left));
    }

    /// A server has all that was written to some files.
    pub fn stored_where(&self, is_stored: impl Fn(Fid) -> bool) {
        let files: Vec<_> = self
            .written
            .lock()
            .iter()
            .map(|(fid, times)| (*fid, *times))
            .collect();
        for (fid, times) in files {
            if is_stored(fid) {
                self.stored_all(fid, Some(times));
            }
        }
    }

    /// A change is about to be made. Of one that the process before had begun, what was written down.
    pub fn begun(&self, unique: u64, seen: Option<Fid>) {
        let seen = seen.map(|fid| self.stored(fid));
        self.write(&Record::Begun(plain(unique), seen));
    }

    /// What came of it; the kernel does not know yet.
    pub fn done(&self, unique: u64, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Found(fid) => Outcome::Found(self.stored(fid)),
            Outcome::Open(fid, handle) => Outcome::Open(self.stored(fid), handle),
            other => other,
        };
        self.write(&Record::Done(plain(unique), outcome));
    }

    /// The kernel knows.
    pub fn answered(&self, unique: u64) {
        self.write(&Record::Answered(plain(unique)));
    }

    /// What the process before had begun for this request, if the kernel sends it again.
    pub fn change_before(&self, unique: u64) -> Option<Change> {
        is_resent(unique)
            .then(|| self.before.lock().changes.remove(&plain(unique)))
            .flatten()
    }

    /// What the process before had opened for this request, if the kernel sends it again.
    pub fn opened_before(&self, unique: u64) -> Option<HandleId> {
        is_resent(unique)
            .then(|| self.before.lock().opened.remove(&plain(unique)))
            .flatten()
            .map(|file| HandleId(file.handle))
    }

    /// Was something written through this handle to the process before, and lost with it?
    pub fn is_spoiled(&self, handle: u64) -> bool {
        let before = self.before.lock();
        !before.spoiled.is_empty() && before.spoiled.contains(&handle)
    }

    /// A change that the process before has begun, in numbers of this one.
    pub fn inherit_change(&self, unique: u64, change: Change) {
        self.before.lock().changes.insert(unique, change);
    }

    /// An open file that the process before has left.
    pub fn inherit_open(&self, file: OpenFile, spoiled: bool) {
        let mut before = self.before.lock();
        before.opened.insert(file.unique, file);
        if spoiled {
            before.spoiled.insert(file.handle);
        }
    }

    /// The FID with the log's number for its cell.
    fn stored(&self, fid: Fid) -> Fid {
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.of.get(&fid.cell) {
            return Fid { cell: *cell, ..fid };
        }
        // The synthetic root is of no cell.
        let Some(name) = self.fs.cell_name(fid.cell) else {
            return fid;
        };
        let next = u32::try_from(cells.names.len() + 1).unwrap_or(u32::MAX);
        let name = name.to_string();
        let (number, is_new) = match cells.names.get(&name) {
            Some(number) => (*number, false),
            None => (CellId(next), true),
        };
        cells.of.insert(fid.cell, number);
        if is_new {
            cells.names.insert(name.clone(), number);
            // Before the lock is given back: nobody is to use the number before it is explained.
            self.write(&Record::Cell(number, name));
        }
        Fid { cell: number, ..fid }
    }

    fn write(&self, record: &Record) {
        let mut log = self.log.lock();
        let Some(open) = log.as_mut() else {
            return;
        };
        let believed = |directory, name: &[u8]| self.names.knows(directory, name);
        if let Err(error) = open.append(record, &believed) {
            tracing::error!(%error, "the state of the mount cannot be kept: no other process can take it over");
            open.spoil();
            *log = None;
        }
    }
}

/// Does the kernel send this request for a second time?
pub const fn is_resent(unique: u64) -> bool {
    unique & RESENT != 0
}

/// The number that the request had at first.
const fn plain(unique: u64) -> u64 {
    unique & !RESENT
}

/// FUSE_UNIQUE_RESEND.
const RESENT: u64 = 1 << 63;
