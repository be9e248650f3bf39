//! What is said of a path in one sentence: what is in the way, or that nothing is.

use super::*;

impl Why {
    /// What matters, in one sentence: what hinders now, then what has hindered of late, then what would.
    pub(super) fn judged(&self) -> String {
        if let Some(stopped) = &self.stopped {
            return self.judged_stop(stopped);
        }
        let Some(object) = &self.object else {
            return "fine: the root of a mount is made by the mount itself".to_owned();
        };
        if let Some(why) = &object.no_calls {
            return format!("denied: {why}");
        }
        if let Some(trouble) = object.trouble_now().or_else(|| object.refusal()) {
            return trouble;
        }
        if let Some(trouble) = object.trouble_of_late() {
            return trouble;
        }
        if object.dirty > 0 {
            return format!(
                "fine, but {} of it are here only: they are stored when the file is closed",
                bytes(object.dirty)
            );
        }
        if let Some(why) = self.no_writing(object) {
            return format!("fine to read; {why}");
        }
        object.fine()
    }

    fn judged_stop(&self, stopped: &Stopped) -> String {
        let Stopped { name, directory, how } = stopped;
        let directory = if directory.is_empty() {
            "the root"
        } else {
            directory
        };
        let object = self.object.as_ref();
        match how {
            How::Missing => format!("missing: there is no {name} in {directory}"),
            How::Outside(target) => {
                format!("elsewhere: the link {name} leads to {target}, out of this mount")
            }
            How::Slow => object.and_then(Object::trouble_now).unwrap_or_else(|| {
                format!(
                    "slow: nothing was heard of {name} in {directory} for {}",
                    span(PATIENCE)
                )
            }),
            How::Failed { errno, .. } if *errno == Errno::ACCESS.raw_os_error() => {
                let status = object.and_then(|object| object.status.as_ref());
                let rights = status.map_or("none", |status| &status.rights);
                format!(
                    "denied: you have {rights} on {directory}, looking names up there needs l{}",
                    object.map_or("", Object::cure)
                )
            }
            How::Failed { errno, error } if *errno == Errno::NOTDIR.raw_os_error() => {
                format!("missing: {directory} is no directory, so there is no {name} in it ({error})")
            }
            How::Failed { errno, error } if *errno == Errno::TIMEDOUT.raw_os_error() => {
                format!("unreachable: {error}")
            }
            How::Failed { errno, error }
                if [Errno::KEYEXPIRED, Errno::NOKEY]
                    .map(Errno::raw_os_error)
                    .contains(errno) =>
            {
                format!("denied: {error}")
            }
            How::Failed { error, .. } => format!("failed: looking {name} up in {directory}: {error}"),
        }
    }

    fn no_writing(&self, object: &Object) -> Option<String> {
        if self.read_only {
            return Some("writing is refused in this mount (--read-only)".to_owned());
        }
        if object.volume.kind != "rw" {
            let copy = if object.volume.kind == "bk" {
                "backup"
            } else {
                "read-only copy"
            };
            return Some(format!("nothing can be written to the {copy} of a volume"));
        }
        let status = object.status.as_ref().filter(|status| !status.writable)?;
        let needs = if object.is_directory() { 'i' } else { 'w' };
        let why = if status.rights.contains(needs) {
            format!("its mode {:04o} forbids writing", status.mode)
        } else {
            format!("you have {}, writing needs {needs}", status.rights)
        };
        Some(format!("{why}{}", object.cure()))
    }
}

impl Object {
    /// Something hinders at this moment.
    pub(super) fn trouble_now(&self) -> Option<String> {
        if self.is_unreachable() {
            let down = self.servers.iter().filter_map(|server| {
                let first = server.addresses.first()?.address;
                Some(format!("{first} for {}", seconds(server.down_seconds?)))
            });
            let down: Vec<_> = down.collect();
            return Some(format!(
                "unreachable: no server of volume {} answers, {}",
                self.volume.name,
                down.join(", ")
            ));
        }
        let waiting = self
            .calls
            .iter()
            .find(|call| call.took_seconds.is_none() && call.ago_seconds >= SLOW)?;
        Some(format!(
            "slow: {} has not been answered by {} for {}",
            waiting.procedure,
            waiting.server,
            seconds(waiting.ago_seconds)
        ))
    }

