//! The procedure-level list: what servers answer, call by call, as text.
//!
//! The machine: a fixed series of calls is made to a location server and a file server, in two clients' names; each line
//! says what was asked and what came of it, without what no two cells have in common (times, numbers of volumes and
//! vnodes). `transcript.txt` is what OpenAFS says. A server that says anything else differs from it in a line.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use afs_client::error::vice;
use afs_client::rpc::Procedure;
use afs_client::rpc::client::{RpcError, call, fetch_data, store_data};
use afs_client::rpc::fs::*;
use afs_client::rpc::types::{AfsFid, CallBack, FetchStatus, StoreStatus};
use afs_client::rpc::vl::{GetEntryByName, ProbeServer};
use afs_client::xdr::{Encode, List};
use bytes::Bytes;
use rxrpc::events::NullSink;
use rxrpc::net::Target;
use rxrpc::proto::{CallError, ServiceId};

use super::peer::Peer;

/// More than the salvager takes for a small volume.
const SALVAGE_SECONDS: usize = 60;
/// What OpenAFS says.
pub(crate) const EXPECTED: &str = include_str!("transcript.txt");

/// Makes the calls from sockets at `here`, and tells what came of them.
pub(crate) async fn of(here: Ipv4Addr, location: Ipv4Addr, file_server: Ipv4Addr) -> String {
    let bind = SocketAddrV4::new(here, 0);
    let server = SocketAddrV4::new(file_server, 7000);
    let peer = || Peer::at(bind, server, 2, Arc::new(NullSink));
    let mut tape = Tape {
        one: peer().await,
        two: peer().await,
        location: Target::new(SocketAddrV4::new(location, 7003), ServiceId(52)),
        known: Vec::new(),
        text: String::new(),
    };
    let volumes = tape.locations().await;
    let first = peer().await;
    let links = volumes.settled(&first).await;
    first.endpoint.shutdown().await;
    tape.server(&volumes).await;
    let dir = tape.names(&volumes).await;
    tape.data(dir).await;
    tape.attributes(dir).await;
    tape.links(&volumes, dir).await;
    tape.renames(dir).await;
    tape.rights(dir).await;
    tape.locks(dir).await;
    tape.many(&volumes, dir).await;
    tape.removals(&volumes, dir, links).await;
    tape.one.endpoint.shutdown().await;
    tape.two.endpoint.shutdown().await;
    tape.text
}

/// The lines in which two transcripts differ.
pub(crate) fn differences(expected: &str, said: &str) -> Vec<String> {
    let (expected, said): (Vec<_>, Vec<_>) = (expected.lines().collect(), said.lines().collect());
    let line = |lines: &[&str], at: usize| (*lines.get(at).unwrap_or(&"(nothing)")).to_owned();
    (0..expected.len().max(said.len()))
        .map(|at| (line(&expected, at), line(&said, at)))
        .filter(|(expected, said)| expected != said)
        .map(|(expected, said)| format!("expected {expected}\n    said {said}"))
        .collect()
}

struct Tape {
    one: Peer,
    two: Peer,
    location: Target,
    /// What vnodes are called.
    known: Vec<(AfsFid, String)>,
    text: String,
}

/// Volumes by what they are for.
struct Volumes {
    work: AfsFid,
    tiny: AfsFid,
    home: AfsFid,
    read_only: AfsFid,
}

