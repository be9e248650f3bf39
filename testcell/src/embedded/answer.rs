//! The life of a call on a file server.
//!
//! The machine: who calls is greeted; the request is read as far as needed to know what it is about; the fault rules are
//! asked; the procedure works; the breaks it owes are delivered; only then the reply is sent. A store owes its breaks
//! before its data is read (afs-rpc.md 11.3).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use afs_client::dir::Directory;
use afs_client::rpc::Procedure;
use afs_client::rpc::fs::{
    BulkStatus, FETCH_DATA, FETCH_DATA_32, FetchData32Args, FetchDataArgs, FileServer, GetCapabilities,
    GetTime, GetVolumeStatus, GiveUpAllCallBacks, GiveUpCallBacks, InlineBulkStatus, STORE_DATA,
    STORE_DATA_32, SetVolumeStatus, StoreData32Args, StoreDataArgs,
};
use afs_client::rpc::serve::{Request, reply_with};
use afs_client::rpc::types::AfsFid;
use afs_client::xdr::{Decode, Decoder, Encode};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rxrpc::net::{Service, ServiceCall};
use rxrpc::proto::{AbortCode, abort_codes};

use super::faults::{self, Action, Lie, Moment, Plan, Seen};
use super::procedures::OneCall;
use super::promises::FileId;
use super::server::Server;
use super::storage::{Readable, Refusal};

/// Answers the calls to a file server.
pub(crate) struct Answers(pub(crate) Arc<Server>);

impl Service for Answers {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let server = Arc::clone(&self.0);
        let closing = server.closing();
        Box::pin(async move {
            let answered = tokio::select! {
                answered = answer(server, &mut call) => answered,
                () = closing => return,
            };
            if let Err(code) = answered {
                call.abort(code);
            }
        })
    }
}

async fn answer(server: Arc<Server>, call: &mut ServiceCall) -> Result<(), AbortCode> {
    server.thawed().await;
    let peer = call.peer();
    let common = &server.common;
    let caller = common.accounts.caller(&common.cell, call.caller().as_deref());
    let (id, host) = server.greet(peer, call.epoch()).await?;
    let mut request = Request::new(call);
    let opcode = request.opcode().await?;
    server.count(opcode);
    let mut one = OneCall {
        server: Arc::clone(&server),
        host: id,
        caller,
        unified: host.unified,
        lie: None,
        owed: Mutex::default(),
    };
    let seen = |fid| Seen {
        service: faults::Service::File,
        opcode,
        fid,
        client: peer,
        server: server.number,
    };
    let faults = &common.faults;
    match opcode {
        STORE_DATA | STORE_DATA_32 => {
            let args: StoreDataArgs = match opcode {
                STORE_DATA => request.head().await?,
                _ => request.head::<StoreData32Args>().await?.into(),
            };
            let plan = faults.on(&seen(Some(args.fid)));
            one.lie = plan.lie();
            let around = Around::new(&one, &plan, Some(args.fid));
            around.at(Moment::Before).await?;
            let mut pace = Pace::of(&plan);
            let reply = store(&around, &args, request, &mut pace).await?;
            if plan.is_done_twice() {
                // What comes of it is not what is said.
                let _ = one.store_again(&args);
                around.deliver().await;
            }
            around.at(Moment::Between).await?;
            around.reply(call, &[encoded(&reply)]).await
        }
        FETCH_DATA | FETCH_DATA_32 => {
            let args: FetchDataArgs = match opcode {
                FETCH_DATA => request.head().await?,
                _ => request.head::<FetchData32Args>().await?.into(),
            };
            let plan = faults.on(&seen(Some(args.fid)));
            one.lie = plan.lie();
            let around = Around::new(&one, &plan, Some(args.fid));
            around.at(Moment::Before).await?;
            let words = match opcode {
                FETCH_DATA => Words::Two,
                _ => Words::One,
            };
            fetch(&one, &args, words, call, &around).await
        }
        _ => {
            let arguments = request.arguments(REQUEST_MAX).await?;
            let fid = first_fid(opcode, &arguments);
            let plan = faults.on(&seen(fid));
            one.lie = plan.lie();
            let around = Around::new(&one, &plan, fid);
            around.at(Moment::Before).await?;
            let reply = one.dispatch(peer, opcode, &arguments)?;
            if plan.is_done_twice() {
                // What comes of it is not what is said.
                let _ = one.dispatch(peer, opcode, &arguments);
            }
            around.deliver().await;
            around.at(Moment::Between).await?;
            around.reply(call, &[reply.into()]).await
        }
    }
}

