//! FUSE operations and their results: closed sets, so that counting one is an array access.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use rustix::io::Errno;

macro_rules! ops {
    ($($variant:ident $name:literal,)*) => {
        /// A FUSE operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Op {
            $(#[doc = $name] $variant,)*
        }

        impl Op {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its label.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

ops! {
    Access "access",
    Create "create",
    Fallocate "fallocate",
    Flush "flush",
    Fsync "fsync",
    Fsyncdir "fsyncdir",
    Getattr "getattr",
    Getlk "getlk",
    Getxattr "getxattr",
    Link "link",
    Listxattr "listxattr",
    Lookup "lookup",
    Mkdir "mkdir",
    Mknod "mknod",
    Open "open",
    Opendir "opendir",
    Read "read",
    Readdir "readdir",
    Readdirplus "readdirplus",
    Readlink "readlink",
    Release "release",
    Releasedir "releasedir",
    Removexattr "removexattr",
    Rename "rename",
    Rmdir "rmdir",
    Setattr "setattr",
    Setlk "setlk",
    Setxattr "setxattr",
    Statfs "statfs",
    Symlink "symlink",
    Unlink "unlink",
    Write "write",
}

/// The errors that have a label of their own; the rest is `other`.
const RESULTS: &[(Errno, &str)] = &[
    (Errno::ACCESS, "EACCES"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::BADF, "EBADF"),
    (Errno::BUSY, "EBUSY"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::DQUOT, "EDQUOT"),
    (Errno::EXIST, "EEXIST"),
    (Errno::FBIG, "EFBIG"),
    (Errno::INTR, "EINTR"),
    (Errno::INVAL, "EINVAL"),
    (Errno::IO, "EIO"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::MLINK, "EMLINK"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG"),
    (Errno::NODATA, "ENODATA"),
    (Errno::NODEV, "ENODEV"),
    (Errno::NOENT, "ENOENT"),
    (Errno::NOMEDIUM, "ENOMEDIUM"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::NOTEMPTY, "ENOTEMPTY"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::PERM, "EPERM"),
    (Errno::RANGE, "ERANGE"),
    (Errno::ROFS, "EROFS"),
    (Errno::STALE, "ESTALE"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::XDEV, "EXDEV"),
];

/// The label of an errno, if it has one of its own.
pub(super) fn result_name(errno: i32) -> Option<&'static str> {
    RESULTS
        .iter()
        .find(|(known, _)| known.raw_os_error() == errno)
        .map(|(_, name)| *name)
}

/// Counts what became of the requests. Children are resolved once.
pub struct OpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    rows: Vec<Row>,
}

struct Row {
    duration: OnceLock<Histogram>,
    /// One per result: success, the named errors, other.
    results: Vec<OnceLock<IntCounter>>,
}

impl OpMetrics {
    pub(super) fn new(requests: IntCounterVec, durations: HistogramVec) -> Self {
        let results = || (0..RESULTS.len() + 2).map(|_| OnceLock::new()).collect();
        let rows = Op::ALL
            .iter()
            .map(|_| Row {
                duration: OnceLock::new(),
                results: results(),
            })
            .collect();
        Self {
            requests,
            durations,
            rows,
        }
    }

    /// Counts one answered request.
    pub fn done(&self, op: Op, result: Result<(), i32>, duration: Duration) {
        let (slot, name) = match result {
            Ok(()) => (0, "ok"),
            Err(errno) => RESULTS
                .iter()
                .position(|(known, _)| known.raw_os_error() == errno)
                .and_then(|index| RESULTS.get(index).map(|(_, name)| (index + 1, *name)))
                .unwrap_or((RESULTS.len() + 1, "other")),
        };
        let Some(row) = self.rows.get(op as usize) else {
            return;
        };
        row.duration
            .get_or_init(|| self.durations.with_label_values(&[op.name()]))
            .observe(duration.as_secs_f64());
        if let Some(counter) = row.results.get(slot) {
            counter
                .get_or_init(|| self.requests.with_label_values(&[op.name(), name]))
                .inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_its_index() {
        for (index, op) in Op::ALL.iter().enumerate() {
            assert_eq!(*op as usize, index);
        }
    }
}
