//! `afs aklog`, `afs tokens` and `afs unlog`: getting tokens for the mounts of this machine, seeing and dropping them.
//!
//! The machine: `aklog` takes a ticket-granting ticket from a credential cache, or gets one with a keytab, has the KDC
//! give a ticket for the cell's service, and hands it to every mount that will take it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use afs_client::auth::ccache::CcacheName;
use afs_client::auth::credential::{Credential, from_unix};
use afs_client::auth::kdc::KdcClient;
use afs_client::auth::keytab::Keytab;
use afs_client::auth::krb5_conf::Krb5Conf;
use afs_client::auth::localauth::ServerKey;
use afs_client::auth::{Principal, Token, names_of_service, realm_of_cell};
use afs_client::cell::{CellName, Cells, CellsConfig};
use clap::Args;
use rustix::fs::{Mode, OFlags};

use crate::ctl::client::ask_all;
use crate::ctl::offer::{Offer, Offered, Place};
use crate::ctl::{Held, Reply, Request};
use crate::failure::{Failure, Kind};

/// Options of `afs aklog`.
#[derive(Args, Clone, Debug)]
pub struct Aklog {
    /// The cell [default: the home cell]
    #[arg(short, long, value_name = "NAME", conflicts_with = "path")]
    pub cell: Option<String>,

    /// The realm of the cell [default: from krb5.conf, else the cell's name in upper case]
    #[arg(short = 'k', long, value_name = "NAME")]
    pub realm: Option<String>,

    /// The cell in which PATH is
    #[arg(short, long, value_name = "PATH")]
    pub path: Option<PathBuf>,

    /// Get a ticket with the key of --principal in this key table, not from the credential cache
    #[arg(long, value_name = "FILE", requires = "principal")]
    pub keytab: Option<PathBuf>,

    /// Whose key of --keytab is used
    #[arg(long, value_name = "NAME", requires = "keytab")]
    pub principal: Option<String>,

    /// Make the token with a key of the servers (KeyFileExt or KeyFile): for the servers of the databases and volumes
    #[arg(long, value_name = "KEYFILE", conflicts_with_all = ["keytab", "realm"])]
    pub localauth: Option<PathBuf>,

    /// Give the mounts this token alone: nothing with which they could get the next one
    #[arg(long)]
    pub no_renew: bool,

    /// Tell each step
    #[arg(short, long)]
    pub debug: bool,
}

/// Options of `afs tokens`.
#[derive(Args, Clone, Debug)]
pub struct Tokens {
    /// As JSON, one object per token
    #[arg(long)]
    pub json: bool,
}

/// Options of `afs unlog`.
#[derive(Args, Clone, Debug)]
pub struct Unlog {
    /// Only the token for this cell
    #[arg(short, long, value_name = "NAME")]
    pub cell: Option<String>,
}

/// Runs `afs aklog`.
pub fn aklog(options: &Aklog) -> ExitCode {
    ended(get_token(options))
}

/// Runs `afs tokens`.
pub fn tokens(options: &Tokens) -> ExitCode {
    ended(list(options))
}

/// Runs `afs unlog`.
pub fn unlog(options: &Unlog) -> ExitCode {
    ended(forget(options))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.show(),
    }
}

fn other(error: impl ToString) -> Failure {
    Failure::new(Kind::Other, error.to_string())
}

fn get_token(options: &Aklog) -> Result<(), Failure> {
    crate::secret::keep()?;
    let say = |what: &str| {
        if options.debug {
            println!("{what}");
        }
    };
    let cell = cell_of(options)?;
    say(&format!("Authenticating to cell {cell}."));
    let (token, offer, directory) = match &options.localauth {
        Some(file) => {
            say(&format!("Making a token with a key of {}.", file.display()));
            let token = ServerKey::read(file).and_then(|key| key.token(cell));
            (token.map_err(other)?, None, None)
        }
        None => from_kerberos(options, cell, &say)?,
    };
    let client = token.client.clone();
    let request = Request::SetToken(Box::new(token), offer.filter(|_| !options.no_renew));
    let along = directory.as_ref().map(OwnedFd::as_fd);
    let asked = ask_all(&request, along);
    let mut taken = false;
    for answer in &asked.answers {
        let at = answer.socket.display();
        if let Ok(Reply::Done) = &answer.reply {
            taken = true;
            say(&format!("Setting tokens: {client} at {at}."));
        } else {
            say(&format!("{at}: {}", answer.refusal()));
        }
    }
    if taken {
        Ok(())
    } else {
        Err(asked.nobody_does("takes the token"))
    }
}

