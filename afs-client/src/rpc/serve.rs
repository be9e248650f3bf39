//! Answering procedures.

use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use rxrpc::net::{Service, ServiceCall};
use rxrpc::proto::{AbortCode, abort_codes};

use super::cb::CallbackServer;

/// Answers the calls of the callback service.
pub struct Callbacks(pub Arc<dyn CallbackServer>);

impl Service for Callbacks {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            match answer(&*server, &mut call).await {
                Ok(()) => {}
                Err(code) => call.abort(code),
            }
        })
    }
}

async fn answer(server: &dyn CallbackServer, call: &mut ServiceCall) -> Result<(), AbortCode> {
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
    let reply = server.dispatch(call.peer(), u32::from_be_bytes(*opcode), arguments)?;
    let sent = async {
        call.send(reply.into()).await?;
        call.finish().await
    };
    sent.await.map_err(|_| abort_codes::RX_CALL_DEAD)
}

/// The longest request of the service is a break of 50 files.
const REQUEST_MAX: usize = 16 * 1024;