impl Volumes {
    /// Waits until none of them is being salvaged, after what was done to their server before; gives how many links the
    /// root of `work` has.
    async fn settled(&self, peer: &Peer) -> u32 {
        let mut links = 0;
        for fid in [self.tiny, self.home, self.read_only, self.work] {
            for _ in 0..SALVAGE_SECONDS {
                match peer.call(FetchStatusOf { fid }).await {
                    Err(vice::BUSY) => tokio::time::sleep(Duration::from_secs(1)).await,
                    Ok(reply) => {
                        links = reply.status.link_count;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        links
    }
}

impl Tape {
    fn say(&mut self, what: &str, came: Result<String, i32>) {
        match came {
            Ok(said) => writeln!(self.text, "{what}: {said}"),
            Err(code) => writeln!(self.text, "{what}: abort {code}"),
        }
        .unwrap();
    }

    /// Calls as the first client.
    async fn ask<P: Procedure>(
        &mut self,
        what: &str,
        request: P,
        show: impl FnOnce(&Self, &P::Reply) -> String,
    ) -> Option<P::Reply> {
        let came = self.one.call(request).await;
        let said = came.as_ref().map(|reply| show(self, reply)).map_err(|code| *code);
        self.say(what, said);
        came.ok()
    }

    /// The same, while the second client holds promises on these files; which of them are broken.
    async fn ask_watched<P: Procedure>(
        &mut self,
        what: &str,
        watched: &[AfsFid],
        request: P,
        show: impl FnOnce(&Self, &P::Reply) -> String,
    ) -> Option<P::Reply> {
        for fid in watched {
            self.two.call(FetchStatusOf { fid: *fid }).await.unwrap();
        }
        let before = self.two.asked_for("CallBack");
        let reply = self.ask(what, request, show).await;
        let breaks = self.two.asked_for("CallBack") - before;
        writeln!(self.text, "    the other client was called {breaks} times").unwrap();
        reply
    }

    fn called(&self, vnode: u32, unique: u32) -> String {
        let is_it = |(fid, _): &&(AfsFid, String)| (fid.vnode, fid.unique) == (vnode, unique);
        match self.known.iter().find(is_it) {
            Some((_, name)) => name.clone(),
            None if (vnode, unique) == (0, 0) => "none".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    fn shown(&self, status: &FetchStatus) -> String {
        if status.error_code != 0 {
            return format!("code {}", status.error_code);
        }
        let length = u64::from(status.length_high) << 32 | u64::from(status.length_low);
        let version = u64::from(status.version_high) << 32 | u64::from(status.version_low);
        format!(
            "type {} links {} length {length} version {version} author {} owner {} group {} rights {:02x}/{:02x} mode {:o} \
             parent {} locks {}",
            status.file_type,
            status.link_count,
            status.author,
            status.owner,
            status.group,
            status.caller_access,
            status.anonymous_access,
            status.unix_mode_bits,
            self.called(status.parent_vnode, status.parent_unique),
            status.lock_count.cast_signed(),
        )
    }

    fn know(&mut self, fid: AfsFid, name: &str) -> AfsFid {
        self.known.push((fid, name.to_owned()));
        fid
    }

    async fn status(&mut self, what: &str, fid: AfsFid) {
        self.ask(what, FetchStatusOf { fid }, |tape, reply| {
            format!("{}; {}", tape.shown(&reply.status), promise(&reply.callback))
        })
        .await;
    }

    /// A status without what the making of a volume decides.
    async fn root(&mut self, what: &str, fid: AfsFid) {
        self.ask(what, FetchStatusOf { fid }, |_, reply| {
            let (status, callback) = (&reply.status, &reply.callback);
            // For how long depends on how many others hold one.
            format!(
                "type {} length {} rights {:02x}/{:02x} mode {:o}; promise {} of type {}",
                status.file_type,
                status.length(),
                status.caller_access,
                status.anonymous_access,
                status.unix_mode_bits,
                callback.version,
                callback.callback_type
            )
        })
        .await;
    }

    async fn locations(&mut self) -> Volumes {
        let mut roots = Vec::new();
        for name in [
            "work",
            "tiny",
            "home.alice",
            "ro.data.readonly",
            "ro.data.backup",
            "none",
            "a b",
            "",
        ] {
            let request = GetEntryByName {
                name: name.as_bytes().into(),
            };
            let came = call(&self.one.endpoint, &self.location, &request).await;
            let said = match &came {
                Ok(reply) => {
                    let entry = &reply.entry;
                    let has: Vec<_> = entry.server_flags.iter().take(entry.servers as usize).collect();
                    Ok(format!(
                        "{} at {} servers {has:x?}, exists {:x}",
                        entry.name.text(),
                        entry.servers,
                        entry.flags & 0x7000
                    ))
                }
                Err(RpcError::Aborted(code)) => Err(code.0),
                Err(error) => panic!("{error}"),
            };
            self.say(&format!("location of `{name}'"), said);
            if let Ok(reply) = came {
                let place = usize::from(name.ends_with("readonly"));
                roots.push(AfsFid {
                    volume: reply.entry.ids[place],
                    vnode: 1,
                    unique: 1,
                });
            }
        }
        let probed = call(&self.one.endpoint, &self.location, &ProbeServer {})
            .await
            .is_ok();
        self.say("probe of the location server", Ok(probed.to_string()));
        Volumes {
            work: roots[0],
            tiny: roots[1],
            home: roots[2],
            read_only: roots[3],
        }
    }

    async fn server(&mut self, volumes: &Volumes) {
        self.ask("time", GetTime {}, |_, reply| {
            (reply.seconds > 1_600_000_000).to_string()
        })
        .await;
        self.ask("capabilities", GetCapabilities {}, |_, reply| {
            format!("{:?}", reply.capabilities.0)
        })
        .await;
        for (name, root) in [
            ("tiny", volumes.tiny),
            ("read-only", volumes.read_only),
            ("none", AfsFid::default()),
        ] {
            let request = GetVolumeStatus { volume: root.volume };
            self.ask(&format!("volume status of {name}"), request, |_, reply| {
                let status = &reply.status;
                format!(
                    "{} quota {}..{} online {} in service {} blessed {} salvage {} kind {}",
                    reply.name.lossy(),
                    status.min_quota,
                    status.max_quota,
                    status.online,
                    status.in_service,
                    status.blessed,
                    status.needs_salvage,
                    status.kind
                )
            })
            .await;
        }
        let set = SetVolumeStatus {
            volume: volumes.tiny.volume,
            ..SetVolumeStatus::default()
        };
        self.ask("set volume status", set, |_, _| "done".to_owned()).await;
        let work = volumes.work;
        self.know(work, "work");
        self.know(volumes.home, "home");
        self.root("status of a root", work).await;
        self.root("of the root of a replica", volumes.read_only).await;
        self.root("of a root without rights", volumes.home).await;
        self.status(
            "of a file without rights",
            AfsFid {
                vnode: 2,
                unique: 2,
                ..volumes.home
            },
        )
        .await;
        self.status(
            "of a vnode that is not",
            AfsFid {
                vnode: 9998,
                unique: 7,
                ..work
            },
        )
        .await;
        self.status("of another user of a vnode", AfsFid { unique: 7, ..work })
            .await;
        self.status("of a volume that is not", AfsFid { volume: 1, ..work })
            .await;
        self.status("of nothing", AfsFid::default()).await;
    }

    async fn names(&mut self, volumes: &Volumes) -> AfsFid {
        let make = |name: &str| MakeDir {
            dir: volumes.work,
            name: name.as_bytes().into(),
            status: mode(0o755),
        };
        let made = self.one.call(make("wire")).await.unwrap();
        let dir = self.know(made.fid, "dir");
        let said = format!("{}; {}", self.shown(&made.status), promise(&made.callback));
        self.say("a directory is made", Ok(said));
        self.ask("again", make("wire"), |_, _| "made".to_owned()).await;
        let long = "n".repeat(255);
        let too_long = "n".repeat(256);
        for name in ["file", "file", "", ".", "..", "a/b", &long, &too_long] {
            let request = CreateFile {
                dir,
                name: name.as_bytes().into(),
                status: StoreStatus {
                    mask: StoreStatus::SET_MODE | StoreStatus::SET_MTIME,
                    client_mod_time: 1_000_000_000,
                    unix_mode_bits: 0o640,
                    ..StoreStatus::default()
                },
            };
            let shown = if name.len() > 200 { "a long one" } else { name };
            let what = format!("create `{shown}' ({} bytes)", name.len());
            let watched = [dir];
            let made = self
                .ask_watched(&what, &watched, request, |tape, reply| {
                    format!(
                        "{}; mtime {}; {}; dir {}",
                        tape.shown(&reply.status),
                        reply.status.client_mod_time,
                        promise(&reply.callback),
                        tape.shown(&reply.dir_status)
                    )
                })
                .await;
            if let Some(made) = made {
                self.know(made.fid, shown);
            }
        }
        for (what, dir) in [("a file", self.named("file")), ("a replica", volumes.read_only)] {
            let request = CreateFile {
                dir,
                name: b"new"[..].into(),
                ..CreateFile::default()
            };
            self.ask(&format!("create in {what}"), request, |_, _| "made".to_owned())
                .await;
        }
        dir
    }

    fn named(&self, name: &str) -> AfsFid {
        self.known.iter().rfind(|(_, known)| known == name).unwrap().0
    }

    async fn store(&mut self, what: &str, args: StoreDataArgs, data: &'static [u8]) {
        self.two.call(FetchStatusOf { fid: args.fid }).await.ok();
        let before = self.two.asked_for("CallBack");
        let mut source = |_: u64, _: usize| Ok(Bytes::from_static(data));
        let args = StoreDataArgs {
            length: data.len() as u64,
            ..args
        };
        let came = store_data(&self.one.endpoint, &self.one.target(), &args, &mut source).await;
        let breaks = self.two.asked_for("CallBack") - before;
        let said = match came {
            Ok(reply) => Ok(format!("{}; {breaks} breaks", self.shown(&reply.status))),
            Err(RpcError::Aborted(code)) => Err(code.0),
            Err(error) => panic!("{error}"),
        };
        self.say(what, said);
    }

    async fn fetch(&mut self, what: &str, fid: AfsFid, position: u64, length: u64) {
        let args = FetchDataArgs {
            fid,
            position,
            length,
        };
        let mut got = Vec::new();
        let mut sink = |_: u64, parts: &[Bytes]| {
            parts.iter().for_each(|part| got.extend_from_slice(part));
            Ok(())
        };
        let came = fetch_data(&self.one.endpoint, &self.one.target(), &args, &mut sink).await;
        let said = match came {
            Ok((length, reply)) => Ok(format!(
                "{length} bytes {:?}; {}; {}",
                String::from_utf8_lossy(&got),
                self.shown(&reply.status),
                promise(&reply.callback)
            )),
            Err(RpcError::Aborted(code)) => Err(code.0),
            Err(error) => panic!("{error}"),
        };
        self.say(what, said);
    }

    async fn data(&mut self, dir: AfsFid) {
        let fid = self.named("file");
        let store = |fid, position, file_length| StoreDataArgs {
            fid,
            position,
            file_length,
            ..StoreDataArgs::default()
        };
        self.store("store at the beginning", store(fid, 0, 5), b"hello")
            .await;
        self.store("store behind the end", store(fid, 10, 12), b"xy")
            .await;
        self.store("a file length in the middle", store(fid, 2, 3), b"")
            .await;
        self.store("no data behind the end", store(fid, 8, 0), b"").await;
        self.store("a file length beyond the data", store(fid, 0, 9), b"abc")
            .await;
        self.store("nothing at all", store(fid, 0, 0), b"").await;
        self.store("once more", store(fid, 0, 6), b"abcdef").await;
        self.store("into a directory", store(dir, 0, 1), b"x").await;
        self.store("into nothing", store(AfsFid { unique: 9999, ..fid }, 0, 1), b"x")
            .await;
        let set = |mask, value| StoreDataArgs {
            status: StoreStatus {
                mask,
                owner: value,
                group: value,
                unix_mode_bits: value,
                ..StoreStatus::default()
            },
            ..store(fid, 0, 6)
        };
        for (what, set) in [
            ("with bits", set(StoreStatus::SET_MODE, 0o600)),
            ("with setuid", set(StoreStatus::SET_MODE, 0o4640)),
            ("with the same owner", set(StoreStatus::SET_OWNER, 32766)),
            ("with another owner", set(StoreStatus::SET_OWNER, 1)),
            ("with another group", set(StoreStatus::SET_GROUP, 1)),
        ] {
            self.store(&format!("store {what}"), set, b"fedcba").await;
        }
        self.fetch("fetch", fid, 0, 100).await;
        self.fetch("from the middle", fid, 2, 2).await;
        self.fetch("from behind the end", fid, 100, 10).await;
        self.fetch("nothing", fid, 0, 0).await;
        self.fetch("from nowhere", AfsFid { unique: 9999, ..fid }, 0, 1)
            .await;
        self.narrow(fid).await;
    }

    /// The procedures for files below 2 GiB.
    async fn narrow(&mut self, fid: AfsFid) {
        let mut request = Vec::new();
        130_u32.encode(&mut request);
        fid.encode(&mut request);
        [1_u32, 3].iter().for_each(|word| word.encode(&mut request));
        let came = self.raw(request).await;
        let said = came.map(|reply| {
            let (length, rest) = reply.split_first_chunk().unwrap();
            let length = u32::from_be_bytes(*length);
            format!(
                "{length} bytes {:?}",
                String::from_utf8_lossy(&rest[..length as usize])
            )
        });
        self.say("fetch by 32 bits", said);
        let mut request = Vec::new();
        133_u32.encode(&mut request);
        fid.encode(&mut request);
        StoreStatus::default().encode(&mut request);
        [0_u32, 2, 4].iter().for_each(|word| word.encode(&mut request));
        request.extend_from_slice(b"AB");
        let came = self.raw(request).await;
        self.say(
            "store by 32 bits",
            came.map(|reply| format!("{} bytes of reply", reply.len())),
        );
        self.fetch("what it is now", fid, 0, 100).await;
        let mut request = Vec::new();
        9_999_u32.encode(&mut request);
        let came = self.raw(request).await.map(|_| "an answer".to_owned());
        self.say("a procedure that is not", came);
    }

    async fn raw(&self, request: Vec<u8>) -> Result<Vec<u8>, i32> {
        let exchange = async {
            let mut call = self.one.endpoint.call(&self.one.target()).await?;
            call.send(request.into()).await?;
            call.finish()?;
            let mut reply = Vec::new();
            while let Some(part) = call.recv().await? {
                reply.extend_from_slice(&part);
            }
            Ok::<_, CallError>(reply)
        };
        exchange.await.map_err(|error| match RpcError::from(error) {
            RpcError::Aborted(code) => code.0,
            error => panic!("{error}"),
        })
    }

    async fn attributes(&mut self, dir: AfsFid) {
        let fid = self.named("file");
        let set = |mask| StoreStatus {
            mask,
            client_mod_time: 1_234_567_890,
            owner: 1001,
            group: 77,
            unix_mode_bits: 0o4751,
            ..StoreStatus::default()
        };
        for (what, fid, status) in [
            (
                "mode and time",
                fid,
                set(StoreStatus::SET_MODE | StoreStatus::SET_MTIME),
            ),
            ("nothing", fid, set(0)),
            ("owner", fid, set(StoreStatus::SET_OWNER)),
            ("group", fid, set(StoreStatus::SET_GROUP)),
            ("mode of a directory", dir, mode(0o751)),
            ("back", dir, mode(0o755)),
            (
                "a mode with more bits, of a directory",
                dir,
                set(StoreStatus::SET_MODE),
            ),
            ("bits that mean nothing", fid, set(0x100)),
        ] {
            let request = StoreStatusOf { fid, status };
            self.ask_watched(&format!("set {what}"), &[fid, dir], request, |tape, reply| {
                format!("{}; mtime {}", tape.shown(&reply.status), mtime(&reply.status))
            })
            .await;
        }
    }

    async fn links(&mut self, volumes: &Volumes, dir: AfsFid) {
        for (name, target, bits) in [
            ("symlink", "file", 0o777),
            ("mount", "#work.", 0o644),
            ("bad", "", 0o777),
        ] {
            let request = Symlink {
                dir,
                name: name.as_bytes().into(),
                target: target.as_bytes().into(),
                status: mode(bits),
            };
            let made = self
                .ask_watched(&format!("symlink {name}"), &[dir], request, |tape, reply| {
                    format!(
                        "{}; dir {}",
                        tape.shown(&reply.status),
                        tape.shown(&reply.dir_status)
                    )
                })
                .await;
            if let Some(made) = made {
                self.know(made.fid, name);
            }
        }
        let link = self.named("symlink");
        self.fetch("text of a symlink", link, 0, 100).await;
        let args = StoreDataArgs {
            fid: link,
            file_length: 1,
            ..StoreDataArgs::default()
        };
        self.store("store into a symlink", args, b"x").await;
        let file = self.named("file");
        let request = MakeDir {
            dir,
            name: b"sub"[..].into(),
            status: mode(0o700),
        };
        let made = self
            .ask("make sub", request, |tape, reply| tape.shown(&reply.dir_status))
            .await;
        let sub = self.know(made.unwrap().fid, "sub");
        for (what, dir, name, fid) in [
            ("a file", dir, "second", file),
            ("under a name that is taken", dir, "second", file),
            ("into another directory", sub, "third", file),
            ("from another volume", volumes.tiny, "fourth", file),
            ("a directory", dir, "fifth", sub),
            ("nothing", dir, "sixth", AfsFid { unique: 9999, ..file }),
        ] {
            let request = Link {
                dir,
                name: name.as_bytes().into(),
                fid,
            };
            let watched = [self.named("dir"), file];
            self.ask_watched(&format!("link {what}"), &watched, request, |tape, reply| {
                format!(
                    "{}; dir {}",
                    tape.shown(&reply.status),
                    tape.shown(&reply.dir_status)
                )
            })
            .await;
        }
    }

    async fn renames(&mut self, dir: AfsFid) {
        let sub = self.named("sub");
        for name in ["other", "third"] {
            let fid = self.one.create(dir, name).await;
            self.know(fid, name);
        }
        for (from_dir, from, to_dir, to) in [
            (dir, "second", dir, "renamed"),
            (dir, "renamed", dir, "renamed"),
            (dir, "other", dir, "third"),
            (dir, "third", sub, "moved"),
            (dir, "none", dir, "some"),
            (dir, "sub", sub, "inside"),
            (dir, "sub", dir, "file"),
            (dir, "file", dir, "sub"),
            (dir, "sub", dir, "sub2"),
            (dir, "file", dir, ""),
            (dir, ".", dir, "dot"),
            (dir, "renamed", sub, "linked"),
        ] {
            let request = Rename {
                from_dir,
                from: from.as_bytes().into(),
                to_dir,
                to: to.as_bytes().into(),
            };
            let place = |fid| if fid == dir { "dir" } else { "sub" };
            let what = format!("rename {}/{from} to {}/{to}", place(from_dir), place(to_dir));
            self.ask_watched(&what, &[dir, sub], request, |tape, reply| {
                format!(
                    "{}; {}",
                    tape.shown(&reply.from_status),
                    tape.shown(&reply.to_status)
                )
            })
            .await;
        }
    }

    async fn rights(&mut self, dir: AfsFid) {
        let file = self.named("file");
        for (what, fid) in [("dir", dir), ("file", file)] {
            self.ask(&format!("list of {what}"), FetchAcl { fid }, |_, reply| {
                format!("{:?}", reply.acl.lossy())
            })
            .await;
        }
        let twenty_one = format!("21\n0\n{}\0", "system:anyuser 1\n".repeat(21));
        for (what, text) in [
            (
                "of anybody",
                "2\n0\nsystem:administrators 127\nsystem:anyuser 89\n\0",
            ),
            (
                "with a denial",
                "2\n1\nsystem:administrators 127\nsystem:anyuser 127\nsystem:anyuser 4\n\0",
            ),
            ("of nobody known", "1\n0\nnobody-such 1\n\0"),
            ("of too many", &twenty_one),
            ("that is none", "x\n\0"),
            ("that is empty", "\0"),
        ] {
            let request = StoreAcl {
                fid: dir,
                acl: text.as_bytes().into(),
            };
            self.ask_watched(&format!("store a list {what}"), &[dir], request, |tape, reply| {
                tape.shown(&reply.status)
            })
            .await;
        }
        self.ask("the list now", FetchAcl { fid: dir }, |_, reply| {
            format!("{:?}", reply.acl.lossy())
        })
        .await;
        let request = StoreAcl {
            fid: file,
            acl: b"1\n0\nsystem:anyuser 1\n\0"[..].into(),
        };
        self.ask("store a list for a file", request, |_, _| "done".to_owned())
            .await;
        let request = CreateFile {
            dir,
            name: b"denied"[..].into(),
            ..CreateFile::default()
        };
        let made = self
            .ask("create", request, |tape, reply| tape.shown(&reply.status))
            .await;
        let file = self.know(made.map(|made| made.fid).unwrap_or_default(), "denied");
        self.fetch("read what I made", file, 0, 10).await;
        let request = RemoveFile {
            dir,
            name: b"denied"[..].into(),
        };
        self.ask("remove it", request, |_, _| "done".to_owned()).await;
        let request = StoreAcl {
            fid: dir,
            acl: b"2\n0\nsystem:administrators 127\nsystem:anyuser 127\n\0"[..].into(),
        };
        self.ask("all rights again", request, |tape, reply| {
            tape.shown(&reply.status)
        })
        .await;
    }

    async fn locks(&mut self, dir: AfsFid) {
        let fid = self.named("file");
        for (what, kind) in [("write", 1), ("read", 0), ("some", 2)] {
            self.ask(&format!("lock to {what}"), SetLock { fid, kind }, |_, _| {
                "done".to_owned()
            })
            .await;
        }
        let read = self
            .two
            .call(SetLock { fid, kind: 0 })
            .await
            .map(|_| "done".to_owned());
        self.say("the other locks to read", read);
        self.status("locked", fid).await;
        self.ask("extend", ExtendLock { fid }, |_, _| "done".to_owned())
            .await;
        self.ask("release", ReleaseLock { fid }, |_, _| "done".to_owned())
            .await;
        self.ask("release again", ReleaseLock { fid }, |_, _| "done".to_owned())
            .await;
        self.ask("extend", ExtendLock { fid }, |_, _| "done".to_owned())
            .await;
        for _ in 0..2 {
            self.ask("lock to read", SetLock { fid, kind: 0 }, |_, _| "done".to_owned())
                .await;
        }
        self.status("locked", fid).await;
        for _ in 0..2 {
            self.ask("release", ReleaseLock { fid }, |_, _| "done".to_owned())
                .await;
        }
        self.ask("lock a directory", SetLock { fid: dir, kind: 0 }, |_, _| {
            "done".to_owned()
        })
        .await;
        self.ask("release it", ReleaseLock { fid: dir }, |_, _| "done".to_owned())
            .await;
        let gone = AfsFid { unique: 9999, ..fid };
        self.ask("lock nothing", SetLock { fid: gone, kind: 0 }, |_, _| {
            "done".to_owned()
        })
        .await;
    }

    async fn many(&mut self, volumes: &Volumes, dir: AfsFid) {
        let file = self.named("file");
        let secret = AfsFid {
            vnode: 2,
            unique: 2,
            ..volumes.home
        };
        let mixed = List(vec![
            file,
            AfsFid { unique: 9999, ..file },
            AfsFid { volume: 1, ..file },
            secret,
            dir,
        ]);
        self.ask(
            "many, one by one",
            InlineBulkStatus { fids: mixed.clone() },
            |tape, reply| {
                let each = reply.statuses.0.iter().zip(&reply.callbacks.0);
                let shown =
                    each.map(|(status, callback)| format!("{}; {}", tape.shown(status), promise(callback)));
                shown.collect::<Vec<_>>().join(" | ")
            },
        )
        .await;
        self.ask("many, all or none", BulkStatus { fids: mixed }, |_, _| {
            "all".to_owned()
        })
        .await;
        let whole = List(vec![file, dir]);
        self.ask("all there", BulkStatus { fids: whole }, |_, reply| {
            format!("{} {}", reply.statuses.0.len(), reply.callbacks.0.len())
        })
        .await;
        let none = List(vec![]);
        self.ask("none at all", InlineBulkStatus { fids: none }, |_, reply| {
            format!("{} {}", reply.statuses.0.len(), reply.callbacks.0.len())
        })
        .await;
        let more = GiveUpCallBacks {
            fids: List(vec![]),
            callbacks: List(vec![CallBack::default()]),
        };
        self.ask("give up what is not named", more, |_, _| "done".to_owned())
            .await;
        self.two.call(FetchStatusOf { fid: file }).await.unwrap();
        let up = GiveUpCallBacks {
            fids: List(vec![file]),
            callbacks: List(vec![]),
        };
        let given = self.two.call(up).await.map(|_| "done".to_owned());
        self.say("the other gives a promise up", given);
        let before = self.two.asked_for("CallBack");
        let request = StoreStatusOf {
            fid: file,
            status: mode(0o600),
        };
        self.ask("change it", request, |tape, reply| tape.shown(&reply.status))
            .await;
        let breaks = self.two.asked_for("CallBack") - before;
        self.say("breaks", Ok(breaks.to_string()));
        self.ask("give all up", GiveUpAllCallBacks {}, |_, _| "done".to_owned())
            .await;
    }

    async fn removals(&mut self, volumes: &Volumes, dir: AfsFid, links: u32) {
        let sub = self.named("sub");
        for (what, name) in [
            ("a link", "renamed"),
            ("nothing", "none"),
            ("a directory", "sub2"),
            ("itself", "."),
        ] {
            let request = RemoveFile {
                dir,
                name: name.as_bytes().into(),
            };
            self.ask_watched(&format!("remove {what}"), &[dir], request, |tape, reply| {
                tape.shown(&reply.dir_status)
            })
            .await;
        }
        for (what, place, name) in [
            ("a file", dir, "file"),
            ("one that is not empty", dir, "sub2"),
            ("nothing", dir, "none"),
            ("the parent", sub, ".."),
        ] {
            let request = RemoveDir {
                dir: place,
                name: name.as_bytes().into(),
            };
            self.ask_watched(
                &format!("remove as a directory {what}"),
                &[dir],
                request,
                |tape, reply| tape.shown(&reply.dir_status),
            )
            .await;
        }
        for (what, place, name) in [("moved", sub, "moved"), ("linked", sub, "linked")] {
            let request = RemoveFile {
                dir: place,
                name: name.as_bytes().into(),
            };
            self.ask(&format!("remove {what}"), request, |tape, reply| {
                tape.shown(&reply.dir_status)
            })
            .await;
        }
        let request = RemoveDir {
            dir,
            name: b"sub2"[..].into(),
        };
        self.ask_watched("remove the empty one", &[dir, sub], request, |tape, reply| {
            tape.shown(&reply.dir_status)
        })
        .await;
        self.status("it", sub).await;
        let file = self.named("file");
        let names = [
            "file".to_owned(),
            "n".repeat(255),
            "n".repeat(256),
            "symlink".to_owned(),
            "mount".to_owned(),
        ];
        for name in &names {
            let request = RemoveFile {
                dir,
                name: name.as_bytes().into(),
            };
            self.ask_watched("remove one of the rest", &[dir], request, |tape, reply| {
                tape.shown(&reply.dir_status)
            })
            .await;
        }
        self.status("a file without a name", file).await;
        for name in ["bad", "third", "other", "second"] {
            let request = RemoveFile {
                dir,
                name: name.as_bytes().into(),
            };
            self.ask(&format!("remove {name}"), request, |_, _| "done".to_owned())
                .await;
        }
        let request = RemoveDir {
            dir: volumes.work,
            name: b"wire"[..].into(),
        };
        self.ask("remove dir", request, |_, reply| {
            let more = i64::from(reply.dir_status.link_count) - i64::from(links);
            format!("links as at the beginning and {more}")
        })
        .await;
    }
}

fn mode(bits: u32) -> StoreStatus {
    StoreStatus {
        mask: StoreStatus::SET_MODE,
        unix_mode_bits: bits,
        ..StoreStatus::default()
    }
}

/// A time that was set is shown, one of the server's clock is not.
fn mtime(status: &FetchStatus) -> String {
    match status.client_mod_time {
        1_000_000_000 => "as created".to_owned(),
        1_234_567_890 => "as set".to_owned(),
        0 => "0".to_owned(),
        _ => "now".to_owned(),
    }
}

/// A promise: for how long, in steps of 128 seconds as servers round it.
fn promise(callback: &CallBack) -> String {
    let steps = callback.expiration_time / 256 * 256;
    format!(
        "promise {} of type {} for {steps} s",
        callback.version, callback.callback_type
    )
}
