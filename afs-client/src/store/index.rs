//! The index: records of objects and numbers of cells, kept over restarts in a file of redb.
//!
//! The machine: it is read once, when the cache is opened, and only written from then on, in batches, by one thread. A
//! file that is damaged in any way begins anew: the data it spoke of is fetched again.

use std::any::Any;
use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::place::{from_hex, hex};
use super::record::ObjectKey;
use super::seal::{Place, Seal};

/// What keeps the records.
pub(super) trait Index: Send {
    /// Makes changes, all of them or none.
    ///
    /// # Errors
    ///
    /// It cannot be written. Nothing more is asked of it then.
    fn commit(&mut self, batch: &Batch) -> io::Result<()>;

    /// Bytes that it takes.
    fn taken(&self) -> u64;
}

/// Changes to the index.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Cells that are new.
    pub(super) cells: Vec<(u32, String)>,
    /// Records that are new, and those that go.
    pub(super) records: Vec<(ObjectKey, Option<Box<[u8]>>)>,
    /// The program ends: all that was said is so.
    pub(super) closing: bool,
}

/// What an index held.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) cells: Vec<(u32, String)>,
    pub(super) records: Vec<(ObjectKey, Box<[u8]>)>,
    /// The last program ended in order.
    pub(super) closed: bool,
}

/// The index in a file.
#[derive(Debug)]
pub(super) struct Redb {
    db: Database,
    file: std::path::PathBuf,
    seal: Option<Arc<Seal>>,
}

/// An index that keeps nothing.
#[derive(Debug)]
pub(super) struct Forgetful;

impl Redb {
    /// Opens the file, or begins it anew if it cannot be read. The caller has the cache directory for itself.
    pub(super) fn open(file: &Path, seal: Option<&Arc<Seal>>) -> io::Result<(Self, Held)> {
        let existed = file.exists();
        match read(file, seal) {
            Ok(opened) => return Ok(opened),
            Err(error) if !existed => return Err(error),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the index of the cache is damaged: it begins anew, and data is fetched again");
            }
        }
        super::place::remove_file(file)?;
        read(file, seal)
    }
}

impl Index for Forgetful {
    fn commit(&mut self, _: &Batch) -> io::Result<()> {
        Ok(())
    }

    fn taken(&self) -> u64 {
        0
    }
}

impl Index for Redb {
    fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        guarded(|| write(&self.db, self.seal.as_deref(), batch))
    }

    fn taken(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len())
    }
}

fn read(file: &Path, seal: Option<&Arc<Seal>>) -> io::Result<(Redb, Held)> {
    guarded(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE);
        // Whatever was changed in it since is found now, not when it is used.
        builder.set_check_integrity_on_open(true);
        let db = builder.create(file)?;
        let mut held = Held::default();
        // A batch of nothing makes the tables, and says that a program runs.
        let reading = db.begin_read()?;
        if reading.list_tables()?.next().is_some() {
            for row in reading.open_table(CELLS)?.iter()? {
                let (number, name) = row?;
                if let Some(name) = opened_name(seal, number.value(), name.value()) {
                    held.cells.push((number.value(), name));
                }
            }
            for row in reading.open_table(OBJECTS)?.iter()? {
                let (key, record) = row?;
                let Ok(name) = key.value().try_into() else {
                    continue;
                };
                // What was changed by somebody else is not there.
                let record = opened(seal, Place::Record(name), record.value());
                let key = match seal {
                    Some(seal) => seal.key(name),
                    None => ObjectKey::from_bytes(&name),
                };
                if let Some((key, record)) = key.zip(record) {
                    held.records.push((key, record.into()));
                }
            }
            held.closed = reading.open_table(STATE)?.get(RUNNING)?.is_none();
        }
        drop(reading);
        write(&db, seal.map(|seal| &**seal), &Batch::default())?;
        let redb = Redb {
            db,
            file: file.to_owned(),
            seal: seal.cloned(),
        };
        Ok((redb, held))
    })
}

