//! Answering procedures.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use rxrpc::net::{Service, ServiceCall};
use rxrpc::proto::{AbortCode, abort_codes};

use super::cb::{CallbackServer, PROCEDURES};

/// Answers the calls of the callback service.
pub struct Callbacks {
    /// What answers them.
    pub server: Arc<dyn CallbackServer>,
    /// What counts them.
    pub counts: Arc<RequestCounts>,
}

/// How often each procedure of the callback service was asked for.
#[derive(Debug, Default)]
pub struct RequestCounts([AtomicU64; PROCEDURES.len()]);

impl RequestCounts {
    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        PROCEDURES
            .iter()
            .zip(&self.0)
            .map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
    }

    fn count(&self, opcode: u32) {
        let asked = PROCEDURES
            .iter()
            .zip(&self.0)
            .find(|((number, _), _)| *number == opcode);
        if let Some((_, count)) = asked {
            count.fetch_add(1, Ordering::Relaxed);
        }
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
    let mut request = BytesMut::new();
    loop {
        // A call that failed is over: the code goes nowhere.
        match call.recv().await.map_err(|_| abort_codes::RX_CALL_DEAD)? {
            None => break,
            Some(part) if request.len() + part.len() > REQUEST_MAX => {
                drop(part);
                return Err(abort_codes::RXGEN_SS_UNMARSHAL);
            }
            Some(part) => request.extend_from_slice(&part),
        }
    }
    let (opcode, arguments) = request
        .split_first_chunk()
        .ok_or(abort_codes::RXGEN_SS_UNMARSHAL)?;
    let opcode = u32::from_be_bytes(*opcode);
    counts.count(opcode);
    let reply = server.dispatch(call.peer(), opcode, arguments)?;
    let sent = async {
        call.send(reply.into()).await?;
        call.finish()
    };
    sent.await.map_err(|_| abort_codes::RX_CALL_DEAD)
}

/// The longest request of the service is a break of 50 files.
const REQUEST_MAX: usize = 16 * 1024;
