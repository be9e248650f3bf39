//! Cells in DNS: SRV records (RFC 5864), then the older AFSDB records (RFC 1183).

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::CellName;

/// What DNS says of a cell.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: CellName,
    /// The location servers, best first.
    pub(super) servers: Vec<SocketAddrV4>,
}

/// Asks DNS. Fails with a clause that says why there is no answer. Bounded in time.
pub(super) async fn lookup(name: &CellName) -> Result<Found, String> {
    if !name.is_domain() {
        return Err("is no domain that DNS could be asked for".to_owned());
    }
    tokio::time::timeout(PATIENCE, ask(name))
        .await
        .unwrap_or_else(|_| Err("DNS did not answer".to_owned()))
}

async fn ask(name: &CellName) -> Result<Found, String> {
    let broken = |error: &dyn std::fmt::Display| format!("DNS cannot be asked ({error})");
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| broken(&error))?;
    let mut hosts = services(&resolver, name).await;
    if hosts.is_empty() {
        hosts = afsdb(&resolver, name).await;
    }
    let mut servers = Vec::new();
    for (host, port) in hosts.into_iter().take(SERVERS_MAX) {
        if let Ok(addresses) = resolver.lookup_ip(host).await {
            servers.extend(addresses.iter().filter_map(|address| match address {
                IpAddr::V4(address) if address != Ipv4Addr::UNSPECIFIED => {
                    Some(SocketAddrV4::new(address, port))
                }
                _ => None,
            }));
        }
    }
    if servers.is_empty() {
        return Err("DNS has no SRV or AFSDB record for it".to_owned());
    }
    Ok(Found {
        name: name.clone(),
        servers,
    })
}

/// `_afs3-vlserver._udp`, by priority and then by weight.
async fn services(resolver: &TokioResolver, name: &CellName) -> Vec<(Name, u16)> {
    let Ok(found) = resolver
        .lookup(format!("_afs3-vlserver._udp.{name}."), RecordType::SRV)
        .await
    else {
        return Vec::new();
    };
    let mut records: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        })
        .collect();
    records.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
    records
        .into_iter()
        .map(|srv| (srv.target.clone(), srv.port))
        .collect()
}

/// AFSDB records of subtype 1.
async fn afsdb(resolver: &TokioResolver, name: &CellName) -> Vec<(Name, u16)> {
    let Ok(found) = resolver.lookup(format!("{name}."), RecordType::from(AFSDB)).await else {
        return Vec::new();
    };
    let records = found.answers().iter().filter_map(|record| match &record.data {
        RData::Unknown { rdata, .. } => afsdb_host(&rdata.anything),
        _ => None,
    });
    records.map(|host| (host, VL_PORT)).collect()
}

/// A subtype, and a name without compression (RFC 3597 forbids it).
fn afsdb_host(data: &[u8]) -> Option<Name> {
    let (subtype, mut rest) = data.split_first_chunk()?;
    if u16::from_be_bytes(*subtype) != AFSDB_CELL {
        return None;
    }
    let mut labels = Vec::new();
    loop {
        let (len, after) = rest.split_first()?;
        if *len == 0 {
            return Name::from_labels(labels).ok();
        }
        let (label, after) = after.split_at_checked(usize::from(*len))?;
        labels.push(label);
        rest = after;
    }
}

const PATIENCE: Duration = Duration::from_secs(15);
const SERVERS_MAX: usize = 8;
const AFSDB: u16 = 18;
const AFSDB_CELL: u16 = 1;
const VL_PORT: u16 = 7003;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn afsdb_records_name_a_host() {
        let host = afsdb_host(b"\x00\x01\x03db1\x03lab\x07example\x00").unwrap();
        assert_eq!(host.to_ascii(), "db1.lab.example.");
        assert_eq!(afsdb_host(b"\x00\x02\x03db1\x00"), None, "DCE");
        assert_eq!(afsdb_host(b"\x00\x01\x09db1\x00"), None, "cut short");
        assert_eq!(afsdb_host(b"\x00"), None);
    }
}