/// A token for a ticket of a KDC, and what the next one can be had from.
fn from_kerberos(
    options: &Aklog,
    cell: CellName,
    say: &impl Fn(&str),
) -> Result<(Token, Option<Offer>, Option<OwnedFd>), Failure> {
    let listed = std::env::var("KRB5_CONFIG").ok();
    let conf = Krb5Conf::load(listed.as_deref()).map_err(other)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(other)?;
    let (origin, directory) = origin(options, &conf, say)?;
    let credential = runtime.block_on(ticket(options, &conf, &cell, &origin, say))?;
    let offer = Offer {
        service: credential.server.clone(),
        origin,
    };
    Ok((Token::from_credential(cell, &credential), Some(offer), directory))
}

/// The cell that a token is wanted for.
fn cell_of(options: &Aklog) -> Result<CellName, Failure> {
    if let Some(path) = &options.path {
        let mut name = [0_u8; 256];
        let len = rustix::fs::getxattr(path, "afs.cell", name.as_mut_slice()).map_err(|error| {
            Failure::new(Kind::Cell, format!("{} is in no cell: {error}", path.display()))
        })?;
        let name = String::from_utf8_lossy(name.get(..len).unwrap_or_default());
        return CellName::new(&name).map_err(other);
    }
    match &options.cell {
        Some(name) => CellName::new(name)
            .map_err(|_| Failure::new(Kind::Cell, format!("{name:?} is not the name of a cell"))),
        None => Cells::load(&CellsConfig::default())
            .map(|cells| cells.home().clone())
            .map_err(|error| Failure::new(Kind::Cell, error.to_string()).cure("name a cell with -c")),
    }
}

/// What proves who asks; with the directory, if there is one, in which a newer ticket will be.
fn origin(
    options: &Aklog,
    conf: &Krb5Conf,
    say: &impl Fn(&str),
) -> Result<(Offered, Option<OwnedFd>), Failure> {
    let (Some(keytab), Some(name)) = (&options.keytab, &options.principal) else {
        return from_cache(conf, say);
    };
    let principal = Principal::parse(name, conf.default_realm()).map_err(other)?;
    say(&format!("Using the key of {principal} in {}.", keytab.display()));
    let keys = Keytab::read(keytab).and_then(|keytab| keytab.keys_of(&principal));
    Ok((Offered::Keys(principal, keys.map_err(other)?), None))
}

fn from_cache(conf: &Krb5Conf, say: &impl Fn(&str)) -> Result<(Offered, Option<OwnedFd>), Failure> {
    let uid = rustix::process::geteuid().as_raw();
    let named = std::env::var("KRB5CCNAME").ok();
    let name = CcacheName::default_for(uid, named.as_deref(), conf).map_err(other)?;
    say(&format!("Reading {name}."));
    let found = name.read(conf).map_err(other)?;
    let granting = found
        .ticket_granting()
        .ok_or_else(|| other(format!("{name} holds no ticket-granting ticket")).cure("run kinit"))?;
    let (place, directory) = match &name {
        CcacheName::File(path) => beside(path).map_or((Place::Nowhere, None), |(file, directory)| {
            (Place::Beside(file), Some(directory))
        }),
        name => (Place::Named(name.to_string()), None),
    };
    Ok((Offered::Ticket(Box::new(granting.clone()), place), directory))
}

/// The name of a file, and the directory in which it is.
fn beside(path: &Path) -> Option<(OsString, OwnedFd)> {
    let name = path.file_name()?.to_owned();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory.unwrap_or_else(|| Path::new(".")), flags, Mode::empty());
    Some((name, directory.ok()?))
}

/// A ticket for the cell's service.
async fn ticket(
    options: &Aklog,
    conf: &Krb5Conf,
    cell: &CellName,
    origin: &Offered,
    say: &impl Fn(&str),
) -> Result<Credential, Failure> {
    let client = KdcClient::new(conf);
    let granting = match origin {
        Offered::Keys(principal, keys) => {
            say(&format!("Getting a ticket for {principal}."));
            client.initial(principal, keys).await.map_err(other)?
        }
        Offered::Ticket(granting, _) => (**granting).clone(),
    };
    let of_cell = realm_of_cell(conf, cell).await;
    let names = names_of_service(cell, options.realm.as_deref(), &granting.client.realm, &of_cell);
    let mut unknown = Vec::new();
    for name in &names {
        say(&format!("Getting tickets: {name}"));
        match client.service(&granting, name).await {
            Ok(credential) => return Ok(credential),
            Err(error) if error.is_unknown_service() => unknown.push(error.to_string()),
            Err(error) => return Err(other(error)),
        }
    }
    Err(other(unknown.join(", ")).cure("name the realm of the cell with -k"))
}

