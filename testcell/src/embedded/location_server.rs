//! The port of the volume location server.

use std::pin::Pin;
use std::sync::Arc;

use afs_client::rpc::serve::{Request, reply_with};
use afs_client::rpc::vl::LocationServer;
use rxrpc::net::{Service, ServiceCall};
use rxrpc::proto::AbortCode;

use super::faults::{self, Action, Faults, Seen};
use super::location::Location;

/// Answers the calls to the location server.
pub(crate) struct LocationAnswers {
    pub(crate) location: Arc<Location>,
    pub(crate) faults: Faults,
}

impl Service for LocationAnswers {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (location, faults) = (Arc::clone(&self.location), self.faults.clone());
        Box::pin(async move {
            if let Err(code) = answer(&location, &faults, &mut call).await {
                call.abort(code);
            }
        })
    }
}

async fn answer(location: &Location, faults: &Faults, call: &mut ServiceCall) -> Result<(), AbortCode> {
    let peer = call.peer();
    let mut request = Request::new(call);
    let opcode = request.opcode().await?;
    let arguments = request.arguments(REQUEST_MAX).await?;
    let plan = faults.on(&Seen {
        service: faults::Service::Location,
        opcode,
        fid: None,
        client: peer,
        server: 0,
    });
    for action in plan.actions() {
        match action {
            Action::Delay(time) | Action::Freeze(time) => tokio::time::sleep(*time).await,
            Action::Abort(code) => return Err(*code),
            // The rest is about files.
            _ => {}
        }
    }
    let reply = location.dispatch(peer, opcode, &arguments)?;
    reply_with(call, [reply.into()]).await
}

const REQUEST_MAX: usize = 4 * 1024;
