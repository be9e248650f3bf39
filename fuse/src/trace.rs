//! `afs trace`: what of a mount's work is traced, and changing that while it runs.

use std::path::PathBuf;

use clap::Args;

use crate::ctl::Request;
use crate::ctl::client::ask;
use crate::failure::{Failure, Kind};
use crate::status;
use crate::telemetry::trace::{Traced, millionths};

/// Options of `afs trace`.
#[derive(Args, Clone, Debug)]
pub struct Trace {
    /// Trace this share of the requests from now on, from 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub ratio: Option<f64>,

    /// Keep the traces of requests that fail or take so many milliseconds, too; 0 keeps none for that
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=3_600_000))]
    pub slow: Option<u32>,

    /// Which mount
    #[arg(value_name = "MOUNTPOINT")]
    pub mount_point: PathBuf,
}

/// Runs `afs trace`.
pub fn trace(options: &Trace) -> Result<(), Failure> {
    let mount = status::mount_at(&options.mount_point)?;
    let request = Request::Trace(options.ratio.map(millionths), options.slow);
    let answer = ask(&mount.socket, &request);
    let at = options.mount_point.display();
    let Some((now, _)) = answer.report::<Traced>() else {
        return Err(Failure::new(Kind::Other, format!("{at}: {}", answer.refusal())));
    };
    if !now.exports && (options.ratio.is_some() || options.slow.is_some()) {
        return Err(
            Failure::new(Kind::Other, format!("{at} has nowhere to send traces to"))
                .cure("mount with OTEL_EXPORTER_OTLP_ENDPOINT=http://COLLECTOR:4317 in the environment"),
        );
    }
    println!("{at}: traced are {now}");
    Ok(())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text
        .parse::<f64>()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}' is no share; write one from 0 to 1, like 0.01"))
}
