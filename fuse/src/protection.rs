//! How calls with a token are protected: what `--security`, `--min-security`, `--expired` and `--token-wait` say together.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use afs_client::auth::TokenRules;
use afs_client::cell::CellName;
use clap::{Args, ValueEnum};
use rxrpc::proto::Level;

use crate::failure::{Failure, Kind};

/// The options of `afs mount` about tokens.
#[derive(Args, Clone, Debug)]
pub struct Protection {
    /// How calls with a token are protected: `crypt' (nobody reads or changes them), `auth' (nobody changes them) or `clear'
    /// (only who calls is proved); CELL=LEVEL for one cell, may be given several times [default: crypt]
    #[arg(
        long,
        env = "AFS_SECURITY",
        value_name = "[CELL=]LEVEL",
        value_delimiter = ','
    )]
    pub security: Vec<Wish>,

    /// Make no call to a file server that is less protected, nor any without a token
    #[arg(long, env = "AFS_MIN_SECURITY", value_name = "LEVEL", value_enum)]
    pub min_security: Option<Name>,

    /// What who has a token that has expired may read: nothing, or what everybody may
    #[arg(long, env = "AFS_EXPIRED", value_name = "WHAT", value_enum, default_value_t)]
    pub expired: Expired,

    /// How long a write waits for a new token when the old one has expired, before close() reports EKEYEXPIRED
    #[arg(
        long,
        env = "AFS_TOKEN_WAIT",
        value_name = "SECS",
        default_value = "600",
        value_parser = clap::value_parser!(u64).range(..=604_800)
    )]
    pub token_wait: u64,
}

/// The names of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Only who calls is proved.
    Clear,
    /// Nobody can change what is sent.
    Auth,
    /// Nobody can read or change what is sent.
    Crypt,
}

impl Name {
    const fn level(self) -> Level {
        match self {
            Self::Clear => Level::Clear,
            Self::Auth => Level::Auth,
            Self::Crypt => Level::Crypt,
        }
    }
}

/// What remains when a token has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Expired {
    /// Every call fails with EKEYEXPIRED.
    #[default]
    Refuse,
    /// Reading goes on as nobody.
    Anonymous,
}

/// A level, for one cell or for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    cell: Option<CellName>,
    level: Level,
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cell, name) = match text.split_once('=') {
            Some((cell, name)) => (Some(cell), name),
            None => (None, text),
        };
        let cell = cell.map(CellName::new).transpose();
        Ok(Self {
            cell: cell.map_err(|error| error.to_string())?,
            level: Name::from_str(name, false)
                .map_err(|_| "write clear, auth or crypt, or CELL=LEVEL".to_owned())?
                .level(),
        })
    }
}

impl Protection {
    /// The rules that they make.
    pub fn rules(&self) -> Result<TokenRules, Failure> {
        let mut rules = TokenRules {
            min: self.min_security.map(Name::level),
            expired_read_as_nobody: self.expired == Expired::Anonymous,
            patience: Duration::from_secs(self.token_wait),
            krb5_config: std::env::var("KRB5_CONFIG").ok(),
            level: Level::default(),
            levels: HashMap::new(),
        };
        for wish in &self.security {
            if rules.min.is_some_and(|min| wish.level < min) {
                let of = wish.cell.as_ref().map(|cell| format!(" for cell {cell}"));
                let what = format!("--security{} is below --min-security", of.unwrap_or_default());
                return Err(Failure::new(Kind::Usage, what).cure("change one of the two"));
            }
            match &wish.cell {
                Some(cell) => drop(rules.levels.insert(cell.clone(), wish.level)),
                None => rules.level = wish.level,
            }
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protection(security: &[&str], min: Option<Name>) -> Protection {
        Protection {
            security: security.iter().map(|text| text.parse().unwrap()).collect(),
            min_security: min,
            expired: Expired::Refuse,
            token_wait: 7,
        }
    }

    #[test]
    fn wishes_are_for_one_cell_or_for_all() {
        let rules = protection(&["auth", "a.b=clear"], None).rules().unwrap();
        let cell = CellName::new("a.b").unwrap();
        assert_eq!((rules.level, rules.levels[&cell]), (Level::Auth, Level::Clear));
        assert_eq!(protection(&[], None).rules().unwrap().level, Level::Crypt);
        for wrong in ["", "x", "=auth", "a.b=", "a.b=x", "/=auth"] {
            assert!(wrong.parse::<Wish>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_minimum_refuses_less() {
        let rules = protection(&["crypt"], Some(Name::Crypt)).rules().unwrap();
        assert_eq!(rules.min, Some(Level::Crypt));
        let refused = protection(&["a.b=auth"], Some(Name::Crypt)).rules();
        assert_eq!(
            refused.unwrap_err().to_string(),
            "--security for cell a.b is below --min-security; change one of the two"
        );
    }
}
