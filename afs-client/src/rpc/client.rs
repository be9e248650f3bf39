//! Calling procedures.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use rxrpc::net::{ClientCall, Endpoint, Target};
use rxrpc::proto::{AbortCode, CallError, abort_codes};
use rxrpc::security::rxkad::Fault;
use tracing::Instrument as _;

use super::Procedure;
use super::fs::{
    FETCH_DATA, FETCH_DATA_NAME, FetchDataArgs, FetchDataReply, STORE_DATA, STORE_DATA_NAME, StoreDataArgs,
    StoreDataReply,
};
use crate::trace;
use crate::types::VnodeId;
use crate::vnode::status::{BadStatus, Status};
use crate::xdr::{Decode, Encode, XdrError, from_bytes};

/// Why a procedure gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The server refused it.
    #[error("{}", crate::error::describe(*.0))]
    Aborted(AbortCode),
    /// The call did not get through.
    #[error("{0}")]
    Transport(CallError),
    /// The reply makes no sense.
    #[error("bad reply: {0}")]
    Reply(#[from] XdrError),
    /// The server says of an object what cannot be.
    #[error("bad status: {0}")]
    Status(#[from] BadStatus),
    /// The server sends more data than was asked for.
    #[error("bad reply: {0} bytes of data, more than asked for")]
    TooMuchData(u64),
    /// The server sends less data than there is by its own word.
    #[error("bad reply: {got} bytes of data where there are {due}")]
    TooLittleData {
        /// Bytes sent.
        got: u64,
        /// Bytes of what was asked for that lie before the end of the file.
        due: u64,
    },
    /// The data could not be read from or put into the cache.
    #[error("cache: {0}")]
    Cache(#[source] io::Error),
}

impl RpcError {
    /// The rule of rxkad that the server says was broken, or that it has broken itself.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Self::Aborted(code) | Self::Transport(CallError::Protocol(code)) => Fault::from_code(*code),
            _ => None,
        }
    }

    /// The server talks nonsense.
    pub(crate) const fn is_nonsense(&self) -> bool {
        matches!(
            self,
            Self::Reply(_) | Self::Status(_) | Self::TooMuchData(_) | Self::TooLittleData { .. }
        )
    }
}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Aborted(code) | CallError::ConnectionAborted(code) => Self::Aborted(code),
            error => Self::Transport(error),
        }
    }
}

/// Calls a procedure.
///
/// # Errors
///
/// It was refused, did not get through, or was answered with nonsense.
pub async fn call<P: Procedure>(
    endpoint: &Endpoint,
    target: &Target,
    request: &P,
) -> Result<P::Reply, RpcError> {
    let exchange = async {
        let mut call = begin(endpoint, target, P::NAME).await?;
        let mut arguments = Vec::new();
        P::OPCODE.encode(&mut arguments);
        request.encode(&mut arguments);
        call.send_last(arguments.into()).await?;
        let reply = rest_of(&mut call, BytesMut::new()).await?;
        request.check(&reply)?;
        Ok(reply)
    };
    traced(target, P::NAME, exchange).await
}

/// A call with its connection.
async fn begin(
    endpoint: &Endpoint,
    target: &Target,
    procedure: &'static str,
) -> Result<ClientCall, CallError> {
    let acquire = trace::acquire();
    let call = endpoint.call(target).instrument(acquire.clone()).await?;
    trace::acquired(&acquire, &call);
    Ok(call.named(procedure))
}

