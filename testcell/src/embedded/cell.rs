//! The cell as its owner handles it: volumes, content, releases, failures.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afs_client::rpc::types::StoreVolumeStatus;
use afs_client::types::VolumeId;
use afs_client::volume::VolumeKind;
use bytes::Bytes;
use parking_lot::Mutex;
use rxrpc::net::{BindError, Endpoint};
use rxrpc::proto::ServiceId;
use rxrpc::security::rxkad::Token;
use tokio::task::AbortHandle;

use super::accounts::Accounts;
use super::clock::Clock;
use super::faults::{Faults, Memory};
use super::location::{Location, Machine, Site};
use super::location_server::LocationAnswers;
use super::promises::FileId;
use super::server::{Common, Server, bind};
use super::storage::{Acl, Broken, Caller, Refusal, Rights, Spill, Volume};

/// How a cell is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Addresses of the file servers; the first is that of the location server as well. Ports 7000 and 7003 must be
    /// free there.
    pub addresses: Vec<Ipv4Addr>,
    /// What the servers take for the time.
    pub clock: Clock,
    /// Where data of large files goes; without, to memory.
    pub spill: Option<PathBuf>,
    /// How long a client may take to answer a break; OpenAFS waits for about ten seconds.
    pub patience: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Who is who.
    pub accounts: Accounts,
}

impl Settings {
    /// A cell with one file server, which has nothing wrong with it.
    #[must_use]
    pub fn new(name: &str, address: Ipv4Addr) -> Self {
        Self {
            name: name.to_owned(),
            addresses: vec![address],
            clock: Clock::system(),
            spill: None,
            patience: Duration::from_secs(10),
            faults: Faults::default(),
            accounts: Accounts::default(),
        }
    }
}

/// Something cannot be done with a cell.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// A port is taken.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The spill folder cannot be used.
    #[error("spill file: {0}")]
    Spill(#[source] io::Error),
    /// There is no such server, or there are none at all.
    #[error("the cell has no server {0}")]
    NoServer(usize),
    /// There is no such volume, or it exists already.
    #[error("volume {0} does not exist, or exists already")]
    Volume(String),
    /// The cell has no key, or there is no place for such a name in a ticket.
    #[error("no ticket can be made for {0}")]
    Token(String),
    /// A path leads nowhere, or a limit is reached: the code that a client would get.
    #[error("{}", afs_client::error::describe(rxrpc::proto::AbortCode(*.0)))]
    Refused(i32),
}

impl From<Refusal> for CellError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.code(true).0)
    }
}

/// A running cell. It ends with [`shutdown`](Self::shutdown), or with its runtime.
#[derive(Debug)]
pub struct Cell {
    name: String,
    servers: Vec<Arc<Server>>,
    location: Arc<Location>,
    endpoint: Endpoint,
    common: Arc<Common>,
    next_volume: Mutex<u32>,
    tasks: Vec<AbortHandle>,
}

