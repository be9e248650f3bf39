//! The file in which the steps of a mount stand: it outlives the process that writes it.
//!
//! The machine: a header says where the steps begin; each stands behind its length and a sum. A step is appended by one
//! write, so that a process may be killed at any moment: what it had not finished is not counted when the log is read. When
//! the steps take much more room than what they lead to, the shortest steps that lead there are written behind them, and
//! then one write moves the beginning. What lies before it is given back to the machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::image::Image;
use super::record::Record;

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    start: u64,
    end: u64,
    /// Where it is made shorter.
    long: u64,
    room: Vec<u8>,
}

impl Log {
    /// An empty one, in memory.
    pub fn in_memory() -> io::Result<Self> {
        let memory = memfd_create("afs-state", MemfdFlags::CLOEXEC)?;
        let log = Self {
            file: File::from(memory),
            start: PAGE,
            end: PAGE,
            long: PAGE + SHORT,
            room: Vec::new(),
        };
        log.write_header()?;
        Ok(log)
    }

    /// One that an earlier process has left, and what it says.
    pub fn open(file: OwnedFd) -> io::Result<(Self, Image)> {
        let file = File::from(file);
        let start = read_header(&file)?;
        let (image, end) = read(&file, start)?;
        // What was not finished is not to be taken for the end of what comes.
        file.set_len(end)?;
        let mut log = Self {
            file,
            start,
            end,
            long: 0,
            room: Vec::new(),
        };
        log.long = log.end + SHORT;
        Ok((log, image))
    }

    /// What a log says, to somebody who does not write it.
    pub fn peek(file: &File) -> io::Result<Image> {
        Ok(read(file, read_header(file)?)?.0)
    }

    /// Appends a step. `believed` says of a name whether the kernel may believe in it still.
    pub fn append(&mut self, record: &Record, believed: &dyn Fn(u64, &[u8]) -> bool) -> io::Result<()> {
        self.put(record)?;
        if self.end < self.long {
            return Ok(());
        }
        let mut image = read(&self.file, self.start)?.0;
        image.names.retain(|directory, names| {
            names.retain(|name| believed(*directory, name));
            !names.is_empty()
        });
        self.shorten(&image)
    }

    /// Whoever opens it from now on is told that it says nothing.
    pub fn spoil(&self) {
        // It is in memory: this needs no room.
        let _ = self.file.write_all_at(&[0; 16], 0);
    }

    fn put(&mut self, record: &Record) -> io::Result<()> {
        self.room.clear();
        self.room.extend_from_slice(&[0; FRAME]);
        record.encode(&mut self.room);
        if let Some((frame, body)) = self.room.split_first_chunk_mut::<FRAME>() {
            let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            *frame = frame_of(length, body);
        }
        self.file.write_all_at(&self.room, self.end)?;
        self.end += self.room.len() as u64;
        Ok(())
    }

    fn shorten(&mut self, image: &Image) -> io::Result<()> {
        let old = self.start;
        // The old steps end where a length of nothing follows them.
        self.start = (self.end + FRAME as u64).next_multiple_of(PAGE);
        self.end = self.start;
        for record in image.records() {
            self.put(&record)?;
        }
        self.long = self.end + SHORT.max(self.end - self.start);
        self.write_header()?;
        fallocate(
            &self.file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            old,
            self.start - old,
        )?;
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        let mut header = [0; 16];
        let (magic, start) = header.split_at_mut(8);
        magic.copy_from_slice(MAGIC);
        start.copy_from_slice(&self.start.to_be_bytes());
        self.file.write_all_at(&header, 0)
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_header(file: &File) -> io::Result<u64> {
    let mut header = [0; 16];
    file.read_exact_at(&mut header, 0)?;
    match header.split_first_chunk::<8>() {
        Some((magic, start)) if magic == MAGIC => {
            let start = start.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
            Ok(u64::from_be_bytes(start))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no state of a mount that this version can read",
        )),
    }
}

/// What the steps lead to, and where they end.
fn read(file: &File, start: u64) -> io::Result<(Image, u64)> {
    let length = file.metadata()?.len().saturating_sub(start);
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?];
    file.read_exact_at(&mut bytes, start)?;
    let mut image = Image::default();
    let mut rest = bytes.as_slice();
    while let Some((record, behind)) = next(rest) {
        image.apply(record);
        rest = behind;
    }
    Ok((image, start + (bytes.len() - rest.len()) as u64))
}