    /// Reading is refused.
    pub(super) fn refusal(&self) -> Option<String> {
        let status = self.status.as_ref().filter(|status| !status.readable)?;
        let needs = if self.is_directory() { 'l' } else { 'r' };
        let cure = self.cure();
        Some(if status.rights.contains(needs) {
            format!(
                "denied: the mode {:04o} of {} forbids reading",
                status.mode,
                self.called()
            )
        } else {
            format!("denied: you have {}, reading needs {needs}{cure}", status.rights)
        })
    }

    /// Something has hindered not long ago.
    fn trouble_of_late(&self) -> Option<String> {
        let last = self.calls.iter().rfind(|call| call.took_seconds.is_some())?;
        let ago = |call: &Call| seconds(call.ago_seconds);
        if let Some(error) = &last.error
            && last.ago_seconds < LATE
        {
            let Call {
                procedure, server, ..
            } = last;
            return Some(format!(
                "failing: {procedure} to {server} {} ago: {error}",
                ago(last)
            ));
        }
        let took = |call: &Call| call.took_seconds.unwrap_or(0.0);
        let slow = self
            .calls
            .iter()
            .filter(|call| call.ago_seconds < LATE && took(call) >= SLOW)
            .max_by(|a, b| took(a).total_cmp(&took(b)))?;
        let Call {
            procedure, server, ..
        } = slow;
        let result = match &slow.error {
            Some(error) => format!(" and failed: {error}"),
            None => String::new(),
        };
        Some(format!(
            "slow: {server} did not answer {procedure} for {}, {} ago{result}",
            seconds(took(slow)),
            ago(slow)
        ))
    }

