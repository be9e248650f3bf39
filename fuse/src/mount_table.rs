//! The kernel's table of mounts.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The number of a file system: the same in every mount namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The class.
    pub major: u32,
    /// Which of the class.
    pub minor: u32,
}

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file system.
    pub device: Device,
    /// What of it is mounted.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// Its type.
    pub fs_type: String,
    /// Its source.
    pub source: String,
}

/// All mounts that this process sees, the lower ones first. One that cannot be read is left out.
pub fn read() -> Vec<Entry> {
    fs::read("/proc/self/mountinfo").map_or_else(|_| Vec::new(), |table| parse(&table))
}

/// What is mounted exactly at a path, if anything; the uppermost if there are several.
pub fn at(path: &Path) -> Option<Entry> {
    read().into_iter().rfind(|entry| entry.at == path)
}

impl Entry {
    /// `path` as the file system itself calls it, if it is in this mount.
    pub fn inside(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.at).ok()?;
        Some(self.root.join(below))
    }
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// proc_pid_mountinfo(5): id, parent, device, root, mount point, options, optional fields, a lone dash, type, source.
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let (root, at) = (fields.next()?, fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (fs_type, source) = (rest.next()?, rest.next()?);
    Some(Entry {
        device: Device {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        root: path(root),
        at: path(at),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
    })
}

fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

/// Undoes the `\ooo` escapes of the kernel's mount tables.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'\\'
            && let Some((digits, after)) = tail.split_at_checked(3)
            && let Some(byte) = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            out.push(byte);
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_junk_is_left_out() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/vda rw\n\
            40 22 0:40 / /a\\040b rw,nosuid shared:1 - tmpfs none rw\n\
            junk\n\n1 2\n\
            41 40 0:41 /sub /a\\040b rw,nosuid - fuse.afs afs rw\n";
        let entries = parse(table);
        assert_eq!(entries.len(), 3);
        let last = entries.last().unwrap();
        assert_eq!((last.fs_type.as_str(), last.source.as_str()), ("fuse.afs", "afs"));
        assert_eq!(
            (last.device.to_string().as_str(), last.at.as_path()),
            ("0:41", Path::new("/a b"))
        );
        assert_eq!(last.inside(Path::new("/a b/c")), Some("/sub/c".into()));
        assert_eq!(last.inside(Path::new("/a")), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape(b"tail\\04"), b"tail\\04");
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).is_some());
    }
}
