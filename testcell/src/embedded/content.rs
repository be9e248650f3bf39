//! Filling volumes by path, as their administrator would.

use afs_client::rpc::fs::StoreDataArgs;
use afs_client::rpc::types::{AfsFid, StoreStatus};
use bytes::Bytes;
use rustix::io::Errno;

use super::storage::{Acl, At, Broken, Caller, Content, ROOT, Refusal, Rights, Spill, Volume};

const WHO: Caller = Caller::ADMINISTRATOR;

impl Volume {
    /// What stands at a path below the root.
    pub(crate) fn place(&self, path: &str) -> Result<At, Refusal> {
        let mut here = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            here = self.names(here)?.lookup(name.as_bytes()).ok_or(Errno::NOENT)?;
        }
        Ok(here)
    }

    /// The directory and the name of a path.
    fn split<'a>(&self, path: &'a str) -> Result<(At, &'a [u8]), Refusal> {
        let path = path.trim_matches('/');
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.place(dir)?, name.as_bytes()))
    }

    /// Writes a file anew; makes it if need be.
    pub(crate) fn put_file(
        &mut self,
        path: &str,
        data: &[u8],
        spill: &Spill,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        let (dir, name) = self.split(path)?;
        let (at, mut broken) = match self.names(dir)?.lookup(name) {
            Some(at) => (at, Vec::new()),
            None => self.create_file(dir, name, &mode(0o644), &WHO, now)?,
        };
        let args = StoreDataArgs {
            fid: AfsFid {
                volume: self.id.0,
                vnode: at.0.0,
                unique: at.1.0,
            },
            length: data.len() as u64,
            file_length: data.len() as u64,
            ..StoreDataArgs::default()
        };
        let mut store = self.begin_store(&args, &WHO)?;
        store.write(data, spill)?;
        store.complete(spill)?;
        self.finish_store(store, &WHO, now)?;
        broken.push(Broken::others(at));
        Ok(broken)
    }

    /// Makes a directory.
    pub(crate) fn put_dir(&mut self, path: &str, now: u32) -> Result<Vec<Broken>, Refusal> {
        let (dir, name) = self.split(path)?;
        self.make_dir(dir, name, &mode(0o755), &WHO, now)
            .map(|(_, broken)| broken)
    }

    /// Makes a symbolic link with this mode: without any execute bit, a mount point.
    pub(crate) fn put_link(
        &mut self,
        path: &str,
        text: &str,
        bits: u32,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        let (dir, name) = self.split(path)?;
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.symlink(dir, name, text, &mode(bits), &WHO, now)
            .map(|(_, broken)| broken)
    }

    /// Sets the mode of a file or directory.
    pub(crate) fn put_mode(&mut self, path: &str, bits: u32, now: u32) -> Result<Vec<Broken>, Refusal> {
        let at = self.place(path)?;
        self.set_status(at, &mode(bits), &WHO, now)
            .map(|broken| vec![broken])
    }

    /// Removes a file or an empty directory.
    pub(crate) fn take_away(&mut self, path: &str, now: u32) -> Result<Vec<Broken>, Refusal> {
        let (dir, name) = self.split(path)?;
        let at = self.place(path)?;
        if self.vnode(at)?.is_directory() {
            self.remove_dir(dir, name, &WHO, now)
        } else {
            self.remove_file(dir, name, &WHO, now)
        }
    }

    /// Lets anybody do so much with a directory.
    pub(crate) fn allow_anyone(
        &mut self,
        path: &str,
        rights: Rights,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        let at = self.place(path)?;
        self.set_acl(at, Acl::anyuser(rights), &WHO, now)
            .map(|broken| vec![broken])
    }

    /// The paths of all plain files.
    pub(crate) fn paths(&self) -> Result<Vec<String>, Refusal> {
        let (mut files, mut dirs) = (Vec::new(), vec![(String::new(), ROOT)]);
        while let Some((path, dir)) = dirs.pop() {
            for entry in self.names(dir)?.iter() {
                if matches!(entry.name, b"." | b"..") {
                    continue;
                }
                let path = format!("{path}{}", String::from_utf8_lossy(entry.name));
                let at = (entry.vnode, entry.unique);
                match &self.vnode(at)?.content {
                    Content::Directory { .. } => dirs.push((format!("{path}/"), at)),
                    Content::File(_) => files.push(path),
                    Content::Symlink(_) => {}
                }
            }
        }
        Ok(files)
    }

    /// Lets a user or group do so much with a directory, and others as before.
    pub(crate) fn allow(
        &mut self,
        path: &str,
        name: &str,
        rights: Rights,
        now: u32,
    ) -> Result<Vec<Broken>, Refusal> {
        let at = self.place(path)?;
        let list = self.acl(self.vnode(at)?)?.clone().and(name, rights);
        self.set_acl(at, list, &WHO, now).map(|broken| vec![broken])
    }

    /// The bytes of a file.
    pub(crate) fn bytes_of(&self, path: &str) -> Result<Vec<u8>, Refusal> {
        let data = self.read(self.place(path)?, &WHO)?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < data.len() {
            let part = data.part(bytes.len() as u64, u64::MAX);
            bytes.extend_from_slice(&part.map_err(|_| Refusal::Errno(Errno::IO))?);
        }
        Ok(bytes)
    }
}

fn mode(bits: u32) -> StoreStatus {
    StoreStatus {
        mask: StoreStatus::SET_MODE,
        unix_mode_bits: bits,
        ..StoreStatus::default()
    }
}