fn list(options: &Tokens) -> Result<(), Failure> {
    let mut held = Vec::new();
    for answer in ask_all(&Request::ListTokens, None).answers {
        if let Ok(Reply::Tokens(tokens)) = answer.reply {
            held.extend(tokens);
        }
    }
    held.sort();
    held.dedup();
    let text = if options.json {
        as_json(&held)
    } else {
        as_text(&held, SystemTime::now())
    };
    print!("{text}");
    Ok(())
}

fn forget(options: &Unlog) -> Result<(), Failure> {
    let cell = options.cell.as_deref().map(CellName::new).transpose();
    let cell = cell.map_err(|error| Failure::new(Kind::Cell, error.to_string()))?;
    for answer in ask_all(&Request::ForgetTokens(cell), None).answers {
        match answer.reply {
            Ok(Reply::Refused(why)) => {
                return Err(other(format!("{}: {why}", answer.socket.display())));
            }
            Err(error) => return Err(other(format!("{}: {error}", answer.socket.display()))),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// As OpenAFS's `tokens` shows them; times are UTC.
fn as_text(held: &[Held], now: SystemTime) -> String {
    let mut out = "\nTokens held by the Cache Manager:\n\n".to_owned();
    for token in held {
        let expires = if from_unix(token.expires) <= now {
            ">> Expired <<".to_owned()
        } else {
            format!("Expires {} UTC", day_and_time(token.expires))
        };
        let _ = writeln!(
            out,
            "{}'s tokens for afs@{} [{expires}] ({})",
            token.client, token.cell, token.owner
        );
    }
    out.push_str("   --End of list--\n");
    out
}

fn as_json(held: &[Held]) -> String {
    held.iter().fold(String::new(), |mut out, token| {
        // Strings and numbers can always be written.
        let _ = writeln!(out, "{}", serde_json::to_string(token).unwrap_or_default());
        out
    })
}

/// `Nov 28 17:04`, as Howard Hinnant's `civil_from_days` counts.
pub(crate) fn day_and_time(seconds: u32) -> String {
    let days = seconds / DAY + DAYS_BEFORE_1970;
    let of_era = days % DAYS_PER_ERA;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let name = usize::try_from(month).ok().and_then(|month| MONTHS.get(month));
    let minutes = seconds % DAY / 60;
    format!(
        "{} {day:2} {:02}:{:02}",
        name.unwrap_or(&"???"),
        minutes / 60,
        minutes % 60
    )
}

/// From the first of March of the year 0.
const DAYS_BEFORE_1970: u32 = 719_468;
const DAYS_PER_ERA: u32 = 146_097;
const DAY: u32 = 24 * 3600;
const MONTHS: [&str; 12] = [
    "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Vec<Held> {
        let held = |expires| Held {
            owner: "uid 1001".to_owned(),
            cell: "lab.example".to_owned(),
            client: "al\"ice@LAB".to_owned(),
            expires,
            renews: false,
        };
        vec![held(1_000), held(1_709_251_140)]
    }

    #[test]
    fn tokens_are_listed_in_the_classic_form() {
        let now = from_unix(1_700_000_000);
        assert_eq!(
            as_text(&held(), now),
            "\nTokens held by the Cache Manager:\n\n\
             al\"ice@LAB's tokens for afs@lab.example [>> Expired <<] (uid 1001)\n\
             al\"ice@LAB's tokens for afs@lab.example [Expires Feb 29 23:59 UTC] (uid 1001)\n   --End of list--\n"
        );
        assert_eq!(
            as_json(&held()).lines().next(),
            Some(
                r#"{"owner":"uid 1001","cell":"lab.example","principal":"al\"ice@LAB","expires":1000,"renews":false}"#
            )
        );
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Jan  1 00:00"),
            (951_782_400, "Feb 29 00:00"),
            (1_764_349_440, "Nov 28 17:04"),
            (u32::MAX, "Feb  7 06:28"),
        ] {
            assert_eq!(day_and_time(seconds), expected);
        }
    }
}
