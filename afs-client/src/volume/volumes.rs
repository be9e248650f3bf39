//! All volumes that were entered, and how they are found in the location database.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
use rxrpc::net::Endpoint;
use rxrpc::security::Security;
use tracing::Instrument as _;

use super::sites::{self, Site};
use super::{Parent, Places, Volume, VolumeKind, choose};
use crate::cell::Cell;
use crate::clock;
use crate::database::Database;
use crate::error::Error;
use crate::events::{Located, Tally};
use crate::mount_point::{MountKind, MountTarget};
use crate::rpc::Procedure;
use crate::rpc::client::RpcError;
use crate::rpc::types::{AddressQuery, AfsUuid, VolumeEntry};
use crate::rpc::vl::{GetAddrs, GetEntryByName, NO_ENTRY};
use crate::server::{Hedges, Server, ServerId, Servers};
use crate::trace::child;
use crate::types::{CellId, VolumeId};
use crate::xdr::Text;

/// The volumes of all cells.
#[derive(Debug)]
pub struct Volumes {
    endpoint: Endpoint,
    servers: Arc<Servers>,
    by_id: RwLock<HashMap<(CellId, VolumeId), Arc<Volume>>>,
    /// What the location database said, by name or number.
    entries: Mutex<HashMap<(CellId, String), Learnt>>,
    lookups: Tally<Located>,
    hedges: Mutex<Hedges>,
}

/// An entry, and when it was learnt if it is believed still.
type Learnt = (Arc<VolumeEntry>, Option<Instant>);

