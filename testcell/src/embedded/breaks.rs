//! Calling clients: who are you, forget what I said, that file has changed (afs-rpc.md 1, 5, 11.3).
//!
//! The machine: a change is answered when all who were promised to hear of it have heard, or did not answer in time.
//! Those are down then and cost nothing more: what they miss is the first thing they are told when they call again.

use std::net::SocketAddrV4;
use std::sync::Arc;

use afs_client::rpc::Procedure;
use afs_client::rpc::cb;
use afs_client::rpc::client::{RpcError, call};
use afs_client::rpc::types::BULK_MAX;
use afs_client::xdr::List;
use rxrpc::net::Target;
use rxrpc::proto::{AbortCode, CallLimits, Epoch, ServiceId, abort_codes};
use tokio::task::JoinSet;

use super::faults::Memory;
use super::hosts::{Delayed, Host, HostId, Introduction};
use super::promises::FileId;
use super::server::Server;

/// Breaks that a change demands: whom to tell about what.
pub(crate) type Owed = Vec<(HostId, FileId)>;

impl Server {
    /// The host that calls. One that is not known is asked who it is, and told to forget what it was promised before;
    /// one that was down hears what it missed.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub(crate) async fn greet(
        &self,
        address: SocketAddrV4,
        epoch: Epoch,
    ) -> Result<(HostId, Host), AbortCode> {
        let known = || self.state.lock().hosts.known(address, epoch, self.now());
        let is_up = |(_, host): &(HostId, Host)| host.down.is_none();
        if let Some(found) = known().filter(is_up) {
            return Ok(found);
        }
        let order = self.order_of_greetings(address);
        let _turn = order.lock().await;
        let (id, host) = match known() {
            Some(found) => found,
            None => self.introduce(address, epoch).await?,
        };
        if let Some(missed) = &host.down {
            self.catch_up(id, &host, missed.clone()).await?;
        }
        Ok((id, host))
    }

    /// Asks an address who is there.
    async fn introduce(&self, address: SocketAddrV4, epoch: Epoch) -> Result<(HostId, Host), AbortCode> {
        let who = match self.ask(address, &cb::TellMeAboutYourself {}).await {
            Ok(reply) => Introduction {
                uuid: Some(reply.interface.uuid),
                unified: reply
                    .capabilities
                    .0
                    .first()
                    .is_some_and(|word| word & ERROR_TRANSLATION != 0),
            },
            Err(error) if is_unknown(&error) => Introduction {
                uuid: match self.ask(address, &cb::WhoAreYou {}).await {
                    Ok(reply) => Some(reply.interface.uuid),
                    Err(error) if is_unknown(&error) => None,
                    Err(_) => return Err(abort_codes::RX_CALL_DEAD),
                },
                unified: false,
            },
            Err(_) => return Err(abort_codes::RX_CALL_DEAD),
        };
        let who = Introduction {
            uuid: who.uuid.filter(|uuid| uuid.0 != [0; 16]),
            ..who
        };
        let (id, is_new, gone) = {
            let mut state = self.state.lock();
            let introduced = state.hosts.introduce(address, epoch, who, self.now());
            if let (.., Some(gone)) = introduced {
                state.promises.forget(gone);
            }
            introduced
        };
        let host = self.host(id).ok_or(abort_codes::RX_CALL_DEAD)?;
        if is_new && let Err(error) = self.reset(&host).await {
            tracing::debug!(client = %address, ?gone, %error, "a client does not take the first call");
            self.state.lock().hosts.remove(id);
            return Err(abort_codes::RX_CALL_DEAD);
        }
        Ok((id, host))
    }

    fn host(&self, id: HostId) -> Option<Host> {
        self.state.lock().hosts.get(id).cloned()
    }

    /// Tells a host to forget all our promises.
    async fn reset(&self, host: &Host) -> Result<(), RpcError> {
        match host.uuid {
            Some(_) => {
                let server = self.uuid;
                self.ask(host.address, &cb::InitCallBackState3 { server }).await?;
            }
            None => {
                self.ask(host.address, &cb::InitCallBackState {}).await?;
            }
        }
        Ok(())
    }

    /// Tells a host what it has missed.
    async fn catch_up(&self, id: HostId, host: &Host, missed: Delayed) -> Result<(), AbortCode> {
        let told = match missed {
            Delayed::All => {
                self.state.lock().promises.forget(id);
                self.reset(host).await
            }
            Delayed::Files(files) => self.tell(host.address, files.into_iter().collect()).await,
        };
        told.map_err(|_| abort_codes::RX_CALL_DEAD)?;
        self.state.lock().hosts.caught_up(id);
        Ok(())
    }

    /// Breaks what is owed. Returns when everybody has heard of it or is known not to answer. Cancelled, it goes on all
    /// the same: what is owed is owed.
    pub(crate) async fn deliver(self: &Arc<Self>, owed: Owed) {
        if !owed.is_empty() {
            // It fails with the runtime only.
            let _ = tokio::spawn(Arc::clone(self).tell_all(owed)).await;
        }
    }

    /// What is owed does not arrive.
    pub(crate) fn lose(&self, owed: Owed, memory: Memory) {
        let mut state = self.state.lock();
        for (id, file) in owed {
            match memory {
                Memory::Kept => state.hosts.missed(id, [file]),
                Memory::Lost => state.hosts.missed_all(id),
            }
        }
    }

    /// One file after the other, each to all hosts at once.
    async fn tell_all(self: Arc<Self>, owed: Owed) {
        for of_file in owed.chunk_by(|one, next| one.1 == next.1) {
            let mut telling = JoinSet::new();
            for (id, file) in of_file.iter().copied() {
                let server = Arc::clone(&self);
                telling.spawn(async move { server.break_host(id, file).await });
            }
            telling.join_all().await;
        }
    }

    async fn break_host(&self, id: HostId, file: FileId) {
        let Some(host) = self.host(id) else { return };
        let told = host.down.is_none() && self.tell(host.address, vec![file]).await.is_ok();
        if !told {
            tracing::debug!(client = %host.address, "a client is down: breaks are delayed");
            self.state.lock().hosts.missed(id, [file]);
        }
    }

    async fn tell(&self, address: SocketAddrV4, files: Vec<FileId>) -> Result<(), RpcError> {
        for some in files.chunks(BULK_MAX as usize) {
            let request = cb::CallBack {
                fids: List(some.iter().map(|file| (*file).into()).collect()),
                // OpenAFS says nothing about them either.
                callbacks: List(Vec::new()),
            };
            self.ask(address, &request).await?;
        }
        Ok(())
    }

    /// Looks after hosts that say nothing: those that hold promises are asked whether they are still there, those
    /// silent for hours are forgotten. To be called every few minutes.
    pub(crate) async fn look_after_hosts(&self) {
        let now = self.now();
        let silent = self
            .state
            .lock()
            .hosts
            .silent_since(now.saturating_sub(SILENT_SECONDS));
        for (id, host) in silent {
            if now.saturating_sub(host.seen) >= FORGET_SECONDS {
                // It may be there after all.
                let _ = self.reset(&host).await;
                let mut state = self.state.lock();
                state.promises.forget(id);
                state.hosts.remove(id);
                continue;
            }
            let holds = self.state.lock().promises.any(id, now);
            let (true, None, Some(client)) = (holds, &host.down, host.uuid) else {
                continue;
            };
            if self.ask(host.address, &cb::ProbeUuid { client }).await.is_err() {
                let mut state = self.state.lock();
                state.hosts.missed(id, []);
            }
        }
    }

    async fn ask<P: Procedure>(&self, address: SocketAddrV4, request: &P) -> Result<P::Reply, RpcError> {
        let Some(endpoint) = self.endpoint() else {
            return Err(RpcError::Aborted(abort_codes::RX_CALL_DEAD));
        };
        let patience = self.common.patience;
        let target = Target {
            limits: CallLimits {
                dead_in: patience,
                idle_in: None,
                hard_in: Some(patience),
            },
            ..Target::new(address, CALLBACK_SERVICE)
        };
        call(&endpoint, &target, request).await
    }
}

/// The client does not know the question.
fn is_unknown(error: &RpcError) -> bool {
    matches!(error, RpcError::Aborted(code) if *code == abort_codes::RXGEN_OPCODE)
}

const CALLBACK_SERVICE: ServiceId = ServiceId(1);
const ERROR_TRANSLATION: u32 = 1;
/// Silent for so long, a host that holds promises is asked whether it is there.
const SILENT_SECONDS: u32 = 15 * 60;
/// Silent for so long, a host is forgotten.
const FORGET_SECONDS: u32 = 2 * 60 * 60;
