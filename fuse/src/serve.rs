//! `afs serve`: serves a mount that somebody else keeps, from where the process before stopped.
//!
//! The machine: take the device and the state from the keeper, start the file system, restore what the state says, begin a
//! session on the device, have the kernel send again what was not answered. The mount is never unmounted here. To leave it to
//! the next process: stop taking requests, let those under way end, store what is dirty, end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::adapter::Shared;
use crate::attach::{Seat, can_resend};
use crate::cli::Serve;
use crate::daemon::Caller;
use crate::failure::{Failure, Kind};
use crate::keeper::{Message, Ward};
use crate::kept::Log;
use crate::program::{Setup, Started, listen, on_runtime};
use crate::report::{Reports, Served};
use crate::restore::restore;
use crate::secret;
use crate::session::{Options, Session};

/// Runs `afs serve`.
pub fn run(options: &Serve) -> ExitCode {
    let served = Seat::take()
        .map_err(|error| other(&error))
        .and_then(|seat| serve(options, seat));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            failure.show()
        }
    }
}

fn other(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Other, format!("cannot serve: {error}"))
}

fn serve(options: &Serve, seat: Seat) -> Result<(), Failure> {
    let caller = Caller::new(&options.client, false).map_err(|error| other(&error))?;
    let setup = Setup::read(&options.client)?;
    secret::keep()?;
    let mut ward = Ward::take(&options.fd_socket)?;
    caller.leave(&ward.place.at)?;
    let served = on_runtime(|runtime| serve_on(runtime, options, seat, &mut ward, setup));
    // The next process gets the mount now, when the ports are free.
    drop(ward);
    served
}

fn serve_on(
    runtime: &Runtime,
    options: &Serve,
    seat: Seat,
    ward: &mut Ward,
    setup: Setup,
) -> Result<(), Failure> {
    let at = ward.place.at.clone();
    let hopeless = |ward: &Ward, why: String| {
        // A keeper that has gone gives the mount up with it.
        let _ = ward.tell(&Message::Hopeless(why.clone()));
        Failure::new(
            Kind::Fuse,
            format!("the mount at {} cannot be served: {why}", at.display()),
        )
    };
    let held = ward.held.share().map_err(|error| other(&error))?;
    let (log, image) = Log::open(held.state).map_err(|error| hopeless(ward, error.to_string()))?;
    let first = image.init.clone();
    if first.as_ref().is_some_and(|init| !can_resend(init)) {
        return Err(hopeless(
            ward,
            "this kernel cannot send requests again (that takes Linux 6.9)".to_owned(),
        ));
    }
    let started = Started::start(runtime, &options.client, setup)?;
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
    }
    let how = Options {
        read_only: ward.place.read_only,
        allow_other: true,
    };
    let session = Session::attach(Arc::clone(&shared), seat, held.device, first.as_ref(), how)
        .map_err(|error| hopeless(ward, error.to_string()))?;
    let ended = session
        .start(fs.take_invalidations(), Arc::clone(&metrics))
        .map_err(|error| hopeless(ward, error.to_string()))?;
    let reports = Reports::new(
        Served::new(&at, how.read_only, how.allow_other, page),
        &fs,
        &metrics,
    );
    pages.show(reports.clone());
    let _socket = runtime.block_on(async { listen(reports, identities) });
    tracing::info!(port = fs.local_addr().port(), "serving {}", at.display());
    if let Err(error) = ward.tell(&Message::Serving) {
        tracing::debug!(%error, "the keeper cannot be told");
    }
    runtime.block_on(async {
        tokio::select! {
            _ = ended => tracing::info!("unmounted"),
            () = signals.one() => retire(&shared).await,
            stayed = ward.stay() => match stayed {
                Ok(()) => retire(&shared).await,
                Err(error) => tracing::error!(%error, "there is no keeper any more"),
            },
        }
    });
    pages.end();
    runtime.block_on(fs.shutdown());
    tracing::info!("ended");
    Ok(())
}

/// Leaves the mount to the next process.
async fn retire(shared: &Shared) {
    tracing::info!("retiring: the next process gets what comes now");
    shared.rest();
    if tokio::time::timeout(UNDER_WAY, shared.at_rest()).await.is_err() {
        tracing::warn!("requests are under way still: the next process gets them again");
    }
    shared.fs().store_all().await;
    if let Some(kept) = shared.kept() {
        kept.stored_where(|fid| !shared.fs().is_dirty(fid));
    }
}

/// How long requests that are under way are waited for.
const UNDER_WAY: Duration = Duration::from_secs(5);
