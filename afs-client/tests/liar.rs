//! Servers that lie: whatever they say ends in `EIO` and a line in the log, soon and without more memory.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use afs_client::cell::{CellName, Cells, CellsConfig};
use afs_client::dir::Directory;
use afs_client::error::Error;
use afs_client::fs::{AfsFs, CacheConfig, Config, Lookup, OpenFlags};
use afs_client::rpc::Procedure;
use afs_client::rpc::fs::{
    FETCH_DATA, FetchDataArgs, FetchDataReply, FetchStatusOf, FetchStatusReply, FileServer, InlineBulkStatus,
    InlineBulkStatusReply,
};
use afs_client::rpc::types::{AfsFid, AfsUuid, CallBack, FetchStatus, VolSync, VolumeEntry};
use afs_client::rpc::vl::{GetEntryByName, GetEntryByNameReply, LocationServer};
use afs_client::types::{Fid, Uniquifier, VnodeId};
use afs_client::xdr::{Encode, List, from_bytes};
use bytes::{BufMut, Bytes};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall};
use rxrpc::proto::{AbortCode, ServiceId};

const FILE: (VnodeId, Uniquifier) = (VnodeId(2), Uniquifier(2));
const LENGTH: usize = 100_000;
const EIO: i32 = 5;

/// What the server lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Nothing,
    /// The file has 2^63 bytes.
    FileLength,
    /// The root directory has 2^40 bytes.
    DirectoryLength,
    /// The root directory is no directory but bytes.
    DirectoryBytes,
    /// The chains of the root directory lead behind its end.
    DirectoryChain,
    /// The directory ends early.
    DirectoryShort,
    /// A name in the directory has a slash in it.
    DirectorySlash,
    /// A name in the directory leads to the directory itself.
    DirectoryLoop,
    /// What the file is changes with each answer.
    Kind,
    /// A reply announces more data than was asked for.
    DataLong,
    /// A reply announces less data than there is.
    DataShort,
    /// A reply announces all data, and ends in the middle of it.
    DataCut,
    /// A status ends within a word.
    StatusCut,
    /// A list announces 2^32 - 1 elements.
    ListLength,
    /// A reply does not end.
    Endless,
    /// The location entry names 2^32 - 1 servers.
    Servers,
}

struct Server {
    lie: Lie,
    asked: AtomicU32,
    address: Ipv4Addr,
}

fn root() -> Directory {
    let own = (VnodeId(1), Uniquifier(1));
    let mut root = Directory::new(own, own);
    root.create(b"file", FILE.0, FILE.1).unwrap();
    root
}

fn data() -> Bytes {
    (0..=250).cycle().take(LENGTH).collect()
}

fn promise() -> CallBack {
    CallBack {
        version: 1,
        expiration_time: 3600,
        callback_type: 2,
    }
}

impl Server {
    fn status(&self, fid: AfsFid) -> FetchStatus {
        let is_root = fid.vnode == 1;
        let length: u64 = match (is_root, self.lie) {
            (true, Lie::DirectoryLength) => 1 << 40,
            (false, Lie::FileLength) => 1 << 63,
            (true, _) => root().blob().len() as u64,
            (false, _) => LENGTH as u64,
        };
        FetchStatus {
            interface_version: 1,
            file_type: match (is_root, self.lie) {
                (true, _) => 2,
                // A file, then a link, and so on.
                (false, Lie::Kind) => 1 + 2 * (self.asked.fetch_add(1, Ordering::Relaxed) % 2),
                (false, _) => 1,
            },
            link_count: 1,
            length_low: u32::try_from(length & 0xffff_ffff).unwrap(),
            length_high: u32::try_from(length >> 32).unwrap(),
            version_low: 1,
            caller_access: 0x7f,
            anonymous_access: 0x7f,
            unix_mode_bits: 0o755,
            parent_vnode: 1,
            parent_unique: 1,
            residency_mask: 1,
            ..FetchStatus::default()
        }
    }

