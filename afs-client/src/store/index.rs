//! The index: records of objects and numbers of cells, kept over restarts in a file of redb.
//!
//! The machine: it is read once, when the cache is opened, and only written from then on, in batches, by one thread. A
//! file that is damaged in any way begins anew: the data it spoke of is fetched again.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::ObjectKey;

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
}

impl Redb {
    /// Opens the file, or begins it anew if it cannot be read. The caller has the cache directory for itself.
    pub(super) fn open(file: &Path) -> io::Result<(Self, Held)> {
        let existed = file.exists();
        match read(file) {
            Ok(opened) => return Ok(opened),
            Err(error) if !existed => return Err(error),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the index of the cache is damaged: it begins anew, and data is fetched again");
            }
        }
        super::place::remove_file(file)?;
        read(file)
    }
}

impl Index for Redb {
    fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        guarded(|| write(&self.db, batch))
    }

    fn taken(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len())
    }
}

fn read(file: &Path) -> io::Result<(Redb, Held)> {
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
                held.cells.push((number.value(), name.value().to_owned()));
            }
            for row in reading.open_table(OBJECTS)?.iter()? {
                let (key, record) = row?;
                if let Some(key) = ObjectKey::from_bytes(key.value()) {
                    held.records.push((key, record.value().into()));
                }
            }
            held.closed = reading.open_table(STATE)?.get(RUNNING)?.is_none();
        }
        drop(reading);
        write(&db, &Batch::default())?;
        let file = file.to_owned();
        Ok((Redb { db, file }, held))
    })
}

fn write(db: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let writing = db.begin_write()?;
    {
        let mut cells = writing.open_table(CELLS)?;
        for (number, name) in &batch.cells {
            cells.insert(number, name.as_str())?;
        }
        let mut objects = writing.open_table(OBJECTS)?;
        for (key, record) in &batch.records {
            let key = key.to_bytes();
            match record {
                Some(record) => drop(objects.insert(key.as_slice(), &record[..])?),
                None => drop(objects.remove(key.as_slice())?),
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
        let (mut index, held) = Redb::open(&file).unwrap();
        assert!(held.records.is_empty());
        index.commit(&batch(4, false)).unwrap();
        drop(index);
        let (mut index, held) = Redb::open(&file).unwrap();
        assert_eq!(held.records, [(key(4), vec![1; 40].into())]);
        assert_eq!(held.cells, [(1, "lab.example".to_owned())]);
        assert!(!held.closed);
        index.commit(&batch(6, true)).unwrap();
        drop(index);
        let (_, held) = Redb::open(&file).unwrap();
        assert_eq!(held.records.len(), 2);
        assert!(held.closed);
    }

    /// Cut, overwritten, another format: never a crash, never half of it.
    #[test]
    fn damage_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let (mut index, _) = Redb::open(&file).unwrap();
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
            let (mut index, held) = Redb::open(&file).unwrap();
            for (_, record) in held.records {
                assert_eq!(*record, [1; 40]);
            }
            index.commit(&batch(7, false)).unwrap();
        }
    }
}
