//! Scopes: identities of process trees, as `afs pagsh` opens them.
//!
//! The machine: a scope is a process, named by its number and the time at which it started, and belongs to the user who
//! opened it. A request is in a scope if the process that makes it, or the nearest of its ancestors that has one, is that
//! process, and its user the scope's. A process whose ancestors have ended is a child of somebody else and out of the scope:
//! what it may do then is what its user may outside. The scope ends with its process.
//!
//! Only requests of users who have scopes look at `/proc`. An answer is believed for a second, by the same thread: it is
//! known by its start time too.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::process::{Process, process_of};
use parking_lot::Mutex;

/// The scopes of one mount.
#[derive(Debug, Default)]
pub struct Scopes {
    /// How many there are: without any nobody need look.
    count: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    opened: u64,
    open: HashMap<u32, Scope>,
    /// What was found out, by thread.
    found: HashMap<u32, Found>,
}

#[derive(Clone, Copy, Debug)]
struct Scope {
    number: u64,
    user: u32,
    start: u64,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    user: u32,
    start: u64,
    at: Instant,
    scope: Option<u64>,
}

impl Scopes {
    /// Makes a process of a user a scope. Gives its number, which no other has, ever.
    pub fn open(&self, user: u32, pid: u32) -> io::Result<u64> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the process cannot be seen from here");
        let start = Process::read(pid).ok_or_else(gone)?.start;
        let mut inner = self.inner.lock();
        let theirs = inner.open.values().filter(|scope| scope.user == user).count();
        if theirs >= MAX_OF_USER || inner.open.len() >= MAX {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "there are too many scopes",
            ));
        }
        inner.opened += 1;
        let number = inner.opened;
        inner.open.insert(pid, Scope { number, user, start });
        inner.found.clear();
        self.count.store(inner.open.len(), Ordering::Release);
        Ok(number)
    }

    /// Has its process ended?
    pub fn has_ended(&self, number: u64) -> bool {
        let scope = {
            let inner = self.inner.lock();
            let mut open = inner.open.iter();
            open.find(|(_, scope)| scope.number == number)
                .map(|(pid, scope)| (*pid, scope.start))
        };
        scope.is_none_or(|(pid, start)| Process::read(pid).is_none_or(|now| now.start != start))
    }

    /// Forgets one whose process has ended.
    pub fn close(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.open.retain(|_, scope| scope.number != number);
        inner.found.clear();
        self.count.store(inner.open.len(), Ordering::Release);
    }

    /// The scope in which a thread of a user is.
    pub fn of(&self, user: u32, thread: u32) -> Option<u64> {
        if self.count.load(Ordering::Acquire) == 0
            || !self.inner.lock().open.values().any(|scope| scope.user == user)
        {
            return None;
        }
        let caller = Process::read(thread)?;
        let now = Instant::now();
        let before = self.inner.lock().found.get(&thread).copied();
        if let Some(found) = before
            && (found.user, found.start) == (user, caller.start)
            && now.saturating_duration_since(found.at) < BELIEVED
        {
            return found.scope;
        }
        let scope = self.nearest(user, thread, caller);
        let mut inner = self.inner.lock();
        if inner.found.len() >= MAX {
            inner.found.clear();
        }
        // It may have been closed meanwhile.
        let scope = scope.filter(|number| inner.open.values().any(|scope| scope.number == *number));
        inner.found.insert(
            thread,
            Found {
                user,
                start: caller.start,
                at: now,
                scope,
            },
        );
        scope
    }

    /// The way up, from the process of a thread.
    fn nearest(&self, user: u32, thread: u32, caller: Process) -> Option<u64> {
        let mut pid = process_of(thread)?;
        let mut process = if pid == thread {
            caller
        } else {
            Process::read(pid)?
        };
        for _ in 0..GENERATIONS {
            let scope = self.inner.lock().open.get(&pid).copied();
            if let Some(scope) = scope
                && (scope.user, scope.start) == (user, process.start)
            {
                return Some(scope.number);
            }
            pid = process.parent;
            if pid <= 1 {
                return None;
            }
            // One that started after its child is another process that has the number of the parent now.
            let parent = Process::read(pid).filter(|parent| parent.start <= process.start)?;
            process = parent;
        }
        None
    }
}

/// How long an answer is believed. Within it a process that was given to another parent may still count as in the scope.
const BELIEVED: Duration = Duration::from_secs(1);
/// Ancestors that are looked at.
const GENERATIONS: usize = 128;
/// Scopes of one user.
const MAX_OF_USER: usize = 256;
/// Scopes, and threads of which it is known in which one they are.
const MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process with a child; the number of the child is its first line.
    fn family() -> (Child, u32) {
        use std::io::{BufRead as _, BufReader};
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (parent, line.trim().parse().unwrap())
    }

    fn end(child: u32) {
        let _ = Command::new("kill").arg(child.to_string()).status();
    }

    #[test]
    fn a_scope_is_a_process_with_its_descendants_and_of_one_user() {
        let (mut parent, child) = family();
        let scopes = Scopes::default();
        assert_eq!(scopes.of(7, child), None);
        let opened = scopes.open(7, parent.id()).unwrap();
        assert_eq!(scopes.of(7, parent.id()), Some(opened));
        assert_eq!(scopes.of(7, child), Some(opened));
        assert_eq!(scopes.of(8, child), None);
        assert_eq!(scopes.of(7, std::process::id()), None);
        // A scope below a scope is the nearer one.
        let inner = scopes.open(7, child).unwrap();
        assert_eq!(scopes.of(7, child), Some(inner));
        assert_eq!(scopes.of(7, parent.id()), Some(opened));
        scopes.close(inner);
        assert_eq!(scopes.of(7, child), Some(opened));
        // Who has lost the parent is out of it.
        assert!(!scopes.has_ended(opened));
        parent.kill().unwrap();
        parent.wait().unwrap();
        assert!(scopes.has_ended(opened));
        scopes.close(opened);
        assert_eq!(scopes.of(7, child), None);
        end(child);
    }

    #[test]
    fn a_number_that_comes_again_is_another_process() {
        let scopes = Scopes::default();
        let mine = std::process::id();
        let opened = scopes.open(7, mine).unwrap();
        assert_eq!(scopes.of(7, mine), Some(opened));
        {
            let mut inner = scopes.inner.lock();
            inner.open.get_mut(&mine).unwrap().start -= 1;
            inner.found.clear();
        }
        assert_eq!(scopes.of(7, mine), None);
        assert!(scopes.open(7, u32::MAX).is_err());
    }

    #[test]
    fn scopes_are_bounded() {
        let scopes = Scopes::default();
        let mine = std::process::id();
        let full = Scope {
            number: 0,
            user: 7,
            start: 0,
        };
        scopes.inner.lock().open.extend((0..256).map(|pid| (pid, full)));
        assert!(scopes.open(7, mine).is_err());
        assert!(scopes.open(8, mine).is_ok());
    }
}
