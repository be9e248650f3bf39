//! The configuration of Kerberos (`krb5.conf`), as far as it is needed here.
//!
//! The machine: sections hold relations, `key = value` or `key = {` with relations of its own up to `}`. Files are read
//! one after another, each with what it includes; what is found first counts. A file that is not there is empty.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Krb5Conf {
    sections: Vec<(String, Vec<Relation>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Relation {
    key: String,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Block(Vec<Relation>),
}

/// A file that cannot be read or understood.
#[derive(Debug, thiserror::Error)]
pub enum Krb5ConfError {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A line makes no sense.
    #[error("{}:{line}: {what}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Krb5Conf {
    /// Reads the files in `list`, apart by colons (as in `KRB5_CONFIG`); the system's file if it is `None`.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or a line makes no sense.
    pub fn load(list: Option<&str>) -> Result<Self, Krb5ConfError> {
        let mut conf = Self::default();
        for file in list
            .unwrap_or(SYSTEM_FILE)
            .split(':')
            .filter(|file| !file.is_empty())
        {
            match std::fs::read(file) {
                Ok(text) => conf.parse(&text, Path::new(file), 0)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let file = file.into();
                    return Err(Krb5ConfError::Io { file, error });
                }
            }
        }
        Ok(conf)
    }

    /// What this text, that of `file`, says, with the files that it includes.
    ///
    /// # Errors
    ///
    /// As those of [`load`](Self::load).
    pub fn from_bytes(text: &[u8], file: &Path) -> Result<Self, Krb5ConfError> {
        let mut conf = Self::default();
        conf.parse(text, file, 0)?;
        Ok(conf)
    }

    /// What this text, of no file, says.
    ///
    /// # Panics
    ///
    /// It makes no sense.
    #[cfg(test)]
    pub(crate) fn from_text(text: &str) -> Self {
        Self::from_bytes(text.as_bytes(), Path::new("test")).unwrap()
    }

    fn parse(&mut self, text: &[u8], file: &Path, depth: usize) -> Result<(), Krb5ConfError> {
        let text = String::from_utf8_lossy(text);
        // The blocks that are open, from the outermost.
        let mut open: Vec<Relation> = Vec::new();
        let mut section: Option<usize> = None;
        let mut last = 0;
        for (index, line) in text.lines().enumerate() {
            last = index + 1;
            let bad = |what| Krb5ConfError::Line {
                file: file.to_owned(),
                line: index + 1,
                what,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some((word, path)) = line.split_once(char::is_whitespace)
                && matches!(word, "include" | "includedir")
                && open.is_empty()
            {
                if depth == DEPTH {
                    return Err(bad("files include each other too deep"));
                }
                self.include(word, Path::new(path.trim()), depth + 1)?;
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                if !open.is_empty() {
                    return Err(bad("a section inside a block: a `}' is missing"));
                }
                let (name, _) = name.split_once(']').ok_or_else(|| bad("a `]' is missing"))?;
                section = Some(self.section_at(name.trim()));
                continue;
            }
            let done = if line.starts_with('}') {
                open.pop().ok_or_else(|| bad("a `}' that closes nothing"))?
            } else {
                let (key, value) = line.split_once('=').ok_or_else(|| bad("a `=' is missing"))?;
                let key = key.trim().trim_end_matches('*').to_owned();
                if key.is_empty() {
                    return Err(bad("a key is missing"));
                }
                let value = value.trim();
                // What follows the brace in its line is ignored, as MIT's library does.
                if value.starts_with('{') {
                    if open.len() == DEPTH {
                        return Err(bad("blocks are nested too deep"));
                    }
                    let value = Value::Block(Vec::new());
                    open.push(Relation { key, value });
                    continue;
                }
                let value = Value::Text(unquoted(value).to_owned());
                Relation { key, value }
            };
            match open.last_mut() {
                Some(Relation {
                    value: Value::Block(inner),
                    ..
                }) => inner.push(done),
                _ => {
                    let at = section.ok_or_else(|| bad("a relation outside of any section"))?;
                    if let Some((_, relations)) = self.sections.get_mut(at) {
                        relations.push(done);
                    }
                }
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        Err(Krb5ConfError::Line {
            file: file.to_owned(),
            line: last,
            what: "the file ends inside a block: a `}' is missing",
        })
    }

    fn include(&mut self, word: &str, path: &Path, depth: usize) -> Result<(), Krb5ConfError> {
        let io = |error| Krb5ConfError::Io {
            file: path.to_owned(),
            error,
        };
        let mut files = vec![path.to_owned()];
        if word == "includedir" {
            let entries = std::fs::read_dir(path).map_err(io)?;
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            files = paths.collect::<Result<_, _>>().map_err(io)?;
            files.retain(|file| file.is_file() && is_included(file));
            files.sort();
        }
        for file in files {
            let text = read_plain(&file).map_err(|error| Krb5ConfError::Io {
                file: file.clone(),
                error,
            })?;
            self.parse(&text, &file, depth)?;
        }
        Ok(())
    }

    fn section_at(&mut self, name: &str) -> usize {
        let known = self.sections.iter().position(|(known, _)| known == name);
        known.unwrap_or_else(|| {
            self.sections.push((name.to_owned(), Vec::new()));
            self.sections.len() - 1
        })
    }

    fn section(&self, name: &str) -> &[Relation] {
        let found = self.sections.iter().find(|(known, _)| known == name);
        found.map_or(&[], |(_, relations)| relations)
    }

    /// A setting of the section `libdefaults`.
    #[must_use]
    pub fn default_of(&self, key: &str) -> Option<&str> {
        texts(self.section("libdefaults"), key).next()
    }

    /// A setting of the section `libdefaults` that is yes or no.
    #[must_use]
    pub fn flag(&self, key: &str, otherwise: bool) -> bool {
        match self.default_of(key) {
            Some(word) => matches!(
                word.to_ascii_lowercase().as_str(),
                "y" | "yes" | "true" | "t" | "1" | "on"
            ),
            None => otherwise,
        }
    }

    /// The realm that names without one belong to.
    #[must_use]
    pub fn default_realm(&self) -> Option<&str> {
        self.default_of("default_realm")
    }

    /// The key distribution centers of a realm, as they are written.
    pub fn kdcs<'a>(&'a self, realm: &'a str) -> impl Iterator<Item = &'a str> {
        let blocks = self
            .section("realms")
            .iter()
            .filter(move |block| block.key == realm);
        blocks
            .filter_map(|block| match &block.value {
                Value::Block(relations) => Some(relations),
                Value::Text(_) => None,
            })
            .flat_map(|relations| texts(relations, "kdc"))
    }

    /// The realm of a host or a cell by the section `domain_realm`: of itself, else of the nearest domain that is named.
    #[must_use]
    pub fn realm_of(&self, host: &str) -> Option<&str> {
        let host = host.to_ascii_lowercase();
        let map = self.section("domain_realm");
        let named = |name: &str| {
            let of_name = map
                .iter()
                .find(|relation| relation.key.eq_ignore_ascii_case(name))?;
            match &of_name.value {
                Value::Text(realm) => Some(realm.as_str()),
                Value::Block(_) => None,
            }
        };
        let mut rest = host.as_str();
        loop {
            if let Some(realm) = named(rest) {
                return Some(realm);
            }
            let dot = rest.find('.')?;
            let (_, domain) = rest.split_at(dot);
            if let Some(realm) = named(domain) {
                return Some(realm);
            }
            rest = domain.trim_start_matches('.');
        }
    }
}

/// The values of a key that are texts.
fn texts<'a>(relations: &'a [Relation], key: &str) -> impl Iterator<Item = &'a str> {
    relations
        .iter()
        .filter(move |relation| relation.key == key)
        .filter_map(|relation| match &relation.value {
            Value::Text(text) => Some(text.as_str()),
            Value::Block(_) => None,
        })
}

fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(value)
}