    /// The length that is announced, and the data that is sent.
    fn data(&self, args: &FetchDataArgs) -> (u64, Bytes) {
        let is_root = args.fid.vnode == 1;
        let whole = match (is_root, self.lie) {
            (true, Lie::DirectoryBytes) => data().slice(..2048),
            (true, Lie::DirectoryChain) => {
                let mut blob = root().blob().to_vec();
                // 128 half-words behind the head of the first page.
                blob[160..160 + 256].fill(0x7f);
                blob.into()
            }
            (true, Lie::DirectoryShort) => root().blob().slice(..1000),
            (true, Lie::DirectorySlash) => {
                let mut blob = root().blob().to_vec();
                let at = blob.windows(4).position(|name| name == b"file").unwrap();
                blob[at + 1] = b'/';
                blob.into()
            }
            (true, Lie::DirectoryLoop) => {
                let own = (VnodeId(1), Uniquifier(1));
                let mut looped = Directory::new(own, own);
                looped.create(b"file", own.0, own.1).unwrap();
                looped.blob().clone()
            }
            (true, _) => root().blob().clone(),
            (false, _) => data(),
        };
        let start = usize::try_from(args.position).unwrap().min(whole.len());
        let end = (start + usize::try_from(args.length).unwrap()).min(whole.len());
        let part = whole.slice(start..end);
        let len = part.len();
        match (is_root, self.lie) {
            (false, Lie::DataLong) => (1 << 40, part),
            (false, Lie::DataShort) => (10, part.slice(..10)),
            (false, Lie::DataCut) => (len as u64, part.slice(..len / 2)),
            _ => (len as u64, part),
        }
    }

    fn fetch_data(&self, arguments: &[u8]) -> Vec<u8> {
        let args: FetchDataArgs = from_bytes(arguments).unwrap();
        let (length, data) = self.data(&args);
        let mut reply = Vec::new();
        length.encode(&mut reply);
        reply.extend_from_slice(&data);
        if self.lie != Lie::DataCut || args.fid.vnode == 1 {
            FetchDataReply {
                status: self.status(args.fid),
                callback: promise(),
                sync: VolSync::default(),
            }
            .encode(&mut reply);
        }
        reply
    }

    async fn answer(&self, call: &mut ServiceCall) -> Result<(), AbortCode> {
        let mut request = Vec::new();
        while let Ok(Some(part)) = call.recv().await {
            request.extend_from_slice(&part);
        }
        let (opcode, arguments) = request.split_first_chunk().unwrap();
        let opcode = u32::from_be_bytes(*opcode);
        let reply = match (call.service(), opcode, self.lie) {
            (ServiceId(52), ..) => LocationServer::dispatch(self, call.peer(), opcode, arguments)?,
            (_, FETCH_DATA, _) => self.fetch_data(arguments),
            (_, FetchStatusOf::OPCODE, Lie::StatusCut) => vec![0; 30],
            (_, FetchStatusOf::OPCODE, Lie::Endless) => {
                while call.send(vec![0; 8 << 10].into()).await.is_ok() {}
                Vec::new()
            }
            (_, InlineBulkStatus::OPCODE, Lie::ListLength) => {
                let mut reply = Vec::new();
                reply.put_u32(u32::MAX);
                reply.put_bytes(0, 1000);
                reply
            }
            _ => FileServer::dispatch(self, call.peer(), opcode, arguments)?,
        };
        // A client that has heard enough hangs up.
        let _ = call.send(reply.into()).await;
        let _ = call.finish();
        Ok(())
    }
}

impl LocationServer for Server {
    fn get_entry_by_name(
        &self,
        _peer: SocketAddrV4,
        _request: GetEntryByName,
    ) -> Result<GetEntryByNameReply, AbortCode> {
        let mut entry = VolumeEntry {
            servers: if self.lie == Lie::Servers { u32::MAX } else { 1 },
            ids: [1, 0, 0],
            flags: 0x1000,
            ..VolumeEntry::default()
        };
        let [a, b, c, d] = self.address.octets();
        entry.uuids[0] = AfsUuid([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        entry.server_flags[0] = 4;
        Ok(GetEntryByNameReply { entry })
    }
}

impl FileServer for Server {
    fn fetch_status(
        &self,
        _peer: SocketAddrV4,
        request: FetchStatusOf,
    ) -> Result<FetchStatusReply, AbortCode> {
        Ok(FetchStatusReply {
            status: self.status(request.fid),
            callback: promise(),
            sync: VolSync::default(),
        })
    }

    fn inline_bulk_status(
        &self,
        _peer: SocketAddrV4,
        request: InlineBulkStatus,
    ) -> Result<InlineBulkStatusReply, AbortCode> {
        if matches!(self.lie, Lie::StatusCut | Lie::Endless) {
            return Err(rxrpc::proto::abort_codes::RXGEN_OPCODE);
        }
        Ok(InlineBulkStatusReply {
            statuses: List(request.fids.0.iter().map(|fid| self.status(*fid)).collect()),
            callbacks: List(request.fids.0.iter().map(|_| promise()).collect()),
            sync: VolSync::default(),
        })
    }
}

struct Answers(Arc<Server>);

impl Service for Answers {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            if let Err(code) = server.answer(&mut call).await {
                call.abort(code);
            }
        })
    }
}