fn write(db: &Database, seal: Option<&Seal>, batch: &Batch) -> Result<(), redb::Error> {
    let writing = db.begin_write()?;
    {
        let mut cells = writing.open_table(CELLS)?;
        for (number, name) in &batch.cells {
            match seal {
                Some(seal) => {
                    let name = seal.seal_text(Place::Cell(*number), name.as_bytes())?;
                    cells.insert(number, &*hex(&name))?;
                }
                None => drop(cells.insert(number, name.as_str())?),
            }
        }
        let mut objects = writing.open_table(OBJECTS)?;
        for (key, record) in &batch.records {
            let name = seal.map_or_else(|| key.to_bytes(), |seal| seal.name(*key));
            match record {
                Some(record) => {
                    let record = sealed(seal, Place::Record(name), record)?;
                    objects.insert(name.as_slice(), &*record)?;
                }
                None => drop(objects.remove(name.as_slice())?),
            }
        }
        let mut state = writing.open_table(STATE)?;
        if batch.closing {
            state.remove(RUNNING)?;
        } else if state.get(RUNNING)?.is_none() {
            state.insert(RUNNING, 1)?;
        }
    }
    writing.commit()?;
    Ok(())
}

fn sealed<'a>(seal: Option<&Seal>, place: Place, bytes: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
    match seal {
        Some(seal) => seal.seal_text(place, bytes).map(Cow::Owned),
        None => Ok(Cow::Borrowed(bytes)),
    }
}

fn opened(seal: Option<&Arc<Seal>>, place: Place, bytes: &[u8]) -> Option<Vec<u8>> {
    match seal {
        Some(seal) => seal.open_text(place, bytes),
        None => Some(bytes.to_vec()),
    }
}

fn opened_name(seal: Option<&Arc<Seal>>, number: u32, name: &str) -> Option<String> {
    let Some(seal) = seal else {
        return Some(name.to_owned());
    };
    let name = seal.open_text(Place::Cell(number), &from_hex(name)?)?;
    String::from_utf8(name).ok()
}

/// Whatever goes wrong in it is an error, be it a panic over a file that was changed under it.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(redb::Error::Io(error))) => Err(error),
        Ok(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        Err(panic) => Err(io::Error::new(io::ErrorKind::InvalidData, said(&*panic))),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("unknown damage").to_owned()
}

const CELLS: TableDefinition<'_, u32, &str> = TableDefinition::new("cells");
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const STATE: TableDefinition<'_, &str, u32> = TableDefinition::new("state");
/// Is there while a program uses the index.
const RUNNING: &str = "running";
/// It is hardly read.
const CACHE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(vnode: u32) -> ObjectKey {
        ObjectKey {
            cell: 1,
            volume: 2,
            vnode,
            unique: 3,
        }
    }

    fn batch(vnode: u32, closing: bool) -> Batch {
        Batch {
            cells: vec![(1, "lab.example".to_owned())],
            records: vec![(key(vnode), Some(vec![1; 40].into())), (key(999), None)],
            closing,
        }
    }

    #[test]
    fn what_was_committed_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let (mut index, held) = Redb::open(&file, None).unwrap();
        assert!(held.records.is_empty());
        index.commit(&batch(4, false)).unwrap();
        drop(index);
        let (mut index, held) = Redb::open(&file, None).unwrap();
        assert_eq!(held.records, [(key(4), vec![1; 40].into())]);
        assert_eq!(held.cells, [(1, "lab.example".to_owned())]);
        assert!(!held.closed);
        index.commit(&batch(6, true)).unwrap();
        drop(index);
        let (_, held) = Redb::open(&file, None).unwrap();
        assert_eq!(held.records.len(), 2);
        assert!(held.closed);
    }

    /// Cut, overwritten, another format: never a crash, never half of it.
    #[test]
    fn damage_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let (mut index, _) = Redb::open(&file, None).unwrap();
        let records = |from: u32| (from..from + 100).map(|vnode| (key(vnode), Some(vec![1; 40].into())));
        for from in [0, 100, 200] {
            let batch = Batch {
                records: records(from).collect(),
                closing: from == 200,
                ..Batch::default()
            };
            index.commit(&batch).unwrap();
        }
        drop(index);
        let good = std::fs::read(&file).unwrap();
        let step = good.len() / 20;
        let mut damaged: Vec<Vec<u8>> = (0..good.len())
            .step_by(step)
            .map(|at| good[..at].to_vec())
            .collect();
        for at in (0..good.len()).step_by(step) {
            let mut bytes = good.clone();
            bytes[at..(at + 64).min(good.len())].fill(0xa5);
            damaged.push(bytes);
        }
        damaged.push(b"something else".to_vec());
        for bytes in damaged {
            std::fs::write(&file, &bytes).unwrap();
            let (mut index, held) = Redb::open(&file, None).unwrap();
            for (_, record) in held.records {
                assert_eq!(*record, [1; 40]);
            }
            index.commit(&batch(7, false)).unwrap();
        }
    }
}