/// Stores file data: breaks first, then the data.
async fn store(
    around: &Around<'_>,
    args: &StoreDataArgs,
    mut request: Request<'_>,
    pace: &mut Pace,
) -> Result<afs_client::rpc::fs::StoreDataReply, AbortCode> {
    let one = around.one;
    let server = &one.server;
    let refused = |refusal: Refusal| refusal.code(one.unified);
    let order = server.order_of_stores(args.fid.into());
    let _turn = order.lock().await;
    let mut store = one.begin_store(args)?;
    around.deliver().await;
    while let Some(data) = request.data().await? {
        store.write(&data, &server.common.spill).map_err(refused)?;
        pace.moved().await;
    }
    store.complete(&server.common.spill).map_err(refused)?;
    let reply = one.finish_store(args.fid, store)?;
    around.deliver().await;
    Ok(reply)
}

/// In how many words a reply says how much data there is.
#[derive(Clone, Copy)]
enum Words {
    One,
    Two,
}

/// Sends file data, then what is said about it.
async fn fetch(
    one: &OneCall,
    args: &FetchDataArgs,
    words: Words,
    call: &mut ServiceCall,
    around: &Around<'_>,
) -> Result<(), AbortCode> {
    let (data, reply) = one.fetch(args)?;
    let mut data = data;
    if one.lie == Some(Lie::DirectoryPage) && reply.status.file_type == DIRECTORY {
        data = Readable::Bytes(spoiled(&data).map_err(|_| abort_codes::RX_EOF)?);
    }
    let mut length = args.length.min(data.len().saturating_sub(args.position));
    if one.lie == Some(Lie::ShortData) {
        length /= 2;
    }
    let (end, middle) = (args.position + length, args.position + length / 2);
    if around.plan.drops_reply() {
        return around.reply(call, &[]).await;
    }
    let mut pace = Pace::of(around.plan);
    let mut at = args.position;
    let said = match words {
        Words::One => encoded(&u32::try_from(length).unwrap_or(u32::MAX)),
        Words::Two => encoded(&length),
    };
    call.send(said).await.map_err(|_| LOST)?;
    let mut between = Some(Moment::Between);
    while at < end {
        if at >= middle
            && let Some(moment) = between.take()
        {
            around.at(moment).await?;
        }
        let until = if at < middle { middle } else { end };
        let part = data.part(at, (until - at).min(PART_BYTES)).map_err(|error| {
            tracing::error!(%error, "the spill file cannot be read");
            abort_codes::RX_EOF
        })?;
        at += part.len() as u64;
        call.send(part).await.map_err(|_| LOST)?;
        pace.moved().await;
    }
    if let Some(moment) = between {
        around.at(moment).await?;
    }
    around.reply(call, &[encoded(&reply)]).await
}

/// What the fault rules do before, while and after a call is answered.
struct Around<'a> {
    one: &'a OneCall,
    plan: &'a Plan,
    fid: Option<AfsFid>,
}

impl<'a> Around<'a> {
    const fn new(one: &'a OneCall, plan: &'a Plan, fid: Option<AfsFid>) -> Self {
        Self { one, plan, fid }
    }

    /// Delivers the breaks that are owed by now, unless they are to be lost.
    async fn deliver(&self) {
        let server = &self.one.server;
        let owed = std::mem::take(&mut *self.one.owed.lock());
        match self.plan.unheard() {
            Some(memory) => server.lose(owed, memory),
            None => server.deliver(owed).await,
        }
    }