/// Counts the warnings of its thread.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Every cell has an address of its own, as the ports are fixed.
static CELLS: AtomicU32 = AtomicU32::new(1);

async fn mount(lie: Lie) -> (AfsFs, Vec<Endpoint>) {
    let number = std::process::id() % 10_000 * 64 + CELLS.fetch_add(1, Ordering::Relaxed);
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 100, 0, 0).to_bits() + number);
    let bound = |port| EndpointConfig {
        bind: SocketAddrV4::new(address, port),
        ..EndpointConfig::default()
    };
    let server = Arc::new(Server {
        lie,
        asked: AtomicU32::new(0),
        address,
    });
    let mut endpoints = Vec::new();
    for (port, service) in [(7003, 52), (7000, 1)] {
        let endpoint = Endpoint::bind(bound(port), Arc::new(NullSink)).await.unwrap();
        endpoint.serve(ServiceId(service), Arc::new(Answers(Arc::clone(&server))));
        endpoints.push(endpoint);
    }
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("CellServDB");
    std::fs::write(&db, format!(">liar.example\n{address} #vl\n")).unwrap();
    let cells = Cells::load(&CellsConfig {
        home: Some(CellName::new("liar.example").unwrap()),
        cellservdb: Some(db),
    });
    let cache = CacheConfig::Memory { max_bytes: 64 << 20 };
    let config = Config {
        deadline: Duration::from_secs(20),
        max_vnodes: 100,
        ..Config::new(Arc::new(cells.unwrap()), bound(0), cache)
    };
    (AfsFs::start(config, Arc::new(NullSink)).await.unwrap(), endpoints)
}

async fn find(fs: &AfsFs, dir: Fid, name: &str) -> Result<Fid, Error> {
    match fs.lookup(dir, name.as_bytes()).await? {
        Lookup::Found(entry) => Ok(entry.fid),
        Lookup::Absent { .. } => panic!("there is no {name}"),
    }
}

async fn read_file(fs: &AfsFs) -> Result<Bytes, Error> {
    let cell = find(fs, fs.root(), "liar.example").await?;
    let file = find(fs, cell, "file").await?;
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let opened = fs.open(file, flags).await?;
    fs.read(opened.handle, 0, u32::try_from(LENGTH).unwrap()).await
}

/// What reading the file comes to, and how many lines that put into the log.
fn outcome(lie: Lie) -> (Result<Bytes, Error>, usize) {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let read = runtime.block_on(async {
        let (fs, servers) = mount(lie).await;
        let read = tokio::time::timeout(Duration::from_secs(30), read_file(&fs)).await;
        fs.shutdown().await;
        for server in servers {
            server.shutdown().await;
        }
        read.unwrap()
    });
    (read, warnings.0.load(Ordering::Relaxed))
}

#[test]
fn the_truth_is_believed() {
    let (read, warnings) = outcome(Lie::Nothing);
    assert!(read.unwrap() == data());
    assert_eq!(warnings, 0);
}

#[test]
fn lies_are_io_errors() {
    for lie in [
        Lie::FileLength,
        Lie::DirectoryLength,
        Lie::DirectoryBytes,
        Lie::DirectoryChain,
        Lie::DirectoryShort,
        Lie::DirectorySlash,
        Lie::DataLong,
        Lie::DataShort,
        Lie::DataCut,
        Lie::StatusCut,
        Lie::Endless,
        Lie::Servers,
    ] {
        let (read, warnings) = outcome(lie);
        let error = read.map(|data| data.len()).expect_err(&format!("{lie:?}"));
        assert_eq!(error.errno(), EIO, "{lie:?}: {error}");
        assert!(warnings > 0, "{lie:?}: {error}");
    }
}

#[test]
fn a_directory_in_itself_is_no_file() {
    let (read, _) = outcome(Lie::DirectoryLoop);
    assert_eq!(read.unwrap_err().errno(), 21, "EISDIR");
}

#[test]
fn what_something_is_may_change() {
    // As long as it says that it is a file there are its bytes; never those of a link.
    match outcome(Lie::Kind).0 {
        Ok(read) => assert!(read == data()),
        Err(error) => assert!([5, 40].contains(&error.errno()), "EIO or ELOOP: {error}"),
    }
}

#[test]
fn a_lie_in_a_bulk_reply_harms_nobody() {
    let (read, warnings) = outcome(Lie::ListLength);
    // The single question is answered.
    assert!(read.unwrap() == data());
    assert!(warnings > 0);
}
