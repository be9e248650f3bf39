//! `afs why`: why a path is slow or refused.
//!
//! The machine: the kernel is asked for nothing inside a mount, because that may be what hangs. Links on the way to the
//! mount are resolved here; from its root on the process that serves it walks the path itself.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use crate::ctl::Request;
use crate::ctl::client::ask;
use crate::failure::{Failure, Kind};
use crate::mount::FS_TYPE;
use crate::mount_table::{self, Entry};
use crate::report::why::Why as Report;
use crate::status::of_entry;

/// Options of `afs why`.
#[derive(Args, Clone, Debug)]
pub struct Why {
    /// As JSON
    #[arg(long)]
    pub json: bool,

    /// A file or directory in a mount, or one that should be there
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Runs `afs why`.
pub fn why(options: &Why) -> Result<(), Failure> {
    let (entry, inside) = locate(&options.path, &mount_table::read())?;
    let socket = of_entry(&entry)?.socket;
    let answer = ask(&socket, &Request::Why(inside));
    let Some((report, json)) = answer.report::<Report>() else {
        let what = format!("{} does not say why: {}", entry.at.display(), answer.refusal());
        return Err(Failure::new(Kind::Other, what));
    };
    if options.json {
        println!("{json}");
    } else {
        let shown = Report {
            path: options.path.display().to_string(),
            ..report
        };
        print!("{shown}");
    }
    Ok(())
}

/// The mount in which a path is, and the path from its root on. Links on the way there are followed; those inside are not.
fn locate(path: &Path, table: &[Entry]) -> Result<(Entry, PathBuf), Failure> {
    let unusable = |error: std::io::Error| Failure::new(Kind::Other, format!("{}: {error}", path.display()));
    let absolute = std::path::absolute(path).map_err(unusable)?;
    let mut left: VecDeque<OsString> = names(&absolute).collect();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    loop {
        // The uppermost mount at a place is the one that counts.
        if let Some(entry) = table.iter().rfind(|entry| entry.at == at)
            && entry.fs_type == FS_TYPE
        {
            let inside: PathBuf = left.iter().collect();
            return Ok((entry.clone(), entry.root.join(inside)));
        }
        let Some(name) = left.pop_front() else {
            return Err(Failure::new(
                Kind::MountPoint,
                format!("{} is in no mount of afs", path.display()),
            )
            .cure("see which there are with `afs status'"));
        };
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match std::fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(unusable(rustix::io::Errno::LOOP.into()));
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(name);
                }
            }
            Err(_) => at = next,
        }
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// As the kernel.
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_table::Device;

    #[test]
    fn the_way_to_a_mount_may_have_links() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("afs")).unwrap();
        std::os::unix::fs::symlink("afs/a.example", top.join("home")).unwrap();
        std::os::unix::fs::symlink(top.join("home"), top.join("again")).unwrap();
        std::os::unix::fs::symlink("loop", top.join("loop")).unwrap();
        let entry = Entry {
            device: Device { major: 0, minor: 1 },
            root: "/sub".into(),
            at: top.join("afs"),
            fs_type: FS_TYPE.to_owned(),
            source: "afs".to_owned(),
        };
        let inside = |path: &str| {
            let found = locate(&top.join(path), std::slice::from_ref(&entry));
            found.map(|(_, inside)| inside.to_str().unwrap().to_owned())
        };
        assert_eq!(inside("afs"), Ok("/sub/".to_owned()));
        assert_eq!(inside("afs/x/../y"), Ok("/sub/x/../y".to_owned()));
        assert_eq!(inside("again/x"), Ok("/sub/a.example/x".to_owned()));
        assert_eq!(inside("missing/../home"), Ok("/sub/a.example".to_owned()));
        for (path, why) in [("elsewhere", "is in no mount of afs"), ("loop", "symbolic links")] {
            let failure = inside(path).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