impl Cell {
    /// Starts the servers. Needs a tokio runtime. There are no volumes yet.
    ///
    /// # Errors
    ///
    /// A port is taken, or the spill folder cannot be used.
    pub async fn start(settings: Settings) -> Result<Self, CellError> {
        let spill = match &settings.spill {
            Some(folder) => Spill::into_folder(folder).map_err(CellError::Spill)?,
            None => Spill::default(),
        };
        let first = *settings.addresses.first().ok_or(CellError::NoServer(1))?;
        let users = settings.accounts.names().map(str::to_owned);
        let names = KNOWN_NAMES.map(str::to_owned).into_iter().chain(users).collect();
        let common = Arc::new(Common {
            cell: settings.name.clone(),
            clock: settings.clock,
            spill,
            faults: settings.faults,
            patience: settings.patience,
            names,
            accounts: settings.accounts,
        });
        let servers: Vec<_> = (1..)
            .zip(&settings.addresses)
            .map(|(number, address)| Arc::new(Server::new(number, *address, Arc::clone(&common))))
            .collect();
        let machine = |server: &Arc<Server>| Machine {
            uuid: server.uuid,
            address: server.address,
        };
        let location = Arc::new(Location {
            machines: servers.iter().map(machine).collect(),
            sites: Mutex::default(),
        });
        let endpoint = bind(SocketAddrV4::new(first, LOCATION_PORT)).await?;
        let answers = LocationAnswers {
            location: Arc::clone(&location),
            faults: common.faults.clone(),
        };
        endpoint.serve(LOCATION_SERVICE, Arc::new(answers));
        common.accept_tickets(&endpoint);
        let mut tasks = Vec::new();
        for server in &servers {
            server.start().await?;
            tasks.push(tokio::spawn(look_after_hosts(Arc::clone(server))).abort_handle());
        }
        Ok(Self {
            name: settings.name,
            servers,
            location,
            endpoint,
            common,
            next_volume: Mutex::new(FIRST_VOLUME),
            tasks,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many file servers it has.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The line that a CellServDB has for it.
    #[must_use]
    pub fn cellservdb(&self) -> String {
        format!(">{}\n{} #location\n", self.name, self.endpoint.local_addr().ip())
    }

    /// The rules for what goes wrong; they can be changed at any time.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.common.faults
    }

    /// The clock of the servers.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.common.clock
    }

    /// Makes a volume on a server (from 1). `rights` are those of everybody at its root, in letters (`rl`, `rlidwka`).
    ///
    /// # Errors
    ///
    /// There is no such server, or a volume of that name.
    pub fn make_volume(&self, name: &str, server: usize, rights: &str) -> Result<(), CellError> {
        let machine = self.server(server)?;
        let mut sites = self.location.sites.lock();
        if sites.contains_key(name) {
            return Err(CellError::Volume(name.to_owned()));
        }
        let first = {
            let mut next = self.next_volume.lock();
            *next += 3;
            *next - 3
        };
        let ids = [first, first + 1, first + 2].map(VolumeId);
        let acl = Acl::anyuser(letters(rights));
        let volume = Volume::new(VolumeId(first), name, acl, self.common.clock.now());
        machine.state.lock().volumes.insert(VolumeId(first), volume);
        let site = Site {
            ids,
            server: server - 1,
            replicas: Vec::new(),
            ahead: Vec::new(),
            backup: false,
        };
        sites.insert(name.to_owned(), site);
        Ok(())
    }

    /// The ids of a volume: read-write, read-only, backup.
    ///
    /// # Errors
    ///
    /// There is no such volume.
    pub fn volume_ids(&self, name: &str) -> Result<[VolumeId; 3], CellError> {
        self.site(name).map(|site| site.ids)
    }

    /// The FID of what stands at a path of a read-write volume: volume, vnode, uniquifier.
    ///
    /// # Errors
    ///
    /// There is nothing.
    pub fn fid(&self, volume: &str, path: &str) -> Result<[u32; 3], CellError> {
        let (server, id) = self.read_write(volume)?;
        let state = server.state.lock();
        let found = state.volumes.get(&id).ok_or_else(|| no_volume(volume))?;
        let at = found.place(path)?;
        Ok([id.0, at.0.0, at.1.0])
    }

    /// Writes a file of a read-write volume; returns when all promises on it are broken.
    ///
    /// # Errors
    ///
    /// The path leads nowhere, or the volume is full; so for those that follow.
    pub async fn write(&self, volume: &str, path: &str, data: &[u8]) -> Result<(), CellError> {
        let (spill, now) = (&self.common.spill, self.common.clock.now());
        self.edit(volume, |volume| volume.put_file(path, data, spill, now))
            .await
    }

    /// Makes a directory.
    pub async fn make_dir(&self, volume: &str, path: &str) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.put_dir(path, now)).await
    }

    /// Makes a mount point: `target` is a text like `#work.`
    pub async fn mount(&self, volume: &str, path: &str, target: &str) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.put_link(path, target, 0o644, now))
            .await
    }

    /// Makes a symbolic link.
    pub async fn symlink(&self, volume: &str, path: &str, target: &str) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.put_link(path, target, 0o755, now))
            .await
    }

    /// Sets the mode of a file or directory.
    pub async fn set_mode(&self, volume: &str, path: &str, bits: u32) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.put_mode(path, bits, now)).await
    }

    /// Removes a file or an empty directory.
    pub async fn remove(&self, volume: &str, path: &str) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.take_away(path, now)).await
    }

    /// Lets anybody do so much with a directory, in letters.
    pub async fn allow_anyone(&self, volume: &str, path: &str, rights: &str) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.allow_anyone(path, letters(rights), now))
            .await
    }

    /// Lets a user or group do so much with a directory, in letters, and others as before.
    pub async fn allow(&self, volume: &str, path: &str, name: &str, rights: &str) -> Result<(), CellError> {
        let now = self.common.clock.now();
        self.edit(volume, |volume| volume.allow(path, name, letters(rights), now))
            .await
    }

    /// Limits a volume to so many KiB; 0 is no limit.
    pub async fn set_quota(&self, volume: &str, kib: i32) -> Result<(), CellError> {
        let set = StoreVolumeStatus {
            mask: 2,
            min_quota: 0,
            max_quota: kib,
        };
        self.edit(volume, |volume| {
            volume.set_volume_status(&set, &Bytes::new(), &Caller::ADMINISTRATOR)?;
            Ok(Vec::new())
        })
        .await
    }

    /// The paths of all plain files of a read-write volume, in no order.
    pub fn paths(&self, volume: &str) -> Result<Vec<String>, CellError> {
        let (server, id) = self.read_write(volume)?;
        let state = server.state.lock();
        let volume = state.volumes.get(&id).ok_or_else(|| no_volume(volume))?;
        Ok(volume.paths()?)
    }

    /// A token for a client of this name (its parts), as the cell's realm would give it, from when until when (unix
    /// seconds).
    ///
    /// # Errors
    ///
    /// The cell has no key, or the name is too long.
    pub fn token(&self, name: &[&str], times: (u64, u64)) -> Result<Token, CellError> {
        let token = self.common.accounts.token(&self.name, name, times);
        token.ok_or_else(|| CellError::Token(name.join("/")))
    }

    /// The bytes of a file as the server holds them.
    pub fn read(&self, volume: &str, path: &str) -> Result<Vec<u8>, CellError> {
        let (server, id) = self.read_write(volume)?;
        let state = server.state.lock();
        let volume = state.volumes.get(&id).ok_or_else(|| no_volume(volume))?;
        Ok(volume.bytes_of(path)?)
    }

    /// From now on every call to a volume is refused with this code; `None` ends that.
    pub async fn refuse(&self, volume: &str, code: Option<i32>) -> Result<(), CellError> {
        let (server, id) = self.read_write(volume)?;
        let owed = {
            let mut state = server.state.lock();
            let found = state.volumes.get_mut(&id).ok_or_else(|| no_volume(volume))?;
            found.refuses = code;
            broken_volume(&mut state.promises, id, self.common.clock.now())
        };
        server.deliver(owed).await;
        Ok(())
    }

    /// Copies a volume as it is to read-only sites on these servers (from 1); tells who holds a promise on an older copy.
    ///
    /// # Errors
    ///
    /// There is no such volume or server.
    pub async fn release(&self, name: &str, servers: &[usize]) -> Result<(), CellError> {
        self.install_replicas(name, servers).await?;
        if let Some(site) = self.location.sites.lock().get_mut(name) {
            site.ahead.clear();
        }
        Ok(())
    }

    /// Begins a release: these servers have the new copy, and the database says so; [`release`](Self::release) ends it.
    ///
    /// # Errors
    ///
    /// There is no such volume or server.
    pub async fn begin_release(&self, name: &str, servers: &[usize]) -> Result<(), CellError> {
        if let Some(site) = self.location.sites.lock().get_mut(name) {
            site.ahead.extend(servers.iter().map(|number| number - 1));
        }
        self.install_replicas(name, servers).await
    }

    async fn install_replicas(&self, name: &str, servers: &[usize]) -> Result<(), CellError> {
        let (_, copy) = self.copied(name, VolumeKind::ReadOnly)?;
        let id = copy.id;
        for number in servers {
            self.install(*number, copy.clone()).await?;
            let mut sites = self.location.sites.lock();
            if let Some(site) = sites.get_mut(name)
                && !site.replicas.contains(&(number - 1))
            {
                site.replicas.push(number - 1);
            }
        }
        tracing::debug!(name, %id, "released");
        Ok(())
    }

    /// Makes the backup volume of a volume anew.
    ///
    /// # Errors
    ///
    /// There is no such volume.
    pub async fn back_up(&self, name: &str) -> Result<(), CellError> {
        let (site, copy) = self.copied(name, VolumeKind::Backup)?;
        self.install(site.server + 1, copy).await?;
        if let Some(site) = self.location.sites.lock().get_mut(name) {
            site.backup = true;
        }
        Ok(())
    }

    /// Moves a read-write volume to another server (from 1).
    ///
    /// # Errors
    ///
    /// There is no such volume or server.
    pub async fn move_volume(&self, name: &str, to: usize) -> Result<(), CellError> {
        let (from, id) = self.read_write(name)?;
        let to_server = self.server(to)?;
        if from.number == to {
            return Ok(());
        }
        let (moved, owed) = {
            let mut state = from.state.lock();
            let moved = state.volumes.remove(&id).ok_or_else(|| no_volume(name))?;
            state.moved.push(id);
            let owed = broken_volume(&mut state.promises, id, self.common.clock.now());
            (moved, owed)
        };
        {
            let mut state = to_server.state.lock();
            state.moved.retain(|moved| *moved != id);
            state.volumes.insert(id, moved);
        }
        if let Some(site) = self.location.sites.lock().get_mut(name) {
            site.server = to - 1;
        }
        from.deliver(owed).await;
        Ok(())
    }

    /// Closes the port of a server (from 1); calls under way die.
    ///
    /// # Errors
    ///
    /// There is no such server; so for those that follow.
    pub async fn stop(&self, server: usize) -> Result<(), CellError> {
        self.server(server)?.stop().await;
        Ok(())
    }

    /// Starts a server that was stopped, or restarts one that was not.
    pub async fn restart(&self, server: usize, memory: Memory) -> Result<(), CellError> {
        Ok(self.server(server)?.restart(memory).await?)
    }

    /// Calls to a server are taken and not answered, or answered again.
    pub fn freeze(&self, server: usize, frozen: bool) -> Result<(), CellError> {
        self.server(server)?.freeze(frozen);
        Ok(())
    }

    /// Looks after hosts that say nothing, which servers do every five minutes by themselves.
    pub async fn look_after_hosts(&self) {
        for server in &self.servers {
            server.look_after_hosts().await;
        }
    }

    /// Calls of a procedure that a server has had.
    pub fn calls(&self, server: usize, opcode: u32) -> Result<u64, CellError> {
        Ok(self.server(server)?.calls(opcode))
    }

    /// Promises that a server has made and that stand.
    pub fn promises(&self, server: usize) -> Result<usize, CellError> {
        Ok(self.server(server)?.state.lock().promises.len())
    }

    /// Has a client missed something that a server had to tell it?
    pub fn has_missed(&self, server: usize, client: SocketAddrV4) -> Result<bool, CellError> {
        Ok(self.server(server)?.state.lock().hosts.is_down(client))
    }

    /// Clients that a server knows.
    pub fn hosts(&self, server: usize) -> Result<usize, CellError> {
        Ok(self.server(server)?.state.lock().hosts.ids().len())
    }

    /// Closes all ports.
    pub async fn shutdown(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        for server in &self.servers {
            server.freeze(false);
            server.stop().await;
        }
        self.endpoint.shutdown().await;
    }

    async fn edit(
        &self,
        name: &str,
        work: impl FnOnce(&mut Volume) -> Result<Vec<Broken>, Refusal>,
    ) -> Result<(), CellError> {
        let (server, id) = self.read_write(name)?;
        let owed = {
            let mut guard = server.state.lock();
            let state = &mut *guard;
            let volume = state.volumes.get_mut(&id).ok_or_else(|| no_volume(name))?;
            let mut owed = Vec::new();
            for Broken { at, .. } in work(volume)? {
                let file = FileId { volume: id, at };
                let told = state.promises.take(file, None, self.common.clock.now());
                owed.extend(told.into_iter().map(|host| (host, file)));
            }
            owed
        };
        server.deliver(owed).await;
        Ok(())
    }

    /// A copy of a volume of this kind, and where the volume is.
    fn copied(&self, name: &str, kind: VolumeKind) -> Result<(Site, Volume), CellError> {
        let site = self.site(name)?;
        let (server, id) = self.read_write(name)?;
        let [_, read_only, backup] = site.ids;
        let number = if kind == VolumeKind::ReadOnly {
            read_only
        } else {
            backup
        };
        let state = server.state.lock();
        let volume = state.volumes.get(&id).ok_or_else(|| no_volume(name))?;
        let copy = volume.snapshot(number, kind, self.common.clock.now());
        drop(state);
        Ok((site, copy))
    }

    /// Puts a copy in the place of an older one.
    async fn install(&self, server: usize, copy: Volume) -> Result<(), CellError> {
        let server = self.server(server)?;
        let id = copy.id;
        let owed = {
            let mut state = server.state.lock();
            let older = state.volumes.get(&id).map(|older| older.creation);
            let mut copy = copy;
            if older.is_some_and(|older| copy.creation <= older) {
                // Who compares them must see a later one.
                copy.creation = older.unwrap_or(0) + 1;
            }
            state.volumes.insert(id, copy);
            broken_volume(&mut state.promises, id, self.common.clock.now())
        };
        server.deliver(owed).await;
        Ok(())
    }

    fn server(&self, number: usize) -> Result<&Arc<Server>, CellError> {
        let index = number.checked_sub(1).ok_or(CellError::NoServer(number))?;
        self.servers.get(index).ok_or(CellError::NoServer(number))
    }

    fn site(&self, name: &str) -> Result<Site, CellError> {
        let sites = self.location.sites.lock();
        sites.get(name).cloned().ok_or_else(|| no_volume(name))
    }

    fn read_write(&self, name: &str) -> Result<(&Arc<Server>, VolumeId), CellError> {
        let site = self.site(name)?;
        let [id, ..] = site.ids;
        Ok((self.server(site.server + 1)?, id))
    }
}

