//! Brings what a process has left behind into the one that takes over.
//!
//! The machine: each volume is entered again by its number, all at once; then the objects and files of it are those of this
//! process. Requests are answered when all volumes are there, or after a while without those that nobody can find; these are
//! tried on and on. What the kernel keeps was promised to the process before: the kernel is told to doubt it all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use afs_client::auth::Identity;
use afs_client::cell::CellName;
use afs_client::fs::HandleId;
use afs_client::lock::LeftLocks;
use afs_client::types::{CellId, Fid, VolumeId};

use crate::adapter::Shared;
use crate::ctl::Request;
use crate::inode::ROOT;
use crate::kept::{Change, Image, OpenFile, Outcome};

/// Restores what can be had within a while; goes on with the rest. To be called before the session answers.
pub async fn restore(shared: &Arc<Shared>, image: Image) {
    let nodes = image.nodes.len();
    let files = image.open.len();
    for (directory, names) in &image.names {
        for name in names {
            shared.names().remember(*directory, name);
        }
    }
    if let Some((last, _)) = image.open.last_key_value() {
        shared.fs().give_handles_after(HandleId(*last));
    }
    for words in &image.hidden {
        shared.fs().adopt_hidden(words);
    }
    for (who, token) in &image.tokens {
        if let Ok(Request::SetToken(token, _)) = Request::decode(token)
            && still(*who) == *who
            && let Err(error) = shared.fs().as_identity(*who).set_token(*token, None)
        {
            tracing::warn!(%error, "a token is lost");
        }
    }
    // Cells that no file lists are known again when they were looked up.
    let cells = image.names.get(&ROOT).cloned().unwrap_or_default();
    let cells = cells.into_iter().map(|name| {
        let fs = shared.fs().clone();
        tokio::spawn(async move { drop(fs.lookup(fs.root(), &name).await) })
    });
    let cells: Vec<_> = cells.collect();
    let tasks: Vec<_> = by_volume(image)
        .into_iter()
        .map(|((cell, volume), left)| {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { left.adopt(&shared, cell.as_deref(), volume).await })
        })
        .collect();
    let volumes = tasks.len();
    let all = async {
        for task in cells.into_iter().chain(tasks) {
            let _ = task.await;
        }
    };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("not every volume is found again: requests for what is in it fail until it is");
    } else {
        // All that is open is known.
        shared.fs().remove_hidden();
    }
    shared.fs().doubt_everything();
    tracing::info!(nodes, files, volumes, "took over from an earlier process");
}

/// What is left of one volume.
#[derive(Default)]
struct Left {
    /// With their lookups, and whether they are retired.
    nodes: Vec<(u64, Fid, u64, bool)>,
    /// With a word on whether something that was written is lost, and the node by which the kernel reads it.
    files: Vec<(OpenFile, bool, Option<u64>)>,
    locks: Vec<(Fid, LeftLocks)>,
    changes: Vec<(u64, Change)>,
}

type Volume = (Option<String>, VolumeId);

fn by_volume(image: Image) -> BTreeMap<Volume, Left> {
    let mut volumes: BTreeMap<Volume, Left> = BTreeMap::new();
    let volume = |fid: Fid| (image.cells.get(&fid.cell).cloned(), fid.volume);
    for (id, node) in &image.nodes {
        if let Some(fid) = node.fid {
            volumes.entry(volume(fid)).or_default().nodes.push((
                *id,
                fid,
                node.lookups(),
                image.retired.contains(id),
            ));
        }
    }
    for file in image.open.values() {
        // Who has it open for reading only has lost nothing.
        let lost = file.flags.write && image.dirty.contains(&file.fid);
        volumes.entry(volume(file.fid)).or_default().files.push((
            *file,
            lost,
            image.lent.get(&file.handle).copied(),
        ));
    }
    for (fid, left) in &image.locks {
        let volume = volumes.entry(volume(*fid)).or_default();
        volume.locks.push((*fid, left.clone()));
    }
    let mut elsewhere = HashMap::new();
    for (unique, change) in &image.changes {
        let told = match change.outcome {
            Some(Outcome::Found(fid) | Outcome::Open(fid, _)) => Some(fid),
            _ => change.seen,
        };
        match told {
            Some(fid) => volumes
                .entry(volume(fid))
                .or_default()
                .changes
                .push((*unique, *change)),
            None => {
                elsewhere.insert(*unique, *change);
            }
        }
    }
    // Those that speak of no object are of no volume.
    if !elsewhere.is_empty() {
        let left = volumes.entry((None, VolumeId(0))).or_default();
        left.changes.extend(elsewhere);
    }
    volumes
}

impl Left {
    async fn adopt(self, shared: &Shared, cell: Option<&str>, volume: VolumeId) {
        // Without a cell: the synthetic root, or nothing.
        let mut number = CellId(0);
        if let Some(cell) = cell {
            let Ok(name) = CellName::new(cell) else {
                tracing::error!(cell, "it is not the name of a cell");
                return;
            };
            number = loop {
                match shared.fs().enter_volume(&name, volume).await {
                    Ok(number) => break number,
                    Err(error) if is_gone(error.errno()) => {
                        tracing::warn!(cell, %volume, %error, "a volume is gone, with what was open there");
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(cell, %volume, %error, "a volume is not found yet");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
        }
        let here = |fid: Fid| Fid { cell: number, ..fid };
        for (id, fid, lookups, is_retired) in self.nodes {
            let fid = here(fid);
            shared.inodes().adopt(id, fid, lookups, is_retired);
            // It was entered.
            let _ = shared.fs().adopt(fid);
        }
        let Some(kept) = shared.kept() else {
            return;
        };
        for (file, lost, lent) in self.files {
            let fid = here(file.fid);
            if let Some(node) = lent.or_else(|| shared.inodes().known(fid)) {
                shared.passthrough().inherit(node, file.handle, lent.is_some());
            }
            let lost = lost && !shared.fs().is_saved(fid);
            let opener = shared.fs().as_identity(still(file.who));
            if opener
                .adopt_handle(HandleId(file.handle), fid, file.flags)
                .is_ok()
            {
                kept.inherit_open(file, lost);
            }
            if lost {
                tracing::error!(%fid, "what was written to a file and not stored is lost");
            }
        }
        for (fid, left) in self.locks {
            let who = still(left.who);
            // It was entered.
            let _ = shared.fs().adopt_locks(here(fid), LeftLocks { who, ..left });
        }
        for (unique, mut change) in self.changes {
            change.seen = change.seen.map(here);
            change.outcome = change.outcome.map(|outcome| match outcome {
                Outcome::Found(fid) => Outcome::Found(here(fid)),
                Outcome::Open(fid, handle) => Outcome::Open(here(fid), handle),
                other => other,
            });
            kept.inherit_change(unique, change);
        }
    }
}

/// Groups and scopes have numbers that only the process before knew.
fn still(who: Identity) -> Identity {
    match who {
        Identity::UserInGroup(..) | Identity::UserInScope(..) => Identity::Nobody,
        other => other,
    }
}

/// Will it not be found by asking again?
fn is_gone(errno: i32) -> bool {
    matches!(errno, libc::ENODEV | libc::ENOENT)
}

/// How long requests wait for volumes.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);
