//! `mount.fuse.afs` and `mount.afs-fuse`: how mount(8), /etc/fstab and autofs ask for a mount.
//!
//! The machine: mount(8) runs `/sbin/mount.TYPE SOURCE DIR [-sfnv] [-t TYPE] -o OPTIONS`, a link to this program. Options are
//! those of `afs mount` without the dashes, besides those that every file system takes; they become a command line of `afs
//! mount`, which takes this process's place. So the options are written once, where `afs mount` has them.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::{ArgAction, CommandFactory};

use crate::cli::Cli;
use crate::failure::{Failure, Kind};
use crate::mount::SOURCE;

/// Is the program called by the name of a mount helper?
pub fn is_asked(name: Option<&OsStr>) -> bool {
    let name = name.and_then(|name| Path::new(name).file_name());
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"mount."))
}

/// Does what mount(8) asks.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match asked(arguments) {
        Ok(Some(line)) => become_mount(&line).show(),
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => failure.show(),
    }
}

fn become_mount(line: &[OsString]) -> Failure {
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program).arg0("afs").args(line).exec(),
        Err(error) => error,
    };
    Failure::new(Kind::Other, format!("cannot run afs mount: {error}"))
}

/// The command line of `afs`; none if nothing is to be done.
fn asked(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Vec<OsString>>, Failure> {
    let wrong = |what: String| {
        Failure::new(Kind::Usage, what)
            .cure("mount(8) calls it so: mount.fuse.afs SOURCE DIR [-sfnv] [-o OPTIONS]")
    };
    let (mut places, mut options, mut sloppy, mut fake) = (Vec::new(), String::new(), false, false);
    while let Some(argument) = arguments.next() {
        let Some(flags) = argument.to_str().and_then(|text| text.strip_prefix('-')) else {
            places.push(argument);
            continue;
        };
        let mut value = || {
            let value = arguments.next().and_then(|value| value.into_string().ok());
            value.ok_or_else(|| wrong(format!("something must follow -{flags}")))
        };
        match flags {
            "o" => {
                let more = value()?;
                options = format!("{options},{more}");
            }
            // Known already.
            "t" => drop(value()?),
            _ => {
                for flag in flags.chars() {
                    match flag {
                        's' => sloppy = true,
                        'f' => fake = true,
                        'n' | 'v' | 'r' | 'w' => {}
                        other => return Err(wrong(format!("-{other} is not known"))),
                    }
                }
                if flags.contains('r') {
                    options.push_str(",ro");
                }
            }
        }
    }
    let [source, at] = places.as_slice() else {
        return Err(wrong(format!("{} places are named, not two", places.len())));
    };
    // As the kernel's table has it: so that `mount -a' finds it there.
    if source != SOURCE {
        let shown = source.display();
        let what = format!("the source of a mount is `{SOURCE}', not `{shown}'");
        let cure = format!("if {shown} is the home cell, write {SOURCE} and -o cell={shown}");
        return Err(Failure::new(Kind::Usage, what).cure(cure));
    }
    let mut line = vec![OsString::from("mount")];
    line.extend(translated(&options, sloppy)?.into_iter().map(OsString::from));
    line.push(at.clone());
    Ok((!fake).then_some(line))
}

/// What the options of mount(8) are on the command line of `afs mount`.
fn translated(options: &str, sloppy: bool) -> Result<Vec<String>, Failure> {
    let known = known();
    let mut line = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if IGNORED.contains(&name) || name.starts_with("x-") || name.starts_with("X-") {
            continue;
        }
        let long = match name {
            "ro" => "read-only".to_owned(),
            other => other.replace('_', "-"),
        };
        match known.iter().find(|(known, _)| *known == long) {
            Some((_, takes_value)) if *takes_value == value.is_some() => {
                line.push(match value {
                    Some(value) => format!("--{long}={value}"),
                    None => format!("--{long}"),
                });
            }
            Some((_, true)) => {
                return Err(Failure::new(Kind::Usage, format!("option {name} needs a value"))
                    .cure(format!("write {name}=VALUE")));
            }
            Some((_, false)) => {
                return Err(Failure::new(Kind::Usage, format!("option {name} takes no value"))
                    .cure(format!("write {name}")));
            }
            None if sloppy => {}
            None => {
                let failure = Failure::new(Kind::Usage, format!("mount option {name} is not known"));
                let names = known
                    .iter()
                    .map(|(known, _)| known.as_str())
                    .chain(IGNORED.iter().copied());
                return Err(match nearest(&long, names.chain(["ro"])) {
                    Some(near) => failure.cure(format!("did you mean {near}? `afs mount --help' lists them")),
                    None => failure.cure("`afs mount --help' lists those of afs"),
                });
            }
        }
    }
    Ok(line)
}

