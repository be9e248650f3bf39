//! Programs that rely on what a file system promises: databases, mail readers, interpreters, editors, builds.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testcell::{run, run_in};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(40);

/// What a program says that succeeds.
fn said(command: &mut Command) -> String {
    run(LIMIT, command).unwrap().ok().unwrap().text()
}

fn python(script: &str, path: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(path).args(words);
    command
}

/// Adds rows to the database PATH with journals of KIND, each in a transaction that others wait for.
const ADD: &str = "
import sqlite3, sys
path, kind, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(path, timeout=30, isolation_level=None)
assert db.execute('PRAGMA journal_mode=' + kind).fetchone() == (kind.lower(),)
db.execute('CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, text)')
for _ in range(rows):
    db.execute('BEGIN IMMEDIATE')
    count, = db.execute('SELECT count(*) FROM t').fetchone()
    db.execute('INSERT INTO t VALUES (?, ?)', (count, 'x' * 5000))
    db.execute('COMMIT')
";

/// Changes everything in a transaction too large for its memory, so that the file is written before the end, which does not
/// come.
const BEGIN: &str = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
db.execute('PRAGMA journal_mode=' + sys.argv[2])
db.execute('PRAGMA cache_size=2')
db.execute('BEGIN IMMEDIATE')
db.execute('UPDATE t SET text = ?', ('y' * 5000,))
print('begun', flush=True)
time.sleep(60)
";