/// Makes a call in a span of its own, if what it is made for is traced.
async fn traced<T>(
    target: &Target,
    procedure: &'static str,
    exchange: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, RpcError> {
    let span = trace::rpc(target, procedure);
    let result = exchange.instrument(span.clone()).await;
    trace::ended(&span, &result);
    watched(target, procedure, result)
}

/// Logs nonsense: whoever runs the server should know.
fn watched<T>(target: &Target, procedure: &str, result: Result<T, RpcError>) -> Result<T, RpcError> {
    result.inspect_err(|error| {
        if error.is_nonsense() {
            tracing::warn!(server = %target.peer, procedure, %error, "server makes no sense");
        }
    })
}

/// Fetches file data: hands what has come to `sink` with its place in the file, then gives how many bytes there were and
/// what the server says about the file.
///
/// # Errors
///
/// As [`call`], or the sink failed.
pub async fn fetch_data(
    endpoint: &Endpoint,
    target: &Target,
    request: &FetchDataArgs,
    sink: &mut (dyn FnMut(u64, &[Bytes]) -> io::Result<()> + Send),
) -> Result<(u64, FetchDataReply), RpcError> {
    traced(target, FETCH_DATA_NAME, fetch(endpoint, target, request, sink)).await
}

async fn fetch(
    endpoint: &Endpoint,
    target: &Target,
    request: &FetchDataArgs,
    sink: &mut (dyn FnMut(u64, &[Bytes]) -> io::Result<()> + Send),
) -> Result<(u64, FetchDataReply), RpcError> {
    let mut call = begin(endpoint, target, FETCH_DATA_NAME).await?;
    let mut arguments = Vec::new();
    FETCH_DATA.encode(&mut arguments);
    request.encode(&mut arguments);
    call.send_last(arguments.into()).await?;

    let mut head = BytesMut::new();
    while head.len() < LENGTH_BYTES {
        head.extend_from_slice(&call.recv().await?.ok_or(XdrError::Short)?);
    }
    let length = head.get_u64();
    if length > request.length {
        call.abort(abort_codes::RXGEN_CC_UNMARSHAL);
        return Err(RpcError::TooMuchData(length));
    }
    let (mut part, mut left) = (head.freeze(), length);
    let mut parts = Vec::new();
    while left > 0 {
        let at = request.position + (length - left);
        loop {
            let data = part.split_to(part.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            left -= data.len() as u64;
            parts.push(data);
            if left == 0 {
                break;
            }
            let Some(next) = call.recv_ready() else { break };
            part = next;
        }
        sink(at, &parts).map_err(RpcError::Cache)?;
        parts.clear();
        if left > 0 {
            part = call.recv().await?.ok_or(XdrError::Short)?;
        }
    }
    let reply: FetchDataReply = rest_of(&mut call, part.into()).await?;
    Status::check(VnodeId(request.fid.vnode), &reply.status)?;
    let due = reply
        .status
        .length()
        .saturating_sub(request.position)
        .min(request.length);
    if length < due {
        return Err(RpcError::TooLittleData { got: length, due });
    }
    Ok((length, reply))
}

/// Stores file data, which `source` gives part by part for a place in the file.
///
/// # Errors
///
/// As [`call`], or the source failed.
pub async fn store_data(
    endpoint: &Endpoint,
    target: &Target,
    request: &StoreDataArgs,
    source: &mut (dyn FnMut(u64, usize) -> io::Result<Bytes> + Send),
) -> Result<StoreDataReply, RpcError> {
    traced(target, STORE_DATA_NAME, store(endpoint, target, request, source)).await
}

async fn store(
    endpoint: &Endpoint,
    target: &Target,
    request: &StoreDataArgs,
    source: &mut (dyn FnMut(u64, usize) -> io::Result<Bytes> + Send),
) -> Result<StoreDataReply, RpcError> {
    let mut call = begin(endpoint, target, STORE_DATA_NAME).await?;
    let mut arguments = Vec::new();
    STORE_DATA.encode(&mut arguments);
    request.encode(&mut arguments);
    // Each part leaves when the next is there, so that the last leaves with the end of the call.
    let mut part = Bytes::from(arguments);
    let mut sent = 0;
    while sent < request.length {
        call.send(part).await?;
        let want = usize::try_from(request.length - sent)
            .unwrap_or(usize::MAX)
            .min(PART_BYTES);
        part = source(request.position + sent, want).map_err(RpcError::Cache)?;
        if part.is_empty() || part.len() > want {
            return Err(RpcError::Cache(io::ErrorKind::UnexpectedEof.into()));
        }
        sent += part.len() as u64;
    }
    call.send_last(part).await?;
    rest_of(&mut call, BytesMut::new()).await
}

/// The rest of a reply, decoded.
async fn rest_of<T: Decode>(call: &mut ClientCall, mut reply: BytesMut) -> Result<T, RpcError> {
    while let Some(part) = call.recv().await? {
        if reply.len() + part.len() > REPLY_MAX {
            return Err(
                XdrError::TooLong(u32::try_from(reply.len() + part.len()).unwrap_or(u32::MAX)).into(),
            );
        }
        reply.extend_from_slice(&part);
    }
    Ok(from_bytes(&reply)?)
}

/// No reply but file data is longer.
const REPLY_MAX: usize = 256 * 1024;
/// The length before the data of a FetchData64 reply.
const LENGTH_BYTES: usize = 8;
/// What is read from the cache at once.
const PART_BYTES: usize = 256 * 1024;
