//! Answering procedures.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use parking_lot::Mutex;
use rxrpc::net::{Service, ServiceCall};
use rxrpc::proto::{AbortCode, abort_codes};

use super::cb::{CallbackServer, PROCEDURES};
use crate::clock;
use crate::xdr::{Decode, from_bytes};

/// Answers the calls of the callback service.
pub struct Callbacks {
    /// What answers them.
    pub server: Arc<dyn CallbackServer>,
    /// What counts them.
    pub counts: Arc<RequestCounts>,
}

/// How often each procedure of the callback service was asked for, and when one was last.
#[derive(Debug)]
pub struct RequestCounts {
    counts: [AtomicU64; PROCEDURES.len()],
    /// In seconds since the epoch.
    last: AtomicU64,
    /// The same of each address that has asked, the latest ones.
    heard: Mutex<LruCache<Ipv4Addr, u64>>,
}

impl Default for RequestCounts {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            last: AtomicU64::new(0),
            heard: Mutex::new(LruCache::new(HEARD)),
        }
    }
}

impl RequestCounts {
    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        PROCEDURES
            .iter()
            .zip(&self.counts)
            .map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
    }

    /// When one was last asked for, in seconds since the epoch; 0 if none was.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// The same, of who has these addresses.
    #[must_use]
    pub fn last_of(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> u64 {
        let heard = self.heard.lock();
        let times = addresses.into_iter().filter_map(|address| heard.peek(&address));
        times.max().copied().unwrap_or(0)
    }

    /// Counts a request for the procedure with this number; gives its name, if there is such a procedure.
    fn count(&self, peer: SocketAddrV4, opcode: u32) -> Option<&'static str> {
        let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        self.last.store(now, Ordering::Relaxed);
        self.heard.lock().put(*peer.ip(), now);
        let mut known = PROCEDURES.iter().zip(&self.counts);
        let ((_, name), count) = known.find(|((number, _), _)| *number == opcode)?;
        count.fetch_add(1, Ordering::Relaxed);
        Some(name)
    }
}

impl Service for Callbacks {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (server, counts) = (Arc::clone(&self.server), Arc::clone(&self.counts));
        Box::pin(async move {
            match answer(&*server, &counts, &mut call).await {
                Ok(()) => {}
                Err(code) => call.abort(code),
            }
        })
    }
}

async fn answer(
    server: &dyn CallbackServer,
    counts: &RequestCounts,
    call: &mut ServiceCall,
) -> Result<(), AbortCode> {
    let peer = call.peer();
    let mut request = Request::new(call);
    let opcode = request.opcode().await?;
    request
        .call
        .set_name(counts.count(peer, opcode).unwrap_or_default());
    let arguments = request.arguments(REQUEST_MAX).await?;
    let reply = server.dispatch(peer, opcode, &arguments)?;
    reply_with(call, [reply.into()]).await
}

/// The request of a call, read as it comes.
#[derive(Debug)]
pub struct Request<'a> {
    call: &'a mut ServiceCall,
    /// What came and was not asked for yet.
    here: BytesMut,
}

impl<'a> Request<'a> {
    /// Reads from the beginning.
    pub fn new(call: &'a mut ServiceCall) -> Self {
        Self {
            call,
            here: BytesMut::new(),
        }
    }

    /// The first word: which procedure is asked for.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn opcode(&mut self) -> Result<u32, AbortCode> {
        self.head().await
    }

    /// All that is left, which may be at most `max` bytes.
    ///
    /// # Errors
    ///
    /// It is longer, or the call has failed.
    pub async fn arguments(mut self, max: usize) -> Result<BytesMut, AbortCode> {
        while self.here.len() <= max {
            if !self.more().await? {
                return Ok(self.here);
            }
        }
        Err(abort_codes::RXGEN_SS_UNMARSHAL)
    }

    /// A value of fixed length, which file data may follow.
    ///
    /// # Errors
    ///
    /// The request ends before, or what comes is no such value.
    pub async fn head<T: Decode>(&mut self) -> Result<T, AbortCode> {
        while self.here.len() < T::MIN_LEN {
            if !self.more().await? {
                return Err(abort_codes::RXGEN_SS_UNMARSHAL);
            }
        }
        from_bytes(&self.here.split_to(T::MIN_LEN)).map_err(|_| abort_codes::RXGEN_SS_UNMARSHAL)
    }

    /// The next part of the file data, `None` at its end.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn data(&mut self) -> Result<Option<Bytes>, AbortCode> {
        if self.here.is_empty() {
            return self.call.recv().await.map_err(|_| LOST);
        }
        Ok(Some(self.here.split().freeze()))
    }

    /// Takes in the next packet; false at the end.
    async fn more(&mut self) -> Result<bool, AbortCode> {
        let part = self.call.recv().await.map_err(|_| LOST)?;
        if let Some(part) = &part {
            self.here.extend_from_slice(part);
        }
        Ok(part.is_some())
    }
}

/// Sends a reply, part by part.
///
/// # Errors
///
/// The call has failed.
pub async fn reply_with(
    call: &mut ServiceCall,
    parts: impl IntoIterator<Item = Bytes>,
) -> Result<(), AbortCode> {
    let mut last = Bytes::new();
    for part in parts {
        let before = std::mem::replace(&mut last, part);
        if !before.is_empty() {
            call.send(before).await.map_err(|_| LOST)?;
        }
    }
    call.send_last(last).await.map_err(|_| LOST)
}

/// A call that failed is over: the code goes nowhere.
const LOST: AbortCode = abort_codes::RX_CALL_DEAD;
/// The longest request of the service is a break of 50 files.
const REQUEST_MAX: usize = 16 * 1024;

/// Addresses of which it is known when they last asked.
const HEARD: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