/// The next step, if it was written wholly.
fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (frame, behind) = bytes.split_first_chunk::<FRAME>()?;
    let (length, _) = frame.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    let (body, rest) = behind.split_at_checked(usize::try_from(length).ok()?)?;
    if *frame != frame_of(length, body) {
        return None;
    }
    Some((Record::decode(body).ok()?, rest))
}

/// A length and a sum. That of nothing is not all zeros.
fn frame_of(length: u32, body: &[u8]) -> [u8; FRAME] {
    // FNV-1a: what is torn is to be seen; nobody forges it.
    let sum = body.iter().fold(0x811c_9dc5_u32, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let mut frame = [0; FRAME];
    let (first, second) = frame.split_at_mut(4);
    first.copy_from_slice(&length.to_be_bytes());
    second.copy_from_slice(&sum.to_be_bytes());
    frame
}

const MAGIC: &[u8; 8] = b"afskept1";
const FRAME: usize = 8;
const PAGE: u64 = 4096;
/// A log that is no longer than this beyond what was written at once is left as it is.
const SHORT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::super::record::tests::fid_of;
    use super::*;

    fn all(_: u64, _: &[u8]) -> bool {
        true
    }

    fn looked(node: u64) -> Record {
        Record::Looked {
            node,
            fid: fid_of(3),
            times: 1,
        }
    }

    #[test]
    fn the_next_process_reads_what_was_written() {
        let mut log = Log::in_memory().unwrap();
        log.append(&looked(7), &all).unwrap();
        log.append(&Record::Attached, &all).unwrap();
        let (mut log, image) = Log::open(log.file.into()).unwrap();
        assert_eq!((image.nodes.len(), image.attached), (1, 1));
        log.append(&looked(8), &all).unwrap();
        assert_eq!(Log::peek(&log.file).unwrap().nodes.len(), 2);
    }

    #[test]
    fn a_step_that_was_cut_off_is_not_counted() {
        let mut log = Log::in_memory().unwrap();
        log.append(&looked(7), &all).unwrap();
        let whole = log.end;
        log.append(&looked(8), &all).unwrap();
        for cut in whole..log.end {
            log.file.set_len(cut).unwrap();
            let copy = log.file.try_clone().unwrap();
            let (again, image) = Log::open(copy.into()).unwrap();
            assert_eq!((again.end, image.nodes.len()), (whole, 1), "cut at {cut}");
        }
    }

    #[test]
    fn a_long_log_is_made_short_and_says_the_same() {
        let mut log = Log::in_memory().unwrap();
        log.append(&looked(7), &all).unwrap();
        let mut gone = 0_u64;
        while log.start == PAGE {
            gone += 1;
            log.append(&Record::Name(7, gone.to_be_bytes().into()), &|_, name| {
                name[7] == 1
            })
            .unwrap();
        }
        assert!(log.end - log.start < SHORT / 100, "{log:?}");
        let image = Log::peek(&log.file).unwrap();
        assert_eq!(image.nodes.len(), 1);
        assert_eq!(
            image.names.get(&7).map(|names| names.len() as u64),
            Some(gone.div_ceil(256))
        );
        let kept = rustix::fs::fstat(&log.file).unwrap().st_blocks * 512;
        assert!(kept < 100 << 10, "{kept} bytes are taken");
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let log = Log::in_memory().unwrap();
        log.spoil();
        assert!(Log::open(log.file.into()).is_err());
        let other = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert!(Log::open(other).is_err());
    }
}
