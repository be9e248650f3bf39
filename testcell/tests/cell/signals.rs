//! Signals to programs that wait for a server that says nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use testcell::eventually;

use crate::shared;

/// Prepares to do WHAT in the folder AT, says so, waits for a line, does it by the C library, and says the errno. With a
/// handler SIGINT interrupts, else it ends the program.
const PROGRAM: &str = "
import ctypes, os, signal, sys
at, what, handler = sys.argv[1:4]
signal.signal(signal.SIGINT, (lambda *_: None) if handler == 'handler' else signal.SIG_DFL)
c = ctypes.CDLL(None, use_errno=True)
path = lambda name: os.path.join(at, name).encode()
file = None
if what in ('close', 'fsync'):
    file = os.open(path(what), os.O_WRONLY)
    os.write(file, b'new')
if what == 'read':
    file = os.open(path('read'), os.O_RDONLY)
buffer = ctypes.create_string_buffer(4096)
does = {
    'mkdir': lambda: c.mkdir(path('made'), 0o755),
    'access': lambda: c.access(path('cold'), os.R_OK),
    'open': lambda: c.open(path('cold'), os.O_RDONLY),
    'unlink': lambda: c.unlink(path('cold')),
    'read': lambda: c.read(file, buffer, 4096),
    'close': lambda: c.close(file),
    'fsync': lambda: c.fsync(file),
}[what]
print('ready', flush=True)
sys.stdin.readline()
print('begins', flush=True)
result = does()
print(result, ctypes.get_errno(), flush=True)
";

const ALL: [&str; 7] = ["mkdir", "access", "open", "unlink", "read", "close", "fsync"];

struct Waiter {
    what: &'static str,
    program: Child,
    says: BufReader<ChildStdout>,
}

impl Waiter {
    fn new(at: &Path, what: &'static str, handler: &str) -> Self {
        let mut program = Command::new("python3")
            .args(["-c", PROGRAM])
            .arg(at)
            .args([what, handler])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(program.stdout.take().unwrap());
        Self { what, program, says }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line
    }

    fn begin(&mut self) {
        let input = self.program.stdin.as_mut().unwrap();
        input.write_all(b"\n").unwrap();
        assert_eq!(self.line(), "begins\n", "{}", self.what);
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(self.program.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.program.try_wait().unwrap().is_some()
    }
}

/// From the signal to the end: a second is promised, on a machine that does nothing else.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn who_waits_for_a_silent_server_ends_within_a_second() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("waiting").unwrap();
    // Each in a folder of its own: who waits in the kernel for the lookup or the change of another one cannot be told to end.
    let mut waiters = Vec::new();
    for (how, signal) in [
        ("kill", Signal::KILL),
        ("int", Signal::INT),
        ("handler", Signal::INT),
    ] {
        for what in ALL {
            let name = format!("{how}-{what}");
            fs::create_dir(work.join(&name)).unwrap();
            let there = two.path("work/waiting").join(&name);
            for name in ["cold", "read", "close", "fsync"] {
                fs::write(there.join(name), "old").unwrap();
            }
            waiters.push((signal, how, Waiter::new(&work.join(&name), what, how)));
        }
    }
    for (_, how, waiter) in &mut waiters {
        assert_eq!(waiter.line(), "ready\n", "{}", waiter.what);
        // What is not open is not known any more.
        let there = two.path("work/waiting").join(format!("{how}-{}", waiter.what));
        fs::write(there.join("cold"), "other").unwrap();
        fs::write(there.join("beside"), "new").unwrap();
    }
    cell.stop_server(1).unwrap();
    for (_, _, waiter) in &mut waiters {
        waiter.begin();
    }
    // By then all of them wait.
    std::thread::sleep(Duration::from_secs(1));
    let (says, hears) = mpsc::channel();
    let (mut waiting, mut wrong, mut programs) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (signal, how, mut waiter) in waiters {
        let name = format!("{how} {}", waiter.what);
        if waiter.has_ended() {
            wrong.push(format!("{name}: it does not wait"));
        }
        let (sent, says) = (Instant::now(), says.clone());
        waiter.send(signal);
        waiting.insert(name.clone());
        // Who handles the signal goes on, and may wait again at its end.
        let mut lines = waiter.says;
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = lines.read_line(&mut line);
            says.send((name, line, sent.elapsed()))
        });
        programs.push(waiter.program);
    }
    while let Some((name, said, took)) = (!waiting.is_empty())
        .then(|| hears.recv_timeout(SOON).ok())
        .flatten()
    {
        println!("{name}: {took:?}");
        let interrupted = format!("-1 {}\n", Errno::INTR.raw_os_error());
        let expected = if name.starts_with("handler") {
            &interrupted
        } else {
            ""
        };
        if said != *expected || took > SOON {
            wrong.push(format!("{name}: {said:?} after {took:?}"));
        }
        waiting.remove(&name);
    }
    wrong.extend(waiting.iter().map(|name| format!("{name}: it waits")));
    for program in &mut programs {
        program.kill().unwrap();
    }
    cell.start_server(1).unwrap();
    for mut program in programs {
        program.wait().unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(eventually(Duration::from_secs(40), || fs::remove_dir_all(&work).is_ok()));
}
