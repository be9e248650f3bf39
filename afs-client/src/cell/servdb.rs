//! The `CellServDB` file: cells and their database servers.
//!
//! ```text
//! >lab.example  linked.example   # A laboratory
//! 192.0.2.1       #db1.lab.example
//! [192.0.2.2]     #db2.lab.example (does not vote; asked like any other)
//! ```

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::CellName;

/// The cells of one or more `CellServDB` files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CellServDb {
    cells: Vec<CellEntry>,
}

/// One cell of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellEntry {
    /// Its name.
    pub name: CellName,
    /// The cell it says it is linked with.
    pub linked: Option<CellName>,
    /// What the comment says about it.
    pub description: String,
    /// Its database servers, in the order of the file.
    pub servers: Vec<DbServer>,
}

/// A database server of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbServer {
    /// Where it is.
    pub address: Ipv4Addr,
    /// Its name according to the comment.
    pub host: Option<String>,
    /// True if it is marked as one that has no vote.
    pub clone: bool,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {problem}", file.display())]
pub struct BadLine {
    /// The file.
    pub file: PathBuf,
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: LineProblem,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// `>` is not followed by the name of a cell.
    #[error("{0:?} is not the name of a cell")]
    Cell(String),
    /// The line of a server does not begin with an IPv4 address.
    #[error("{0:?} is not an IPv4 address")]
    Address(String),
    /// A server before the first cell.
    #[error("a server stands before the first cell")]
    NoCell,
    /// Something behind the address or names that is no comment.
    #[error("{0:?} is neither address nor comment")]
    Trailing(String),
}

impl CellServDb {
    /// Reads the text of a file; `file` is only for messages. Bytes that are not UTF-8 may stand in comments.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &[u8], file: &Path) -> Result<Self, BadLine> {
        let mut db = Self::default();
        let mut current: Option<CellEntry> = None;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let bad = |problem| BadLine {
                file: file.to_owned(),
                line: index + 1,
                problem,
            };
            let (words, comment) = match line.split_once('#') {
                Some((words, comment)) => (words.trim(), Some(comment.trim())),
                None => (line.trim(), None),
            };
            if let Some(names) = words.strip_prefix('>') {
                db.cells.extend(current.take());
                current = Some(cell_line(names, comment).map_err(bad)?);
            } else if !words.is_empty() {
                let cell = current.as_mut().ok_or(LineProblem::NoCell).map_err(bad)?;
                cell.servers.push(server_line(words, comment).map_err(bad)?);
            }
        }
        db.cells.extend(current);
        Ok(db)
    }

    /// The entry of a cell; the last one if there are several.
    #[must_use]
    pub fn cell(&self, name: &CellName) -> Option<&CellEntry> {
        self.cells.iter().rev().find(|cell| cell.name == *name)
    }

    /// Every cell, each once, with its last entry.
    pub fn cells(&self) -> impl Iterator<Item = &CellEntry> {
        let last =
            |(index, cell): (usize, &_)| self.cells.iter().skip(index + 1).all(|later| !same(later, cell));
        self.cells
            .iter()
            .enumerate()
            .filter(move |(index, cell)| last((*index, *cell)))
            .map(|(_, cell)| cell)
    }

    /// Adds the cells of another file. Its entries count more than the ones here.
    pub fn extend(&mut self, other: Self) {
        self.cells.extend(other.cells);
    }
}

fn same(one: &CellEntry, other: &CellEntry) -> bool {
    one.name == other.name
}

fn cell_line(names: &str, comment: Option<&str>) -> Result<CellEntry, LineProblem> {
    let mut names = names.split_whitespace();
    let name = |text: &str| CellName::new(text).map_err(|_| LineProblem::Cell(text.to_owned()));
    let entry = CellEntry {
        name: name(names.next().unwrap_or(""))?,
        linked: names.next().map(name).transpose()?,
        description: comment.unwrap_or("").to_owned(),
        servers: Vec::new(),
    };
    names
        .next()
        .map_or(Ok(entry), |more| Err(LineProblem::Trailing(more.to_owned())))
}

fn server_line(words: &str, comment: Option<&str>) -> Result<DbServer, LineProblem> {
    let (address, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
    if !rest.trim().is_empty() {
        return Err(LineProblem::Trailing(rest.trim().to_owned()));
    }
    let inner = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'));
    Ok(DbServer {
        address: inner
            .unwrap_or(address)
            .parse()
            .map_err(|_| LineProblem::Address(address.to_owned()))?,
        host: comment
            .and_then(|comment| comment.split_whitespace().next())
            .map(str::to_owned),
        clone: inner.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<CellServDb, BadLine> {
        CellServDb::parse(text.as_bytes(), Path::new("CellServDB"))
    }

    #[test]
    fn cells_and_servers_are_read() {
        let db = CellServDb::parse(
            b"# local changes\n\n>Lab.example other.example #The lab, caf\xe9\r\n192.0.2.1 #db1.lab.example\r\n\
              [192.0.2.2]\t# db2 it says\n>alone.example\n",
            Path::new("x"),
        )
        .unwrap();
        let lab = db.cell(&CellName::new("lab.example").unwrap()).unwrap();
        assert_eq!(lab.linked, Some(CellName::new("other.example").unwrap()));
        assert_eq!(lab.description, "The lab, caf\u{fffd}");
        assert_eq!(lab.servers[0].address, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(lab.servers[1].host.as_deref(), Some("db2"));
        assert_eq!((lab.servers[0].clone, lab.servers[1].clone), (false, true));
        assert_eq!(db.cells().count(), 2);
    }

    #[test]
    fn the_last_entry_of_a_cell_counts() {
        let mut db = parse(">a.b\n192.0.2.1 #x\n>c.d\n>a.b\n192.0.2.2 #y\n").unwrap();
        let address = |db: &CellServDb| db.cell(&CellName::new("a.b").unwrap()).unwrap().servers[0].address;
        assert_eq!(address(&db), Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(db.cells().count(), 2);
        db.extend(parse(">a.b\n192.0.2.3").unwrap());
        assert_eq!(address(&db), Ipv4Addr::new(192, 0, 2, 3));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, message) in [
            (
                ">a.b\n192.0.2 #x",
                "CellServDB:2: \"192.0.2\" is not an IPv4 address",
            ),
            ("\n>", "CellServDB:2: \"\" is not the name of a cell"),
            (">a/b", "CellServDB:1: \"a/b\" is not the name of a cell"),
            (
                "192.0.2.1 #x\n>a",
                "CellServDB:1: a server stands before the first cell",
            ),
            (
                ">a\n192.0.2.1 x",
                "CellServDB:2: \"x\" is neither address nor comment",
            ),
            (">a b c", "CellServDB:1: \"c\" is neither address nor comment"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn random_text_is_harmless(text in "[>#\\[\\]a-c0-2. \n]{0,200}") {
            let _ = parse(&text);
        }
    }
}
