//! `afs status`: how mounts are. And how commands find the mount that they ask.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::ctl::client::{Answer, ask_all, ask_each};
use crate::ctl::{Reply, Request};
use crate::failure::{Failure, Kind};
use crate::mount::{FS_TYPE, lexical};
use crate::mount_table::{self, Entry};
use crate::report::status::Status as Report;

/// Options of `afs status`.
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// As JSON, one object per mount
    #[arg(long)]
    pub json: bool,

    /// Only this mount [default: all mounts that you may use]
    #[arg(value_name = "MOUNTPOINT")]
    pub mount_point: Option<PathBuf>,
}

/// A mount that answers.
pub(crate) struct Found {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// How it is.
    pub(crate) status: Report,
    json: String,
}

/// Runs `afs status`.
pub fn status(options: &Status) -> Result<(), Failure> {
    let found = match &options.mount_point {
        Some(at) => vec![mount_at(at)?],
        None => all()?,
    };
    for (place, mount) in found.iter().enumerate() {
        if options.json {
            println!("{}", mount.json);
        } else {
            let gap = if place == 0 { "" } else { "\n" };
            print!("{gap}{}", mount.status);
        }
    }
    Ok(())
}

/// The mount at this path.
pub(crate) fn mount_at(path: &Path) -> Result<Found, Failure> {
    let at = std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| lexical(&path));
    match mount_table::at(&at) {
        Some(entry) if entry.fs_type == FS_TYPE => of_entry(&entry),
        Some(entry) => Err(Failure::new(
            Kind::MountPoint,
            format!(
                "{} is a mount of {} ({}), not of afs",
                at.display(),
                entry.source,
                entry.fs_type
            ),
        )
        .cure(SEE_MOUNTS)),
        // A process in a container of its own may serve it.
        None => ask_each(&Request::Status, None)
            .find_map(|answer| found(&answer).filter(|found| found.status.mount.at == at))
            .ok_or_else(|| {
                Failure::new(Kind::MountPoint, format!("{} is not a mount", at.display())).cure(SEE_MOUNTS)
            }),
    }
}

/// The process that serves a mount of the kernel's table.
pub(crate) fn of_entry(entry: &Entry) -> Result<Found, Failure> {
    let is_it = |found: &Found| match found.status.mount.device {
        Some(device) => device == entry.device,
        None => found.status.mount.at == entry.at,
    };
    let mut refusals = Vec::new();
    for answer in ask_each(&Request::Status, None) {
        match found(&answer) {
            Some(found) if is_it(&found) => return Ok(found),
            None if matches!(answer.reply, Ok(Reply::Refused(_))) => {
                refusals.push(format!("{}: {}", answer.socket.display(), answer.refusal()));
            }
            // Another mount, or one that ends.
            _ => {}
        }
    }
    let at = entry.at.display();
    let mut what = format!("{at} is mounted, but the program that serves it does not answer here");
    let mut cure = format!("if it has ended, clean up with `afs umount {at}'");
    if !refusals.is_empty() {
        refusals.sort();
        let _ = write!(what, " (refused: {})", refusals.join(", "));
        cure += ", else ask as its owner or as root";
    }
    Err(Failure::new(Kind::MountPoint, what).cure(cure))
}

/// All that answer.
pub(crate) fn all() -> Result<Vec<Found>, Failure> {
    let asked = ask_all(&Request::Status, None);
    let mut all: Vec<_> = asked.answers.iter().filter_map(found).collect();
    if all.is_empty() {
        return Err(asked.nobody_does("tells how it is"));
    }
    all.sort_by(|a, b| a.status.mount.at.cmp(&b.status.mount.at));
    Ok(all)
}

fn found(answer: &Answer) -> Option<Found> {
    let (status, json) = answer.report()?;
    Some(Found {
        socket: answer.socket.clone(),
        status,
        json: json.to_owned(),
    })
}

const SEE_MOUNTS: &str = "see which there are with `afs status'";
