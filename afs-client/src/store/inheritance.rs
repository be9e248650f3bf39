//! What an earlier program has left in the directory: files that are whole, and changes that no server has.

use super::*;

impl Shared {
    /// Takes over what an index and a directory hold, as far as they agree.
    pub(super) fn take_over(self: &Arc<Self>, held: Held, left: Vec<Entry>) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let mut cells = self.cells.lock();
        for (number, name) in held.cells {
            cells.insert(name, number);
        }
        for entry in &left {
            // The journal may know of a cell that the index was not told of.
            if !cells.values().any(|number| *number == entry.key.cell) {
                cells.insert(entry.cell.as_str().to_owned(), entry.key.cell);
            }
        }
        let left: Vec<_> = left
            .into_iter()
            .filter(|entry| cells.get(entry.cell.as_str()) == Some(&entry.key.cell))
            .collect();
        for (name, number) in &*cells {
            self.ledger.cell(*number, name.clone());
        }
        let known: HashSet<u32> = cells.values().copied().collect();
        drop(cells);
        let mut lying: HashMap<_, _> = place.lying()?.into_iter().map(|file| (file.key, file)).collect();
        let is_left: HashSet<_> = left.iter().map(|entry| entry.key).collect();
        for entry in left {
            let file = lying.remove(&entry.key);
            self.take_left(entry, file.is_some());
        }
        let mut records = Vec::new();
        let mut damaged = 0;
        for (key, bytes) in held.records {
            if is_left.contains(&key) {
                self.ledger.record(key, None);
                continue;
            }
            let record = Record::decode(&bytes).ok().filter(|_| known.contains(&key.cell));
            let file = lying.remove(&key);
            match (record, file) {
                (Some(record), Some(file)) if held.closed || trim(place, &file, &record)? => {
                    records.push((record, key, bytes));
                }
                (record, file) => {
                    damaged += u64::from(record.is_none());
                    self.ledger.record(key, None);
                    if let Some(file) = file {
                        place::remove_file(&file.path)?;
                    }
                }
            }
        }
        if damaged > 0 {
            tracing::warn!(
                damaged,
                "records of the cache are damaged: what they speak of is fetched again"
            );
        }
        // Written a moment before the program died, or strange to the index: of no use without a record.
        for file in lying.into_values() {
            place::remove_file(&file.path)?;
        }
        records.sort_by_key(|(record, ..)| record.used);
        let mut books = self.books.lock();
        for (record, key, bytes) in records {
            let id = self.next_id();
            self.used
                .fetch_add(pages_of(&record, place).bytes(), Ordering::Relaxed);
            let passing = self.is_large(record.served.len);
            for chunk in record.sums.keys() {
                books.list(
                    ChunkKey {
                        file: id,
                        chunk: *chunk,
                    },
                    passing,
                );
            }
            books.by_key.insert(key, id);
            books.objects.insert(id, Object::Dormant(key, bytes));
        }
        drop(books);
        self.look_at_space();
        if let Some(journal) = &self.journal {
            journal.lock().rewrite()?;
        }
        // It may have been made smaller.
        drop(self.reserve(0));
        Ok(())
    }

    /// Takes over what an earlier program has not stored of a file.
    pub(super) fn take_left(self: &Arc<Self>, entry: Entry, has_file: bool) {
        let (key, cell, since) = (entry.key, entry.cell.clone(), entry.since);
        if !has_file && !entry.content.dirty().is_empty() {
            tracing::error!(%cell, %key, since, "data that was not stored yet is gone: somebody has removed its file from the cache");
            return;
        }
        let id = self.next_id();
        let file = match CacheFile::left(id, Arc::clone(self), &entry) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%cell, %key, %error, "data that was not stored yet cannot be read");
                return;
            }
        };
        let why = if entry.is_doubtful {
            Some(
                "the machine went down before it was stored: what was written in its last moments may be missing",
            )
        } else if entry.author.is_nameless() {
            Some("it was written with a token of a group or scope that only the program knew which died")
        } else {
            None
        };
        let (_, dirty) = file.held();
        file.listed(|allocated, chunks| {
            let mut books = self.books.lock();
            self.used.fetch_add(allocated, Ordering::Relaxed);
            for chunk in chunks {
                books.list(ChunkKey { file: id, chunk }, false);
            }
            books.by_key.insert(key, id);
            books.objects.insert(id, Object::Live(Arc::downgrade(&file)));
            self.dirty_changed(0, dirty);
            self.became_dirty(id);
        });
        if let Some(journal) = &self.journal {
            journal.lock().keep(id, entry);
        }
        if let Some(why) = why {
            match file.set_aside(why) {
                Some(Ok(_)) => return file.discard(),
                Some(Err(error)) => tracing::error!(%error, "data cannot be set aside: it is kept"),
                None => {}
            }
        }
        self.left.lock().push((file, cell));
    }
}

/// The pages that a record speaks of.
fn pages_of(record: &Record, place: &Place) -> Pages {
    Pages::of(record.clean.covering(content::PAGE), place.seal().is_some())
}

/// Gives back what a file has besides what its record speaks of. False if it must not change.
fn trim(place: &Place, file: &Lying, record: &Record) -> io::Result<bool> {
    let used = pages_of(record, place);
    if file.taken <= used.bytes() + content::PAGE {
        return Ok(true);
    }
    if file.was_lent {
        return Ok(false);
    }
    let seal = place.seal_of(file.key);
    let open = Backing::new(place::open_file(&file.path)?, seal.as_ref());
    let end = open.end()?.next_multiple_of(content::PAGE);
    let mut free: ranges::RangeSet = std::iter::once(0..end).collect();
    for part in used.data().iter() {
        free.remove(part);
    }
    for part in free.iter() {
        open.punch(&part, &used.lonely(&part))?;
    }
    Ok(true)
}
