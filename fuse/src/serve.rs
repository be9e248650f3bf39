//! Serves a mount that somebody else holds, from where the process before stopped: `afs serve` one that a keeper holds, and
//! `afs mount --fd-store` one that the service manager holds.
//!
//! The machine: take the device and the state, start the file system, restore what the state says, begin a session on the
//! device, have the kernel send again what was not answered. To leave the mount to the next process: stop taking requests, let
//! those under way end, store what is dirty, end.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Duration;

use afs_client::auth::Identity;
use afs_client::fs::AfsFs;
use tokio::runtime::Runtime;

use crate::adapter::Shared;
use crate::attach::{Seat, can_resend};
use crate::cli::{Client, Mount, Serve};
use crate::daemon::Caller;
use crate::failure::{Failure, Kind};
use crate::identity::Rule;
use crate::keeper::{Held, Message, Place, Ward};
use crate::kept::{Kept, Log};
use crate::mount::{FS_TYPE, check_fuse, check_mount_point, lexical, mounted_at, unmount};
use crate::program::{Setup, Signal, Started, listen, on_runtime, unmount_in_order};
use crate::read_ahead;
use crate::report::{Reports, Served};
use crate::restore::restore;
use crate::secret;
use crate::service;
use crate::session::{Options, Session, mount_direct, refused};
use crate::token::from_keytab;

/// Runs `afs serve`.
pub fn run(options: &Serve) -> ExitCode {
    ended(serve(options))
}

/// Runs `afs mount --fd-store`.
pub fn run_stored(options: &Mount) -> ExitCode {
    ended(mount(options))
}

fn ended(served: Result<End, Failure>) -> ExitCode {
    match served {
        Ok(End::Retired(Holder::Service)) => ExitCode::from(NEXT),
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            failure.show()
        }
    }
}

/// Who has the mount when no process serves it.
enum Holder {
    Keeper(Ward),
    Service,
}

/// How serving ended.
enum End {
    /// There is no mount any more.
    Unmounted,
    /// The next process goes on, as soon as the holder is let go.
    Retired(Holder),
}

fn other(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Other, format!("cannot serve: {error}"))
}

fn serve(options: &Serve) -> Result<End, Failure> {
    let seat = Seat::take().map_err(|error| other(&error))?;
    let caller = Caller::new(&options.client, false).map_err(|error| other(&error))?;
    let setup = Setup::read(&options.client)?;
    secret::keep()?;
    let ward = Ward::take(&options.fd_socket)?;
    caller.leave(&ward.place.at)?;
    let (place, held) = (
        ward.place.clone(),
        ward.held.share().map_err(|error| other(&error))?,
    );
    let mut holder = Holder::Keeper(ward);
    on_runtime(|runtime| serve_on(runtime, &options.client, seat, &place, held, &mut holder, setup))?;
    // The next process gets the mount when this is dropped: the ports are free now.
    Ok(End::Retired(holder))
}

fn mount(options: &Mount) -> Result<End, Failure> {
    let seat = Seat::take().map_err(|error| other(&error))?;
    let caller = Caller::new(&options.client, false).map_err(|error| other(&error))?;
    let setup = Setup::read(&options.client)?;
    secret::keep()?;
    let (place, held) = stored_or_fresh(options)?;
    caller.leave(&place.at)?;
    let mut holder = Holder::Service;
    let retired =
        on_runtime(|runtime| serve_on(runtime, &options.client, seat, &place, held, &mut holder, setup));
    if !matches!(retired, Ok(true)) {
        service::forget();
        // What is still there answers nobody.
        let _ = unmount(&place.at, Duration::ZERO);
    }
    Ok(if retired? {
        End::Retired(holder)
    } else {
        End::Unmounted
    })
}

/// The mount that the service manager has, or a new one.
fn stored_or_fresh(options: &Mount) -> Result<(Place, Held), Failure> {
    let lost = |error: std::io::Error| {
        Failure::new(
            Kind::Other,
            format!("the service manager cannot hold the mount: {error}"),
        )
        .cure("set Type=notify and FileDescriptorStoreMax=2 in the unit, or leave --fd-store out")
    };
    let read_only = options.client.read_only;
    let at = std::path::absolute(&options.mount_point)
        .map_or_else(|_| options.mount_point.clone(), |at| lexical(&at));
    if let Some(held) = service::stored().map_err(lost)? {
        let is_there = mounted_at(&at).is_some_and(|there| there.fs_type == FS_TYPE);
        if is_there && Log::peek(&held.state.try_clone().map_err(lost)?.into()).is_ok() {
            return Ok((Place { at, read_only }, held));
        }
        tracing::warn!("what the service manager holds is of no use: mounting afresh");
        service::forget();
    }
    check_fuse(true)?;
    let at = check_mount_point(&options.mount_point)?;
    let how = Options {
        read_only,
        allow_other: true,
    };
    let log = Log::in_memory().map_err(lost)?;
    let held = Held {
        state: log.as_fd().try_clone_to_owned().map_err(lost)?,
        device: mount_direct(&at, how).map_err(|error| refused(&at, &error.into()))?,
    };
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        let _ = unmount(&at, Duration::ZERO);
        return Err(lost(std::io::Error::other("NOTIFY_SOCKET is not set")));
    }
    service::store(&held).map_err(lost)?;
    Ok((Place { at, read_only }, held))
}