/// Rows, those of the transaction that did not end, and whether the database is whole.
const LOOK: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
count = lambda where: db.execute('SELECT count(*) FROM t WHERE ' + where).fetchone()[0]
print(count('1'), count(\"text LIKE 'y%'\"), db.execute('PRAGMA integrity_check').fetchone()[0])
";

#[test]
fn sqlite_shares_a_database_and_rolls_back_what_was_killed() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("sqlite").unwrap();
    for kind in ["DELETE", "TRUNCATE", "PERSIST"] {
        let path = work.join(kind);
        said(&mut python(ADD, &path, &[kind, "10"]));
        let both = [(); 2].map(|()| python(ADD, &path, &[kind, "5"]).spawn().unwrap());
        for mut program in both {
            assert!(program.wait().unwrap().success(), "{kind}");
        }
        let mut dies = python(BEGIN, &path, &[kind])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = [0; 6];
        dies.stdout.take().unwrap().read_exact(&mut begun).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(
            bytes.windows(4).any(|part| part == b"yyyy"),
            "{kind}: written before its end"
        );
        dies.kill().unwrap();
        dies.wait().unwrap();
        let journal = fs::read(work.join(format!("{kind}-journal"))).unwrap();
        assert!(journal.starts_with(b"\xd9\xd5\x05\xf9"), "{kind}: hot");
        // The next one that looks, be it at another client, finds the journal and undoes what it can.
        assert_eq!(
            said(&mut python(LOOK, &two.path("work/sqlite").join(kind), &[])),
            "20 0 ok\n"
        );
        assert_eq!(said(&mut python(LOOK, &path, &[])), "20 0 ok\n", "{kind}");
    }
    fs::remove_dir_all(&work).unwrap();
}

/// A mailbox of a kind: messages come, are changed and go. Maildir as programs without link(2) use it, because a link
/// from `tmp` to `new` cannot be.
const MAIL: &str = "
import errno, mailbox, os, sys
at, kind = sys.argv[1:3]
make = {'mbox': mailbox.mbox, 'maildir': mailbox.Maildir, 'mh': mailbox.MH}[kind]
path = os.path.join(at, kind)
if kind == 'maildir':
    try:
        make(path).add('From: a\\n\\nb\\n')
        sys.exit('a link between directories')
    except OSError as error:
        assert error.errno == errno.EXDEV, error
    del os.link
box = make(path)
box.lock()
keys = [box.add('From: a@b\\nSubject: %d\\n\\nbody\\n' % number) for number in range(4)]
box.flush()
letter = box[keys[1]]
if kind == 'maildir':
    letter.set_subdir('cur')
    letter.add_flag('S')
letter['X-Seen'] = 'yes'
box[keys[1]] = letter
box.remove(keys[0])
box.flush()
box.unlock()
box.close()
again = make(path, create=False)
assert sorted(letter['Subject'] for letter in again) == ['1', '2', '3']
assert [letter['Subject'] for letter in again if letter['X-Seen']] == ['1']
";

/// Delivers so many letters to an mbox, each under its lock.
const DELIVER: &str = "
import mailbox, sys, time
box = mailbox.mbox(sys.argv[1])
for _ in range(int(sys.argv[2])):
    while True:
        try:
            box.lock()
            break
        except mailbox.ExternalClashError:
            time.sleep(0.02)
    box.add('From: a@b\\n\\nbody\\n')
    box.flush()
    box.unlock()
    box.close()
    box = mailbox.mbox(sys.argv[1])
";

#[test]
fn mail_comes_is_read_and_goes() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("mail").unwrap();
    for kind in ["mbox", "maildir", "mh"] {
        said(&mut python(MAIL, &work, &[kind]));
    }
    let inbox = work.join("inbox");
    let both = [(); 2].map(|()| python(DELIVER, &inbox, &["6"]).spawn().unwrap());
    for mut program in both {
        assert!(program.wait().unwrap().success());
    }
    let text = fs::read_to_string(&inbox).unwrap();
    assert_eq!(text.matches("From: a@b\n\nbody\n").count(), 12);
    assert!(!work.join("inbox.lock").exists());
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn modules_are_compiled_once_until_they_change() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("modules").unwrap();
    fs::create_dir(work.join("package")).unwrap();
    fs::write(work.join("package/__init__.py"), "").unwrap();
    fs::write(work.join("package/inner.py"), "VALUE = 1\n").unwrap();
    let import = || {
        let mut command = Command::new("python3");
        command.args(["-v", "-c", "from package.inner import VALUE; print(VALUE)"]);
        let finished = run(
            LIMIT,
            command
                .env("PYTHONPATH", &work)
                .env_remove("PYTHONDONTWRITEBYTECODE"),
        )
        .unwrap()
        .ok()
        .unwrap();
        let (value, log) = (finished.text(), finished.stderr);
        let used = |line: &str| line.contains("inner.cpython") && line.contains(" matches ");
        (value, log.lines().any(used))
    };
    said(
        Command::new("python3")
            .args(["-m", "compileall", "-q"])
            .arg(&work),
    );
    assert_eq!(fs::read_dir(work.join("package/__pycache__")).unwrap().count(), 2);
    assert_eq!(import(), ("1\n".to_owned(), true), "as it was compiled");
    fs::write(work.join("package/inner.py"), "VALUE = 1000\n").unwrap();
    assert_eq!(import(), ("1000\n".to_owned(), false), "compiled anew");
    assert_eq!(import(), ("1000\n".to_owned(), true));
    fs::remove_dir_all(&work).unwrap();
}

/// A few files of a tree, with times of their own.
fn tree(root: &Path) {
    for folder in ["a", "a/b", "c"] {
        fs::create_dir(root.join(folder)).unwrap();
        for name in ["one", "two"] {
            let path = root.join(folder).join(name);
            fs::write(&path, format!("{folder} {name}\n").repeat(300)).unwrap();
            said(
                Command::new("touch")
                    .args(["-d", "2001-02-03 04:05:06"])
                    .arg(&path),
            );
        }
    }
    std::os::unix::fs::symlink("one", root.join("a/link")).unwrap();
}

