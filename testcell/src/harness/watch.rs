//! The clients that run now, and the watch that ends them when a test takes too long.

use std::process::{Child, ExitStatus};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::harness::command::kill_group;

/// A client's process, shared by its mount and the watch.
pub(crate) type Process = Arc<Mutex<Child>>;

/// Every client that was started and may still run.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Vec<Process>>);

impl Clients {
    pub(crate) fn add(&self, child: Child) -> Process {
        let process = Arc::new(Mutex::new(child));
        locked(&self.0).push(Arc::clone(&process));
        process
    }

    pub(crate) fn forget(&self, process: &Process) {
        locked(&self.0).retain(|other| !Arc::ptr_eq(other, process));
    }

    /// Kills what still runs. Whoever waits in one of the mounts gets an error then.
    pub(crate) fn kill_all(&self) {
        for process in locked(&self.0).iter() {
            if matches!(status(process), Ok(None)) {
                kill_group(&locked(process), Signal::KILL);
            }
        }
    }
}

/// How the process ended, if it has.
pub(crate) fn status(process: &Process) -> Result<Option<ExitStatus>> {
    Ok(locked(process).try_wait()?)
}

/// A lock whose holder may have panicked: what it guards is a child or a list, never half changed.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills the clients unless it is dropped within its limit.
#[derive(Debug)]
pub(crate) struct Watch {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(clients: Arc<Clients>, limit: Duration) -> Self {
        let (done, ended) = channel();
        let thread = std::thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("testcell: the test takes more than {limit:?}: its clients are killed");
                clients.kill_all();
            }
        });
        Self {
            done: Some(done),
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
