//! How a call fails, and how long it may take.

use std::time::Duration;

use crate::proto::AbortCode;

/// Why a call ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer aborted the call.
    #[error("aborted by the peer with code {0}")]
    Aborted(AbortCode),
    /// The peer aborted the whole connection.
    #[error("connection aborted by the peer with code {0}")]
    ConnectionAborted(AbortCode),
    /// The peer lives but the call made no progress, or took longer than it may.
    #[error("the call took too long")]
    TimedOut,
    /// Nothing was heard from the peer.
    #[error("no answer from the peer")]
    PeerDead,
    /// The network says that the peer cannot be reached (an `errno`). It has not had the request whole.
    #[error("the peer cannot be reached: {}", std::io::Error::from_raw_os_error(*.0))]
    Unreachable(i32),
    /// The network says that the peer cannot be reached any more (an `errno`). It may have had the request.
    #[error("the peer cannot be reached any more: {}", std::io::Error::from_raw_os_error(*.0))]
    PathBroken(i32),
    /// The server no longer knows a call that it had acknowledged: it has restarted.
    #[error("the server has forgotten the call")]
    CallLost,
    /// The peer broke a rule of the protocol; the code is the one it was told.
    #[error("protocol error ({0})")]
    Protocol(AbortCode),
    /// We aborted it ourselves.
    #[error("given up with code {0}")]
    LocalAbort(AbortCode),
    /// The slot names no call any more.
    #[error("the call is over")]
    Released,
    /// The endpoint is shut down.
    #[error("the endpoint is shut down")]
    Shutdown,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Longest silence of the peer. It is kept from being silent by pings.
    pub dead_in: Duration,
    /// Longest time without progress of a peer that is alive.
    pub idle_in: Option<Duration>,
    /// Longest time in all.
    pub hard_in: Option<Duration>,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            dead_in: Duration::from_secs(50),
            idle_in: None,
            hard_in: None,
        }
    }
}