/// The options of `afs mount`, and whether each takes a value.
fn known() -> Vec<(String, bool)> {
    let all = Cli::command();
    let mount = all.find_subcommand("mount").into_iter();
    mount
        .flat_map(clap::Command::get_arguments)
        .filter(|argument| !argument.is_hide_set() && !IN_FOREGROUND.contains(&argument.get_id().as_str()))
        .filter_map(|argument| {
            let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
            Some((argument.get_long()?.to_owned(), takes_value))
        })
        .collect()
}

/// The name that is most like another one, if any is.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > LIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

/// What is so anyway, what is somebody else's business, and times that AFS does not keep.
const IGNORED: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "auto",
    "comment",
    "defaults",
    "diratime",
    "exec",
    "group",
    "lazytime",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nolazytime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "rw",
    "strictatime",
    "user",
    "users",
];
/// Options with which mount(8) would wait for ever.
const IN_FOREGROUND: [&str; 2] = ["foreground", "fd_store"];
const LIKE: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> Result<Option<String>, String> {
        match asked(words.split(' ').map(OsString::from)) {
            Ok(line) => Ok(line.map(|line| line.join(OsStr::new(" ")).into_string().unwrap())),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn it_is_known_by_its_name() {
        assert!(is_asked(Some(OsStr::new("/sbin/mount.fuse.afs"))));
        assert!(!is_asked(Some(OsStr::new("/usr/bin/afs"))) && !is_asked(None));
    }

    #[test]
    fn options_become_those_of_afs_mount() {
        assert_eq!(
            line(
                "afs-fuse /afs -n -o rw,_netdev,x-systemd.automount,cell=example.org,cache_size=2G -t fuse.afs"
            ),
            Ok(Some("mount --cell=example.org --cache-size=2G /afs".to_owned()))
        );
        assert_eq!(
            line("afs-fuse /afs -o ro,allow_other,nosuid,nodev,noatime"),
            Ok(Some("mount --read-only --allow-other /afs".to_owned()))
        );
        assert_eq!(line("afs-fuse /afs"), Ok(Some("mount /afs".to_owned())));
        assert_eq!(line("afs-fuse /afs -fv"), Ok(None));
        assert_eq!(
            line("afs-fuse /afs -s -o wsize=1"),
            Ok(Some("mount /afs".to_owned()))
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_the_cure() {
        for (words, part) in [
            (
                "afs-fuse /afs -o cel=x",
                "mount option cel is not known; did you mean cell?",
            ),
            ("afs-fuse /afs -o noexec", "mount option noexec is not known"),
            (
                "afs-fuse /afs -o cell",
                "option cell needs a value; write cell=VALUE",
            ),
            ("afs-fuse /afs -o ro=1", "option ro takes no value"),
            (
                "afs-fuse /afs -o foreground",
                "mount option foreground is not known",
            ),
            ("example.org /afs", "write afs-fuse and -o cell=example.org"),
            ("afs-fuse", "1 places are named"),
            ("afs-fuse /afs -o", "something must follow -o"),
            ("afs-fuse /afs -q", "-q is not known"),
        ] {
            let error = line(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