/// Takes all promises on a volume.
fn broken_volume(promises: &mut super::promises::Promises, id: VolumeId, now: u32) -> super::breaks::Owed {
    let told = promises.take_volume(id, now);
    told.into_iter().map(|host| (host, FileId::whole(id))).collect()
}

fn no_volume(name: &str) -> CellError {
    CellError::Volume(name.to_owned())
}

/// Rights by their letters; others are nothing.
fn letters(rights: &str) -> Rights {
    let known: BTreeMap<char, Rights> = BTreeMap::from([
        ('r', Rights::READ),
        ('w', Rights::WRITE),
        ('i', Rights::INSERT),
        ('l', Rights::LOOKUP),
        ('d', Rights::DELETE),
        ('k', Rights::LOCK),
        ('a', Rights::ADMINISTER),
    ]);
    rights
        .chars()
        .filter_map(|letter| known.get(&letter))
        .fold(Rights::default(), |all, right| all.and(*right))
}

async fn look_after_hosts(server: Arc<Server>) {
    loop {
        tokio::time::sleep(HOST_ROUND).await;
        server.look_after_hosts().await;
    }
}

const LOCATION_SERVICE: ServiceId = ServiceId(52);
const LOCATION_PORT: u16 = 7003;
/// As OpenAFS numbers volumes.
const FIRST_VOLUME: u32 = 536_870_912;
const HOST_ROUND: Duration = Duration::from_mins(5);
/// What the protection server would know.
const KNOWN_NAMES: [&str; 6] = [
    "system:anyuser",
    "system:authuser",
    "system:administrators",
    "system:backup",
    "system:ptsviewers",
    "anonymous",
];
