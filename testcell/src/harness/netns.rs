//! Code inside another network namespace: a thread of its own that enters it and ends with the closure.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs a closure on a thread in the named namespace. Sockets made there stay there, wherever they are used later.
pub(crate) fn inside<T: Send>(name: &str, closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = Path::new("/run/netns").join(name);
    let namespace = File::open(&path).with_context(|| format!("namespace {}", path.display()))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("entering {}", path.display()))?;
            closure()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread in the namespace panicked")))
    })
}