#[test]
fn rsync_copies_once() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("rsync").unwrap();
    let local = tempfile::tempdir().unwrap();
    tree(local.path());
    let from = format!("{}/", local.path().display());
    let copy = |words: &[&str]| {
        let mut command = Command::new("rsync");
        command.args(words).arg(&from).arg(&work);
        run(LIMIT, &mut command).unwrap()
    };
    let all = copy(&["-rlti", "--delete"]).ok().unwrap().text();
    assert_eq!(all.matches(">f+++").count(), 6, "{all}");
    assert_eq!(
        copy(&["-rlti", "--delete"]).ok().unwrap().text(),
        "",
        "nothing has changed"
    );
    fs::write(local.path().join("c/one"), "new").unwrap();
    fs::remove_file(local.path().join("a/two")).unwrap();
    let some = copy(&["-rlti", "--delete", "--inplace"]).ok().unwrap().text();
    assert!(
        some.contains("c/one") && some.contains("deleting   a/two"),
        "{some}"
    );
    said(
        Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(local.path())
            .arg(&work),
    );
    // Owners are of the cell: whoever is root is told so.
    if rustix::process::geteuid().is_root() {
        let kept = copy(&["-a"]);
        assert!(
            kept.status.code() == Some(23) && kept.stderr.contains("chown"),
            "{}",
            kept.stderr
        );
        assert_eq!(
            copy(&["-ai", "--no-owner", "--no-group"]).ok().unwrap().text(),
            ""
        );
    }
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn editors_save_in_their_ways() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("editors").unwrap();
    let path = work.join("file");
    fs::write(&path, "one two\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    let is = |text: &str, who: &str| {
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{who}");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o750, "{who}");
        let names = fs::read_dir(&work)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    said(Command::new("sed").args(["-i", "s/one/1/"]).arg(&path));
    assert_eq!(is("1 two\n", "sed"), "file");
    let script = "printf '%s\\n' 's/two/2/' w q | ed -s \"$0\"";
    said(Command::new("sh").args(["-c", script]).arg(&path));
    assert_eq!(is("1 2\n", "ed"), "file");
    // A copy is kept and the file written, or the file is the copy and written anew.
    for (way, from, to) in [("yes", "1", "a"), ("no", "2", "b"), ("auto", "a", "c")] {
        let mut vim = Command::new("vim");
        vim.args(["-N", "-u", "NONE", "-i", "NONE", "-es", "-c"])
            .arg(format!("set backup backupskip= backupcopy={way}"))
            .args(["-c", &format!("s/{from}/{to}/"), "-c", "wq"])
            .env("TERM", "dumb");
        let before = fs::read_to_string(&path).unwrap();
        said(vim.arg(&path));
        assert_eq!(is(&before.replace(from, to), way), "file file~");
        assert_eq!(fs::read_to_string(work.join("file~")).unwrap(), before, "{way}");
    }
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn cargo_builds_once_under_its_locks() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("cargo").unwrap();
    let package = |name: &str, more: &str, file: &str, text: &str| {
        let at = work.join(name);
        fs::create_dir_all(at.join("src")).unwrap();
        let manifest =
            format!("[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2021\"\n{more}");
        fs::write(at.join("Cargo.toml"), manifest).unwrap();
        fs::write(at.join("src").join(file), text).unwrap();
    };
    fs::write(
        work.join("Cargo.toml"),
        "[workspace]\nmembers = [\"inner\", \"outer\"]\nresolver = \"2\"\n",
    )
    .unwrap();
    package("inner", "", "lib.rs", "pub const SAID: &str = \"hello\";\n");
    let needs = "[dependencies]\ninner = { path = \"../inner\" }\n";
    package(
        "outer",
        needs,
        "main.rs",
        "fn main() { println!(\"{}\", inner::SAID); }\n",
    );
    let build = || {
        let mut command = Command::new("cargo");
        command.args(["build", "--offline"]).current_dir(&work);
        for ours in [
            "CARGO_TARGET_DIR",
            "CARGO_MANIFEST_DIR",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            command.env_remove(ours);
        }
        command
    };
    // Two at once: one waits for the lock of the other.
    let mut other = build().stderr(Stdio::null()).spawn().unwrap();
    run_in(&work, LIMIT, &mut build()).unwrap().ok().unwrap();
    assert!(other.wait().unwrap().success());
    assert_eq!(
        said(&mut Command::new(work.join("target/debug/outer"))),
        "hello\n"
    );
    let again = run_in(&work, LIMIT, &mut build()).unwrap().ok().unwrap().stderr;
    assert!(!again.contains("Compiling"), "{again}");
    fs::remove_dir_all(&work).unwrap();
}