    /// Does what is due at this moment, in the order of the rules.
    async fn at(&self, moment: Moment) -> Result<(), AbortCode> {
        let server = &self.one.server;
        for action in self.plan.actions() {
            match action {
                Action::Delay(time) if moment == Moment::Before => tokio::time::sleep(*time).await,
                Action::Abort(code) if moment == Moment::Before => return Err(*code),
                Action::Freeze(time) if moment == Moment::Before => {
                    server.freeze(true);
                    tokio::spawn(thaw(Arc::clone(server), *time));
                    server.thawed().await;
                }
                Action::Restart(memory) if moment == Moment::Before => {
                    let (server, memory) = (Arc::clone(server), *memory);
                    // Not from within the call, which ends with the port.
                    tokio::spawn(async move {
                        if let Err(error) = server.restart(memory).await {
                            tracing::error!(%error, "the server does not come back");
                        }
                    });
                    std::future::pending::<()>().await;
                }
                Action::Break(when) if *when == moment => {
                    if let Some(fid) = self.fid {
                        let file = FileId::from(fid);
                        server.state.lock().promises.give_up(file, self.one.host);
                        server.deliver(vec![(self.one.host, file)]).await;
                    }
                }
                Action::Run(when, hook) if *when == moment => hook().await,
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the reply, unless it is to be lost.
    async fn reply(&self, call: &mut ServiceCall, parts: &[Bytes]) -> Result<(), AbortCode> {
        if self.plan.drops_reply() {
            given_up(call).await;
            return Err(LOST);
        }
        self.one.server.thawed().await;
        reply_with(call, parts.iter().cloned()).await?;
        self.at(Moment::After).await
    }
}

async fn thaw(server: Arc<Server>, after: Duration) {
    tokio::time::sleep(after).await;
    server.freeze(false);
}

/// Waits until the caller has given a call up.
async fn given_up(call: &mut ServiceCall) {
    for _ in 0..GIVE_UP_LOOKS {
        if call.send(Bytes::new()).await.is_err() || call.recv().await.is_err() {
            return;
        }
        tokio::time::sleep(GIVE_UP_PAUSE).await;
    }
}

/// Halves the speed of a transfer: each part is waited for once more.
struct Pace(Option<tokio::time::Instant>);

impl Pace {
    fn of(plan: &Plan) -> Self {
        Self(plan.is_slow().then(tokio::time::Instant::now))
    }

    async fn moved(&mut self) {
        if let Some(since) = &mut self.0 {
            tokio::time::sleep(since.elapsed()).await;
            *since = tokio::time::Instant::now();
        }
    }
}

/// A directory whose last page is none.
fn spoiled(data: &Readable) -> std::io::Result<Bytes> {
    let mut blob = BytesMut::from(&data.part(0, u64::MAX)?[..]);
    debug_assert!(Directory::parse(blob.clone().freeze()).is_ok(), "it was one");
    let last = blob.len().saturating_sub(PAGE_BYTES);
    if let Some(page) = blob.get_mut(last..) {
        page.iter_mut().take(4).for_each(|byte| *byte = 0xff);
    }
    Ok(blob.freeze())
}

/// The file that a call names first.
fn first_fid(opcode: u32, arguments: &[u8]) -> Option<AfsFid> {
    let mut input = Decoder::new(arguments);
    match opcode {
        GetTime::OPCODE | GetCapabilities::OPCODE | GiveUpAllCallBacks::OPCODE => None,
        GetVolumeStatus::OPCODE | SetVolumeStatus::OPCODE => Some(AfsFid {
            volume: input.word().ok()?,
            ..AfsFid::default()
        }),
        BulkStatus::OPCODE | InlineBulkStatus::OPCODE | GiveUpCallBacks::OPCODE => {
            input.word().ok().filter(|count| *count > 0)?;
            AfsFid::decode(&mut input).ok()
        }
        _ => AfsFid::decode(&mut input).ok(),
    }
}

fn encoded(value: &impl Encode) -> Bytes {
    let mut out = Vec::new();
    value.encode(&mut out);
    out.into()
}

/// A call that failed is over: the code goes nowhere.
const LOST: AbortCode = abort_codes::RX_CALL_DEAD;
/// No request but a store is longer.
const REQUEST_MAX: usize = 16 * 1024;
/// What is read from a file at once.
const PART_BYTES: u64 = 256 << 10;
const PAGE_BYTES: usize = 2048;
const DIRECTORY: u32 = 2;
const GIVE_UP_PAUSE: Duration = Duration::from_millis(50);
/// A caller that has not given up after ten minutes is heard no more.
const GIVE_UP_LOOKS: usize = 12_000;
