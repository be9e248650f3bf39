//! The session with the kernel: mounting, its threads, its end.
//!
//! Root mounts by itself, which gives the mount a type of its own and needs no helper program; where that is not
//! permitted, fuser asks the set-uid helper fusermount3.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;

use fuser::{Config, MountOption, SessionACL};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tokio::sync::{mpsc, oneshot};

use afs_client::fs::{AfsFs, Invalidation};

use crate::adapter::{Adapter, Shared};
use crate::attach::{Seat, attach, resend};
use crate::failure::{Failure, Kind};
use crate::kept::Init;
use crate::kernel::Device;
use crate::mount::{FS_TYPE, SOURCE};
use crate::notify::Notify;
use crate::telemetry::metrics::Metrics;

/// How a mount is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The kernel refuses changes.
    pub read_only: bool,
    /// Users beside the one who mounts may use it.
    pub allow_other: bool,
}

/// A mount that shook hands with the kernel but does not answer yet.
pub struct Session {
    inner: fuser::Session<Adapter>,
    shared: Arc<Shared>,
}

/// Tells how the session ended: by an unmount, or by an error.
pub type Ended = oneshot::Receiver<io::Result<()>>;

impl Session {
    /// Mounts. Blocks until the kernel has said hello.
    pub fn mount(shared: Arc<Shared>, at: &Path, options: Options) -> Result<Self, Failure> {
        let loops = loops_for(shared.fs());
        let adapter = Adapter::new(Arc::clone(&shared));
        let inner = match mount_direct(at, options) {
            Ok(device) => {
                // Who may use the mount is checked by the kernel.
                let opened =
                    fuser::Session::from_fd(adapter, device, SessionACL::All, config(options, loops));
                if opened.is_err() {
                    let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
                }
                opened
            }
            Err(Errno::PERM | Errno::ACCESS) => fuser::Session::new(adapter, at, &config(options, loops)),
            Err(error) => Err(error.into()),
        };
        Ok(Self {
            inner: inner.map_err(|error| refused(at, &error))?,
            shared,
        })
    }

    /// Serves a mount that somebody else keeps: `first` is what was agreed on with the kernel, if it was.
    pub fn attach(
        shared: Arc<Shared>,
        seat: Seat,
        device: OwnedFd,
        first: Option<&Init>,
        options: Options,
    ) -> io::Result<Self> {
        let loops = loops_for(shared.fs());
        let adapter = Adapter::new(Arc::clone(&shared));
        let mut config = config(options, loops);
        // What was read through a clone would end with the process.
        config.clone_fd = false;
        let inner = attach(
            seat,
            device.as_fd(),
            first,
            |seat| fuser::Session::from_fd(adapter, seat, SessionACL::All, config),
            |init| {
                if let Some(kept) = shared.kept() {
                    kept.begin(init);
                }
            },
        )?;
        if first.is_some() {
            resend(device.as_fd())?;
        }
        Ok(Self { inner, shared })
    }

    /// Answers from now on, and passes invalidations on.
    pub fn start(
        self,
        invalidations: Option<mpsc::UnboundedReceiver<Invalidation>>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Ended> {
        let device = Device::new(self.inner.as_fd().try_clone_to_owned()?, self.shared.expires());
        let (inodes, names) = (Arc::clone(self.shared.inodes()), Arc::clone(self.shared.names()));
        if let Some(queue) = invalidations {
            // It ends by itself when the mount is gone, but it may wait in the kernel then: nobody joins it.
            drop(Notify::new(device, inodes, names, metrics).spawn(queue)?);
        }
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("afs-session".to_owned())
            .spawn(move || {
                let _ = tell.send(self.inner.run());
            })?;
        Ok(ended)
    }
}

fn config(options: Options, loops: usize) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(SOURCE.to_owned()),
        MountOption::Subtype(SUBTYPE.to_owned()),
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(loops);
    config.clone_fd = true;
    config
}

/// How many threads take requests of a mount.
fn loops_for(fs: &AfsFs) -> usize {
    let processors = available_parallelism().map_or(1, usize::from);
    loops(processors, fs.waits_for_disk())
}

/// One for each processor. The kernel gives requests to them in turn, so that of two on two processors one is woken for each
/// request of a program that makes one after the other; a single one is better there (docs/testing.md), unless a disk may
/// keep it from the next request.
fn loops(processors: usize, waits_for_disk: bool) -> usize {
    if processors <= 2 && !waits_for_disk {
        1
    } else {
        processors.clamp(2, MAX_LOOPS)
    }
}

/// mount(2) without a helper.
pub(crate) fn mount_direct(at: &Path, options: Options) -> rustix::io::Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    rustix::mount::mount(
        SOURCE,
        at,
        FS_TYPE,
        flags,
        Some(mount_data(device.as_raw_fd(), options)?.as_c_str()),
    )?;
    Ok(device.into())
}

fn mount_data(fd: i32, options: Options) -> rustix::io::Result<CString> {
    let (user, group) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let allow_other = if options.allow_other { ",allow_other" } else { "" };
    let text = format!("fd={fd},rootmode=40000,user_id={user},group_id={group}{allow_other}");
    CString::new(text).map_err(|_| Errno::INVAL)
}

pub(crate) fn refused(at: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Kind::Fuse, format!("mounting {} failed: {error}", at.display()));
    match error.kind() {
        ErrorKind::PermissionDenied => {
            failure.cure("run as root, or give the container --cap-add SYS_ADMIN --device /dev/fuse")
        }
        ErrorKind::NotFound => failure.cure("install fusermount3 (package fuse3), or run as root"),
        _ => failure.cure("see the kernel's messages (dmesg)"),
    }
}

/// `fuse.` and this is the type of the mount.
const SUBTYPE: &str = "afs";
/// More threads that take requests are of no use.
const MAX_LOOPS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_who_mounts() {
        let text = |options| mount_data(5, options).unwrap().into_string().unwrap();
        let plain = text(Options::default());
        assert!(plain.starts_with("fd=5,rootmode=40000,user_id="), "{plain}");
        assert!(!plain.contains("allow_other"));
        // The bits of files do not say who may do what.
        assert!(!plain.contains("default_permissions"));
        assert!(
            text(Options {
                allow_other: true,
                ..Options::default()
            })
            .ends_with(",allow_other")
        );
    }

    #[test]
    fn both_ways_to_mount_give_the_same_type() {
        assert_eq!(FS_TYPE, format!("fuse.{SUBTYPE}"));
        let how = Options {
            read_only: true,
            allow_other: false,
        };
        let options = config(how, 1);
        assert!(options.mount_options.contains(&MountOption::RO));
        assert!(!options.mount_options.contains(&MountOption::DefaultPermissions));
        assert_eq!(options.acl, SessionACL::Owner);
    }

    #[test]
    fn a_disk_never_keeps_the_only_thread() {
        let of = |processors| [false, true].map(|waits| loops(processors, waits));
        assert_eq!([1, 2, 3, 4, 64].map(of), [[1, 2], [1, 2], [3, 3], [4, 4], [4, 4]]);
    }

    #[test]
    fn a_refusal_names_the_cure() {
        let failure = refused(Path::new("/a"), &io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(failure.kind(), Kind::Fuse);
        assert!(
            failure
                .to_string()
                .contains("mounting /a failed: permission denied; run as root"),
            "{failure}"
        );
    }
}