impl Volumes {
    /// None yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, servers: Arc<Servers>) -> Self {
        Self {
            endpoint,
            servers,
            by_id: RwLock::default(),
            entries: Mutex::default(),
            lookups: Tally::default(),
            hedges: Mutex::default(),
        }
    }

    /// How many were entered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.read().len()
    }

    /// How questions where volumes are were answered.
    #[must_use]
    pub fn lookups(&self) -> &Tally<Located> {
        &self.lookups
    }

    /// The budget of calls to a second replica.
    pub(crate) const fn hedges(&self) -> &Mutex<Hedges> {
        &self.hedges
    }

    /// True if none was entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that were entered.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.by_id.read().values().cloned().collect()
    }

    /// A volume that was entered.
    #[must_use]
    pub fn get(&self, cell: CellId, id: VolumeId) -> Option<Arc<Volume>> {
        self.by_id.read().get(&(cell, id)).cloned()
    }

    /// The volumes with this id, in whatever cell: a file server does not say of which cell it is.
    #[must_use]
    pub fn with_id(&self, id: VolumeId) -> Vec<Arc<Volume>> {
        self.by_id
            .read()
            .values()
            .filter(|volume| volume.id == id)
            .cloned()
            .collect()
    }

    /// The volume that a mount point leads to.
    ///
    /// # Errors
    ///
    /// There is no such volume or copy (`ENODEV`), or no location server answers before `deadline`.
    pub async fn enter(
        &self,
        cell: &Arc<Cell>,
        target: &MountTarget,
        parent: Parent,
        deadline: Instant,
    ) -> Result<Arc<Volume>, Error> {
        let (base, _) = target.base_and_suffix();
        let entry = self.entry(cell, base, deadline).await?;
        let exact = target.id().and_then(|id| kind_of(&entry, id));
        let kind = choose(target, exact, parent, |kind| exists(&entry, kind)).map_err(|reason| {
            Error::new(
                Errno::NODEV,
                format!("volume {base} of cell {}: {reason}", cell.name),
            )
        })?;
        let Some(id) = id_of(&entry, kind) else {
            return Err(Errno::NODEV.into());
        };
        if let Some(volume) = self.get(cell.id, id) {
            return Ok(volume);
        }
        let places = self.places_of(cell, &entry, kind, deadline).await?;
        let mut by_id = self.by_id.write();
        let volume = by_id
            .entry((cell.id, id))
            .or_insert_with(|| Arc::new(Volume::new(Arc::clone(cell), id, entry.name.text(), kind, places)));
        Ok(Arc::clone(volume))
    }

    /// The volume with this number, whichever copy that is.
    ///
    /// # Errors
    ///
    /// As those of [`enter`](Self::enter); `ENODEV` too if the number is in use again, for another copy.
    pub async fn enter_id(
        &self,
        cell: &Arc<Cell>,
        id: VolumeId,
        deadline: Instant,
    ) -> Result<Arc<Volume>, Error> {
        if let Some(volume) = self.get(cell.id, id) {
            return Ok(volume);
        }
        let target = MountTarget {
            kind: MountKind::ForceReadWrite,
            cell: None,
            volume: id.to_string(),
            root: None,
        };
        let entered = self.enter(cell, &target, Parent::Root, deadline).await?;
        if entered.id == id {
            Ok(entered)
        } else {
            Err(Errno::NODEV.into())
        }
    }

    /// Asks again where a volume is. Gives whether another release of it is used from now on.
    ///
    /// # Errors
    ///
    /// As those of [`enter`](Self::enter).
    pub async fn relocate(&self, volume: &Volume, deadline: Instant) -> Result<bool, Error> {
        for ((cell, _), (entry, learnt)) in self.entries.lock().iter_mut() {
            if *cell == volume.cell.id && entry.ids.contains(&volume.id.0) {
                *learnt = None;
            }
        }
        let entry = self.entry(&volume.cell, &volume.id.to_string(), deadline).await?;
        let places = self
            .places_of(&volume.cell, &entry, volume.kind, deadline)
            .await?;
        Ok(volume.move_to(places))
    }

    /// Asks again where the volumes are that were being released when that was asked last, or may have been since. Gives those
    /// of which another release is used from now on.
    pub(crate) async fn relocate_released(&self, patience: Duration) -> Vec<Arc<Volume>> {
        let mut turned = Vec::new();
        for volume in self.all() {
            let doubted = volume.sites_doubted.swap(false, Ordering::AcqRel);
            if !doubted && !volume.places.read().is_released {
                continue;
            }
            match self.relocate(&volume, clock::now() + patience).await {
                Ok(true) => turned.push(volume),
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(volume = %volume.id, %error, "it is not known where it is now");
                    volume.doubt_sites();
                }
            }
        }
        turned
    }

    async fn entry(
        &self,
        cell: &Arc<Cell>,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<VolumeEntry>, Error> {
        let key = (cell.id, name.to_owned());
        let known = self.entries.lock().get(&key).cloned();
        let is_stale = known.is_some();
        if let Some((entry, Some(learnt))) = known
            && clock::now().saturating_duration_since(learnt) < ENTRY_LIFE
        {
            self.lookups.count(Located::Hit);
            return Ok(entry);
        }
        let request = GetEntryByName {
            name: Text::from(name.as_bytes()),
        };
        let span = child!("vldb.resolve", afs.cell = %cell.name, afs.volume = name);
        let answer = self.ask(cell, &request, deadline).instrument(span).await;
        self.lookups.count(match &answer {
            Err(RpcError::Aborted(code)) if code.0 == NO_ENTRY => Located::Negative,
            _ if is_stale => Located::Stale,
            _ => Located::Miss,
        });
        let reply = answer.map_err(|error| match error {
            RpcError::Aborted(code) if code.0 == NO_ENTRY => {
                Error::new(Errno::NODEV, format!("cell {} has no volume {name}", cell.name))
            }
            error => {
                let asked = Error::from(error);
                let why = format!("location servers of cell {}: {asked}", cell.name);
                Error::new(Errno::from_raw_os_error(asked.errno()), why)
            }
        })?;
        let entry = Arc::new(reply.entry);
        if entry.servers == 0 || entry.servers > SERVERS_MAX {
            tracing::warn!(cell = %cell.name, volume = name, servers = entry.servers, "damaged location entry");
            return Err(Error::new(
                Errno::IO,
                format!("the location entry of volume {name} is damaged"),
            ));
        }
        let mut entries = self.entries.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.clear();
        }
        entries.insert(key, (Arc::clone(&entry), Some(clock::now())));
        Ok(entry)
    }

    /// Asks the location servers one after the other, twice around at most.
    async fn ask<P: Procedure>(
        &self,
        cell: &Cell,
        request: &P,
        deadline: Instant,
    ) -> Result<P::Reply, RpcError> {
        let database = Database {
            endpoint: &self.endpoint,
            cell,
            port: None,
            security: &Security::None,
        };
        database.ask(request, deadline).await
    }

    /// The servers that have a copy.
    async fn places_of(
        &self,
        cell: &Arc<Cell>,
        entry: &VolumeEntry,
        kind: VolumeKind,
        deadline: Instant,
    ) -> Result<Places, Error> {
        let sites = sites::of(entry, kind);
        let places = Places {
            used: self.servers_at(cell, &sites.used, deadline).await?,
            reserve: self.servers_at(cell, &sites.reserve, deadline).await?,
            is_released: sites.is_released,
        };
        if places.used.is_empty() && places.reserve.is_empty() {
            let why = format!(
                "no server has the {kind} copy of volume {} of cell {}",
                entry.name.text(),
                cell.name
            );
            return Err(Error::new(Errno::NODEV, why));
        }
        Ok(places)
    }

    async fn servers_at(
        &self,
        cell: &Arc<Cell>,
        sites: &[Site],
        deadline: Instant,
    ) -> Result<Vec<Arc<Server>>, Error> {
        let mut servers = Vec::new();
        for site in sites {
            if site.is_uuid() {
                let unique = site.unique.cast_signed();
                servers.extend(self.server(cell, site.uuid, unique, deadline).await?);
            } else {
                let address = Ipv4Addr::from_bits(site.uuid.time_low());
                servers.push(self.servers.place(ServerId::Address(address), None, &[address]));
            }
        }
        Ok(servers)
    }

    /// The server with this UUID; its addresses are asked for if their list has changed.
    async fn server(
        &self,
        cell: &Arc<Cell>,
        uuid: AfsUuid,
        unique: i32,
        deadline: Instant,
    ) -> Result<Option<Arc<Server>>, Error> {
        let id = ServerId::Uuid(uuid);
        if let Some(server) = self.servers.by_id(&id)
            && server.list_version() == Some(unique)
        {
            return Ok(Some(server));
        }
        let query = AddressQuery {
            mask: BY_UUID,
            uuid,
            ..AddressQuery::default()
        };
        match self.ask(cell, &GetAddrs { query }, deadline).await {
            Ok(reply) => {
                let addresses: Vec<_> = reply.addresses.0.into_iter().map(Ipv4Addr::from_bits).collect();
                Ok((!addresses.is_empty()).then(|| self.servers.place(id, Some(unique), &addresses)))
            }
            // Another server of the volume may be known.
            Err(RpcError::Aborted(code)) if code.0 == NO_ENTRY => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn exists(entry: &VolumeEntry, kind: VolumeKind) -> bool {
    let bit = match kind {
        VolumeKind::ReadWrite => 0x1000,
        VolumeKind::ReadOnly => 0x2000,
        VolumeKind::Backup => 0x4000,
    };
    entry.flags & bit != 0
}

fn id_of(entry: &VolumeEntry, kind: VolumeKind) -> Option<VolumeId> {
    VolumeKind::ALL
        .into_iter()
        .zip(entry.ids)
        .find(|(at, _)| *at == kind)
        .map(|(_, id)| VolumeId(id))
}

fn kind_of(entry: &VolumeEntry, id: VolumeId) -> Option<VolumeKind> {
    VolumeKind::ALL
        .into_iter()
        .zip(entry.ids)
        .find(|(_, at)| *at == id.0)
        .map(|(kind, _)| kind)
}

/// How long a location entry is believed without a reason to doubt it.
const ENTRY_LIFE: Duration = Duration::from_mins(10);
const ENTRIES_MAX: usize = 10_000;
const SERVERS_MAX: u32 = 13;
/// OpenAFS vldbint.xg, VLADDR_UUID.
const BY_UUID: u32 = 4;