/// What is in an included file. It is looked at before it is opened, since opening a device may do something, and again
/// after, since it may be another one by then; nothing of it waits.
fn read_plain(file: &Path) -> io::Result<Vec<u8>> {
    let check = |meta: &std::fs::Metadata| match (meta.is_file(), meta.len() <= MAX_INCLUDED) {
        (true, true) => Ok(()),
        (false, _) => Err(io::Error::other("only plain files are included")),
        (true, false) => Err(io::Error::other("more than 1 MiB is not included")),
    };
    check(&std::fs::metadata(file)?)?;
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let opened = OpenOptions::new().read(true).custom_flags(nonblock).open(file)?;
    check(&opened.metadata()?)?;
    let mut text = Vec::new();
    opened.take(MAX_INCLUDED).read_to_end(&mut text)?;
    Ok(text)
}

/// Names that are read from a directory: no copies of editors and packagers.
fn is_included(file: &Path) -> bool {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let plain = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    plain(name) || (name.ends_with(".conf") && !name.starts_with('.'))
}

const SYSTEM_FILE: &str = "/etc/krb5.conf";
/// How deep files and blocks may be inside each other.
const DEPTH: usize = 10;
/// The longest file that is included, in bytes.
const MAX_INCLUDED: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Krb5Conf, Krb5ConfError> {
        let mut conf = Krb5Conf::default();
        conf.parse(text.as_bytes(), Path::new("krb5.conf"), 0)?;
        Ok(conf)
    }

    #[test]
    fn what_is_asked_for_is_found() {
        let conf = parsed(
            "# comment\n[libdefaults]\n default_realm = LAB.EXAMPLE\n dns_lookup_kdc = No\n\
             default_ccache_name = \"KEYRING:persistent:%{uid}\"\n\
             [realms]\n LAB.EXAMPLE = { # here\n  kdc = a.lab.example:88\n  kdc = tcp/b.lab.example\n\
             admin = { x = y\n }\n kdc = c\n }\n OTHER = {\n kdc = d\n }\n\
             [domain_realm]\n .lab.example = LAB.EXAMPLE\n host.lab.example = OTHER\n corp.example = CORP\n\
             [libdefaults]\n default_realm = LATER\n",
        )
        .unwrap();
        assert_eq!(conf.default_realm(), Some("LAB.EXAMPLE"));
        assert!(!conf.flag("dns_lookup_kdc", true) && conf.flag("rdns", true));
        assert_eq!(
            conf.default_of("default_ccache_name"),
            Some("KEYRING:persistent:%{uid}")
        );
        let kdcs: Vec<_> = conf.kdcs("LAB.EXAMPLE").collect();
        // `admin` opens a block in which `x` is not read: what follows a brace is ignored.
        assert_eq!(kdcs, ["a.lab.example:88", "tcp/b.lab.example", "c"]);
        assert_eq!(conf.kdcs("NONE").count(), 0);
        for (host, realm) in [
            ("fs.lab.example", Some("LAB.EXAMPLE")),
            ("Host.Lab.Example", Some("OTHER")),
            ("lab.example", None),
            ("a.b.corp.example", Some("CORP")),
            ("corp.example", Some("CORP")),
            ("elsewhere", None),
        ] {
            assert_eq!(conf.realm_of(host), realm, "{host}");
        }
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, expected) in [
            ("[x]\nno relation", "krb5.conf:2: a `=' is missing"),
            ("a = b", "krb5.conf:1: a relation outside of any section"),
            ("[x]\n}", "krb5.conf:2: a `}' that closes nothing"),
            (
                "[x]\na = {\n b = c\n",
                "krb5.conf:3: the file ends inside a block: a `}' is missing",
            ),
            (
                "[x]\na = {\n[y]",
                "krb5.conf:3: a section inside a block: a `}' is missing",
            ),
            ("[x", "krb5.conf:1: a `]' is missing"),
            ("[x]\n = y", "krb5.conf:2: a key is missing"),
        ] {
            assert_eq!(parsed(text).unwrap_err().to_string(), expected);
        }
        let deep = format!("[x]\n{}", "a = {\n".repeat(1000));
        assert!(parsed(&deep).unwrap_err().to_string().contains("too deep"));
    }

    #[test]
    fn files_include_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        for (name, text) in [
            ("d/one", "[libdefaults]\ndefault_realm = ONE\n"),
            ("d/two.conf", "[libdefaults]\ndefault_realm = TWO\nrdns = no\n"),
            ("d/two.conf~", "nonsense"),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        let text = format!(
            "includedir {}\n[realms]\nR = {{\nkdc = k\n}}\n",
            path("d").display()
        );
        std::fs::write(path("main"), text).unwrap();
        std::fs::write(path("loop"), format!("include {}\n", path("loop").display())).unwrap();
        let list = format!("/nonexistent:{}", path("main").display());
        let conf = Krb5Conf::load(Some(&list)).unwrap();
        assert_eq!(conf.default_realm(), Some("ONE"));
        assert!(!conf.flag("rdns", true));
        assert_eq!(conf.kdcs("R").collect::<Vec<_>>(), ["k"]);
        let error = Krb5Conf::load(path("loop").to_str()).unwrap_err().to_string();
        assert!(
            error.ends_with("loop:1: files include each other too deep"),
            "{error}"
        );
    }

    #[test]
    fn only_plain_files_of_bounded_size_are_included() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, long, main) = (
            dir.path().join("fifo"),
            dir.path().join("long"),
            dir.path().join("main"),
        );
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        std::fs::File::create(&long)
            .unwrap()
            .set_len(MAX_INCLUDED + 1)
            .unwrap();
        for (file, why) in [
            (fifo.as_path(), "only plain files are included"),
            (Path::new("/dev/zero"), "only plain files are included"),
            (long.as_path(), "more than 1 MiB is not included"),
        ] {
            std::fs::write(&main, format!("include {}\n", file.display())).unwrap();
            let error = Krb5Conf::load(main.to_str()).unwrap_err().to_string();
            assert_eq!(error, format!("{}: {why}", file.display()));
        }
    }
}