/// Serves. True if the mount was left to the next process.
fn serve_on(
    runtime: &Runtime,
    options: &Client,
    seat: Seat,
    place: &Place,
    held: Held,
    holder: &mut Holder,
    setup: Setup,
) -> Result<bool, Failure> {
    let at = &place.at;
    let (log, image) = Log::open(held.state).map_err(|error| holder.hopeless(place, error.to_string()))?;
    let first = image.init.clone();
    if first.as_ref().is_some_and(|init| !can_resend(init)) {
        let why = "this kernel cannot send requests again (that takes Linux 6.9)";
        return Err(holder.hopeless(place, why.to_owned()));
    }
    let started = Started::start(runtime, options, setup)?;
    if first.is_none() {
        started.check_home(runtime)?;
    }
    let Started {
        fs,
        metrics,
        pages,
        page,
        mut signals,
        identities,
        shared,
    } = started;
    shared.keep(log, &image);
    if first.is_some() {
        runtime.block_on(restore(&shared, image));
    } else {
        fs.remove_hidden();
    }
    let keeper = Arc::downgrade(&shared);
    fs.witness_hidden(move |words, is_hidden| keep(&keeper, |kept| kept.hides(words, is_hidden)));
    let keeper = Arc::downgrade(&shared);
    fs.witness_locks(move |fid, left| keep(&keeper, |kept| kept.locked(fid, left)));
    let keeper = Arc::downgrade(&shared);
    fs.witness_tokens(move |held| keep(&keeper, |kept| kept.has_tokens(held)));
    log_in(runtime, &fs, options)?;
    let how = Options {
        read_only: place.read_only,
        allow_other: true,
    };
    let mut ended = Session::attach(Arc::clone(&shared), seat, held.device, first.as_ref(), how)
        .and_then(|session| session.start(fs.take_invalidations(), Arc::clone(&metrics)))
        .map_err(|error| holder.hopeless(place, error.to_string()))?;
    metrics.attached(first.is_some());
    read_ahead::widen(at);
    let reports = Reports::new(
        Served::new(at, how.read_only, how.allow_other, page),
        &fs,
        &metrics,
    );
    pages.show(reports.clone());
    let _socket = runtime.block_on(async { listen(reports, identities) });
    tracing::info!(port = fs.local_addr().port(), "serving {}", at.display());
    holder.serves(runtime, place);
    let retired = runtime.block_on(async {
        tokio::select! {
            _ = &mut ended => {
                tracing::info!("unmounted");
                false
            }
            signal = signals.one() => match (&holder, signal) {
                (Holder::Service, Signal::End) => {
                    service::stopping();
                    unmount_in_order(ended, signals, at, &fs).await;
                    false
                }
                _ => {
                    retire(&shared).await;
                    true
                }
            },
            stayed = holder.asks_to_retire() => {
                if let Err(error) = stayed {
                    tracing::error!(%error, "nobody holds the mount any more");
                }
                retire(&shared).await;
                true
            },
        }
    });
    pages.end();
    runtime.block_on(fs.shutdown());
    tracing::info!("ended");
    Ok(retired)
}

impl Holder {
    /// Nobody can go on with the mount.
    fn hopeless(&self, place: &Place, why: String) -> Failure {
        if let Self::Keeper(ward) = self {
            // A keeper that has gone gives the mount up with it.
            let _ = ward.tell(&Message::Hopeless(why.clone()));
        }
        Failure::new(
            Kind::Fuse,
            format!("the mount at {} cannot be served: {why}", place.at.display()),
        )
    }

    /// The mount answers.
    fn serves(&self, runtime: &Runtime, place: &Place) {
        service::ready(&format!("serving {}", place.at.display()));
        match self {
            Self::Keeper(ward) => {
                if let Err(error) = ward.tell(&Message::Serving) {
                    tracing::debug!(%error, "the keeper cannot be told");
                }
            }
            Self::Service => {
                let _runtime = runtime.enter();
                service::watch(place.at.clone());
            }
        }
    }

    /// Returns when the mount is to be left to the next process.
    async fn asks_to_retire(&mut self) -> std::io::Result<()> {
        match self {
            Self::Keeper(ward) => ward.stay().await,
            // It sends a signal.
            Self::Service => std::future::pending().await,
        }
    }
}

/// Gets the token that all who use the mount share.
pub(crate) fn log_in(runtime: &Runtime, fs: &AfsFs, options: &Client) -> Result<(), Failure> {
    let Some((keytab, principal)) = options.keytab.as_deref().zip(options.principal.as_deref()) else {
        return Ok(());
    };
    if options.identity != Rule::Mount {
        return Err(
            Failure::new(Kind::Usage, "--keytab gives one token to all who use the mount")
                .cure("say that they are one, with --identity mount"),
        );
    }
    let (token, source) = from_keytab(fs.home(), keytab, principal)?;
    tracing::info!(cell = %token.cell, client = %token.client, "a token was got");
    let _runtime = runtime.enter();
    let set = fs.as_identity(Identity::Everybody).set_token(token, Some(source));
    set.map_err(|error| Failure::new(Kind::Cell, error.to_string()))
}

/// Writes something down for the next process, as long as this one serves.
fn keep(shared: &Weak<Shared>, write: impl FnOnce(&Kept)) {
    if let Some(shared) = shared.upgrade()
        && let Some(kept) = shared.kept()
    {
        write(kept);
    }
}

/// Leaves the mount to the next process.
async fn retire(shared: &Shared) {
    tracing::info!("retiring: the next process gets what comes now");
    shared.rest();
    if tokio::time::timeout(UNDER_WAY, shared.at_rest()).await.is_err() {
        tracing::warn!("requests are under way still: the next process gets them again");
    }
    shared.passthrough().end();
    shared.fs().leave_locks().await;
    shared.fs().store_all().await;
    if let Some(kept) = shared.kept() {
        kept.stored_where(|fid| !shared.fs().is_dirty(fid));
    }
}

/// How long requests that are under way are waited for.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// The exit status that asks the service manager for the next process.
const NEXT: u8 = 75;