    fn fine(&self) -> String {
        match (&self.status, &self.promise) {
            (Some(status), Some(promise)) => {
                let left = seconds(promise.left_seconds);
                let here = if status.size <= self.cached {
                    "all of it is"
                } else {
                    "what was read is"
                };
                if status.kind == DIRECTORY {
                    format!("fine: it is known here, and its server will tell of changes for {left}")
                } else {
                    format!("fine: {here} in the cache, and its server will tell of changes for {left}")
                }
            }
            _ => "fine: it is asked for at the server when it is used".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(up: bool) -> ServerStatus {
        ServerStatus {
            cell: "a.example".to_owned(),
            id: "1".to_owned(),
            up,
            down_seconds: (!up).then_some(20.0),
            promised: true,
            addresses: vec![crate::report::status::AddressStatus {
                address: "192.0.2.1:7000".parse().unwrap(),
                up,
                rtt_seconds: Some(0.001),
            }],
            failing: 0.0,
            left_alone: None,
        }
    }

    fn call(ago: f64, took: Option<f64>, error: Option<&str>) -> Call {
        Call {
            procedure: "FetchStatus".to_owned(),
            server: "192.0.2.1:7000".parse().unwrap(),
            ago_seconds: ago,
            took_seconds: took,
            error: error.map(str::to_owned),
        }
    }

    /// A file that alice may read.
    fn why(change: impl FnOnce(&mut Why, &mut Object)) -> String {
        let mut object = Object {
            path: "a.example/dir/file".to_owned(),
            fid: "1:2.4.5".to_owned(),
            volume: VolumeStatus {
                cell: "a.example".to_owned(),
                name: "vol".to_owned(),
                id: 2,
                kind: "rw".to_owned(),
                servers: Vec::new(),
            },
            servers: vec![server(true)],
            principal: Some("alice@A.EXAMPLE".to_owned()),
            no_calls: None,
            status: Some(ObjectStatus {
                kind: "file".to_owned(),
                size: 100,
                data_version: 1,
                mode: 0o644,
                rights: "rl".to_owned(),
                anybody: "none".to_owned(),
                readable: true,
                writable: false,
            }),
            promise: Some(PromiseStatus {
                server: None,
                left_seconds: 3000.0,
            }),
            cached: 4096,
            lent: false,
            dirty: 0,
            calls: vec![call(5.0, Some(0.001), None)],
        };
        let mut why = Why {
            path: "/a.example/dir/file".to_owned(),
            identity: "uid 1".to_owned(),
            read_only: false,
            links: Vec::new(),
            stopped: None,
            object: None,
            verdict: String::new(),
        };
        change(&mut why, &mut object);
        why.object = Some(object);
        why.judged()
    }

    fn set(object: &mut Object, change: impl FnOnce(&mut ObjectStatus)) {
        change(object.status.as_mut().unwrap());
    }

    fn stop(why: &mut Why, how: How) {
        why.stopped = Some(Stopped {
            name: "x".to_owned(),
            directory: "a.example/dir".to_owned(),
            how,
        });
    }

    #[test]
    fn one_sentence_says_what_matters() {
        type Case<'a> = (&'a str, Box<dyn FnOnce(&mut Why, &mut Object)>);
        let cases: Vec<Case<'_>> = vec![
            ("fine to read; you have rl, writing needs w", Box::new(|_, _| {})),
            (
                "fine: all of it is in the cache, and its server will tell of changes for 50 min",
                Box::new(|_, object| set(object, |status| status.writable = true)),
            ),
            (
                "fine to read; its mode 0444 forbids writing",
                Box::new(|_, object| {
                    set(object, |status| {
                        status.mode = 0o444;
                        status.rights = "rlw".to_owned();
                    });
                }),
            ),
            (
                "fine to read; writing is refused in this mount (--read-only)",
                Box::new(|why, _| why.read_only = true),
            ),
            (
                "fine to read; nothing can be written to the read-only copy of a volume",
                Box::new(|_, object| object.volume.kind = "ro".to_owned()),
            ),
            (
                "denied: you have l, reading needs r; you have no token for this cell: run afs aklog",
                Box::new(|_, object| {
                    object.principal = None;
                    set(object, |status| {
                        status.rights = "l".to_owned();
                        status.readable = false;
                    });
                }),
            ),
            (
                "denied: the token has expired",
                Box::new(|_, object| object.no_calls = Some("the token has expired".to_owned())),
            ),
            (
                "slow: FetchStatus has not been answered by 192.0.2.1:7000 for 3.2 s",
                Box::new(|_, object| object.calls.push(call(3.2, None, None))),
            ),
            (
                "slow: 192.0.2.1:7000 did not answer FetchStatus for 3.0 s, 60 s ago",
                Box::new(|_, object| object.calls.insert(0, call(60.0, Some(3.0), None))),
            ),
            (
                "failing: FetchStatus to 192.0.2.1:7000 4.0 s ago: no",
                Box::new(|_, object| object.calls.push(call(4.0, Some(0.1), Some("no")))),
            ),
            (
                "unreachable: no server of volume vol answers, 192.0.2.1:7000 for 20 s",
                Box::new(|_, object| object.servers = vec![server(false)]),
            ),
            (
                "fine, but 8.0 KiB of it are here only: they are stored when the file is closed",
                Box::new(|_, object| object.dirty = 8192),
            ),
            (
                "missing: there is no x in a.example/dir",
                Box::new(|why, _| stop(why, How::Missing)),
            ),
            (
                "denied: you have rl on a.example/dir, looking names up there needs l",
                Box::new(|why, _| stop(why, Error::from(Errno::ACCESS).into())),
            ),
            (
                "slow: nothing was heard of x in a.example/dir for 3.0 s",
                Box::new(|why, _| stop(why, How::Slow)),
            ),
            (
                "unreachable: nobody answers",
                Box::new(|why, _| stop(why, Error::new(Errno::TIMEDOUT, "nobody answers").into())),
            ),
            (
                "elsewhere: the link x leads to /etc, out of this mount",
                Box::new(|why, _| stop(why, How::Outside("/etc".to_owned()))),
            ),
        ];
        for (sentence, change) in cases {
            assert_eq!(why(change), sentence);
        }
    }

    #[test]
    fn rights_are_written_as_fs_does() {
        assert_eq!(
            (letters(127), letters(9), letters(0)),
            ("rlidwka".to_owned(), "rl".to_owned(), "none".to_owned())
        );
    }
}
