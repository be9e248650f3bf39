//! A client that calls procedures by hand, and knows no more of callbacks than that they are to be answered.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use afs_client::rpc::Procedure;
use afs_client::rpc::cb::{self, CallbackServer};
use afs_client::rpc::client::{RpcError, call, store_data};
use afs_client::rpc::fs::*;
use afs_client::rpc::serve::{Callbacks, RequestCounts};
use afs_client::rpc::types::{AfsFid, AfsUuid, InterfaceAddr};
use afs_client::xdr::List;
use bytes::Bytes;
use rxrpc::events::Sink;
use rxrpc::net::{Endpoint, EndpointConfig, Target};
use rxrpc::proto::{AbortCode, ServiceId, abort_codes};

/// A cache manager that keeps nothing, and knows only the first so many questions of who it is.
struct Manager {
    uuid: AfsUuid,
    questions: usize,
}

impl Manager {
    fn answer<T>(&self, needed: usize, value: T) -> Result<T, AbortCode> {
        if self.questions >= needed {
            Ok(value)
        } else {
            Err(abort_codes::RXGEN_OPCODE)
        }
    }

    fn interface(&self) -> InterfaceAddr {
        InterfaceAddr {
            uuid: self.uuid,
            ..InterfaceAddr::default()
        }
    }
}

impl CallbackServer for Manager {
    fn call_back(&self, _: SocketAddrV4, _: cb::CallBack) -> Result<cb::CallBackReply, AbortCode> {
        Ok(cb::CallBackReply {})
    }

    fn init_callback_state(
        &self,
        _: SocketAddrV4,
        _: cb::InitCallBackState,
    ) -> Result<cb::InitCallBackStateReply, AbortCode> {
        Ok(cb::InitCallBackStateReply {})
    }

    fn init_callback_state_3(
        &self,
        _: SocketAddrV4,
        _: cb::InitCallBackState3,
    ) -> Result<cb::InitCallBackState3Reply, AbortCode> {
        Ok(cb::InitCallBackState3Reply {})
    }

    fn probe_uuid(&self, _: SocketAddrV4, request: cb::ProbeUuid) -> Result<cb::ProbeUuidReply, AbortCode> {
        if request.client == self.uuid {
            Ok(cb::ProbeUuidReply {})
        } else {
            Err(AbortCode(1))
        }
    }

    fn who_are_you(&self, _: SocketAddrV4, _: cb::WhoAreYou) -> Result<cb::WhoAreYouReply, AbortCode> {
        let interface = self.interface();
        self.answer(1, cb::WhoAreYouReply { interface })
    }

    fn tell_me_about_yourself(
        &self,
        _: SocketAddrV4,
        _: cb::TellMeAboutYourself,
    ) -> Result<cb::TellMeAboutYourselfReply, AbortCode> {
        let reply = cb::TellMeAboutYourselfReply {
            interface: self.interface(),
            capabilities: List(vec![1]),
        };
        self.answer(2, reply)
    }
}

/// A client that calls procedures by hand.
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    counts: Arc<RequestCounts>,
    pub(crate) server: SocketAddrV4,
}

impl Peer {
    /// One at `bind` that calls a file server. Of who it is it answers so many questions.
    pub(crate) async fn at(
        bind: SocketAddrV4,
        server: SocketAddrV4,
        questions: usize,
        sink: Arc<dyn Sink>,
    ) -> Self {
        let config = EndpointConfig {
            bind,
            ..EndpointConfig::default()
        };
        let endpoint = loop {
            // A port that was closed a moment ago may take a moment.
            match Endpoint::bind(config.clone(), Arc::clone(&sink)).await {
                Ok(endpoint) => break endpoint,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let counts = Arc::<RequestCounts>::default();
        let [a, b] = endpoint.local_addr().port().to_be_bytes();
        let manager = Manager {
            uuid: AfsUuid([a, b, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            questions,
        };
        let callbacks = Callbacks {
            server: Arc::new(manager),
            counts: Arc::clone(&counts),
        };
        endpoint.serve(ServiceId(1), Arc::new(callbacks));
        Self {
            endpoint,
            counts,
            server,
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target::new(self.server, ServiceId(1))
    }

    pub(crate) async fn call<P: Procedure>(&self, request: P) -> Result<P::Reply, i32> {
        call(&self.endpoint, &self.target(), &request)
            .await
            .map_err(|error| match error {
                RpcError::Aborted(code) => code.0,
                error => panic!("{error}"),
            })
    }

    /// Which callback procedures were asked for.
    pub(crate) fn asked(&self) -> Vec<(&'static str, u64)> {
        self.counts.iter().filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn asked_for(&self, name: &str) -> u64 {
        let found = self.counts.iter().find(|(known, _)| *known == name);
        found.unwrap().1
    }

    pub(crate) async fn create(&self, dir: AfsFid, name: &str) -> AfsFid {
        let request = CreateFile {
            dir,
            name: name.as_bytes().into(),
            ..CreateFile::default()
        };
        self.call(request).await.unwrap().fid
    }

    pub(crate) async fn status(&self, fid: AfsFid) -> FetchStatusReply {
        self.call(FetchStatusOf { fid }).await.unwrap()
    }

    pub(crate) async fn store(&self, fid: AfsFid, data: &'static [u8]) -> Result<StoreDataReply, RpcError> {
        let args = StoreDataArgs {
            fid,
            length: data.len() as u64,
            file_length: data.len() as u64,
            ..StoreDataArgs::default()
        };
        let mut source = |_: u64, _: usize| Ok(Bytes::from_static(data));
        store_data(&self.endpoint, &self.target(), &args, &mut source).await
    }
}
