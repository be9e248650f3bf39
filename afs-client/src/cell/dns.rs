//! Cells in DNS: SRV records (RFC 5864), then the older AFSDB records (RFC 1183).

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
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

/// Hosts and ports of a service, by its SRV records. Fails with a clause that says why there are none. Bounded in time.
pub(crate) async fn services_of(name: &str) -> Result<Vec<(String, u16)>, String> {
    let asked = async { services(&resolver()?, name.to_owned()).await };
    let found = tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err("DNS did not answer".to_owned()))?;
    if found.is_empty() {
        return Err(format!("DNS has no SRV record of {name}"));
    }
    Ok(found
        .into_iter()
        .map(|(host, port)| (host.to_ascii(), port))
        .collect())
}

/// The realm of a domain by its TXT records at `_kerberos`, or by those of the nearest domain above it that has some.
/// Bounded in time.
pub(crate) async fn realm_of_domain(domain: &str) -> Option<String> {
    let asked = async { realm(&resolver().ok()?, domain).await };
    tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
}

async fn realm(resolver: &TokioResolver, domain: &str) -> Option<String> {
    let mut left = Some(domain).filter(|domain| domain.contains('.'));
    while let Some(domain) = left {
        let found = records(resolver, format!("_kerberos.{domain}."), RecordType::TXT).await;
        let realm = found.ok()?.into_iter().find_map(|data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(text.txt_data.first()?).into_owned()),
            _ => None,
        });
        if let Some(realm) = realm.filter(|realm| is_realm(realm)) {
            return Some(realm);
        }
        left = domain.split_once('.').map(|(_, above)| above);
    }
    None
}

/// A word that can be written in a line.
fn is_realm(text: &str) -> bool {
    !text.is_empty() && text.len() <= REALM_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

async fn ask(name: &CellName) -> Result<Found, String> {
    find(&resolver()?, name).await
}

fn resolver() -> Result<TokioResolver, String> {
    TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(unanswered)
}

async fn find(resolver: &TokioResolver, name: &CellName) -> Result<Found, String> {
    let mut hosts = services(resolver, format!("_afs3-vlserver._udp.{name}.")).await?;
    if hosts.is_empty() {
        hosts = afsdb(resolver, name).await?;
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
        return Err("DNS has no SRV or AFSDB record that leads to a server".to_owned());
    }
    Ok(Found {
        name: name.clone(),
        servers,
    })
}

/// The records of a name; none if it is known that there are none.
async fn records(resolver: &TokioResolver, name: String, of: RecordType) -> Result<Vec<RData>, String> {
    match resolver.lookup(name, of).await {
        Ok(found) => Ok(found.answers().iter().map(|record| record.data.clone()).collect()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(unanswered(error)),
    }
}

fn unanswered(error: NetError) -> String {
    format!("DNS cannot be asked ({error})")
}

/// SRV records, by priority and then by weight.
async fn services(resolver: &TokioResolver, name: String) -> Result<Vec<(Name, u16)>, String> {
    let found = records(resolver, name, RecordType::SRV).await?;
    let mut services: Vec<_> = found
        .into_iter()
        .filter_map(|data| match data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        })
        .collect();
    services.sort_by_key(|srv| (srv.priority, std::cmp::Reverse(srv.weight)));
    Ok(services.into_iter().map(|srv| (srv.target, srv.port)).collect())
}

/// AFSDB records of subtype 1.
async fn afsdb(resolver: &TokioResolver, name: &CellName) -> Result<Vec<(Name, u16)>, String> {
    let found = records(resolver, format!("{name}."), RecordType::from(AFSDB)).await?;
    let hosts = found.into_iter().filter_map(|data| match data {
        RData::Unknown { rdata, .. } => afsdb_host(&rdata.anything),
        _ => None,
    });
    Ok(hosts.map(|host| (host, VL_PORT)).collect())
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

/// Longer ones are no realms of anybody.
const REALM_MAX: usize = 255;
const PATIENCE: Duration = Duration::from_secs(15);
const SERVERS_MAX: usize = 8;
const AFSDB: u16 = 18;
const AFSDB_CELL: u16 = 1;
const VL_PORT: u16 = 7003;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, NULL, SRV, TXT};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn srv(priority: u16, weight: u16, host: &str) -> RData {
        RData::SRV(SRV::new(priority, weight, 7003, name(host)))
    }

    fn address(last: u8) -> RData {
        RData::A(A::new(192, 0, 2, last))
    }

    /// What a name server with these records makes known of a cell.
    async fn found_in(zone: Vec<(&'static str, RData)>, cell: &str) -> Result<Vec<SocketAddrV4>, String> {
        let cell = CellName::new(cell).unwrap();
        let found = find(&asking(zone), &cell).await;
        found.map(|found| found.servers)
    }

    /// One that asks a name server with these records.
    fn asking(zone: Vec<(&'static str, RData)>) -> TokioResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut connection = ConnectionConfig::udp();
        connection.port = socket.local_addr().unwrap().port();
        let mut server = NameServerConfig::udp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        server.connections = vec![connection];
        // Ends with the test.
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
                let question = Message::from_vec(&buffer[..len]).unwrap();
                let query = question.queries[0].clone();
                let mut answer = question.into_response();
                for (owner, data) in &zone {
                    if name(owner) == *query.name() && data.record_type() == query.query_type() {
                        answer.add_answer(Record::from_rdata(name(owner), 60, data.clone()));
                    }
                }
                if answer.answers.is_empty() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
            }
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn a_realm_is_that_of_the_nearest_domain_that_names_one() {
        let text = |text: &str| RData::TXT(TXT::new(vec![text.to_owned()]));
        let resolver = asking(vec![
            ("_kerberos.lab.example.", text("LAB.REALM")),
            ("_kerberos.sub.corp.example.", text("two words")),
            ("_kerberos.corp.example.", text("CORP")),
        ]);
        for (domain, expected) in [
            ("lab.example", Some("LAB.REALM")),
            ("a.b.lab.example", Some("LAB.REALM")),
            ("sub.corp.example", Some("CORP")),
            ("other.example", None),
            ("example", None),
            ("", None),
        ] {
            assert_eq!(realm(&resolver, domain).await.as_deref(), expected, "{domain:?}");
        }
    }

    fn servers(last: impl IntoIterator<Item = u8>) -> Vec<SocketAddrV4> {
        last.into_iter()
            .map(|last| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), 7003))
            .collect()
    }

    #[tokio::test]
    async fn services_come_by_priority_and_weight() {
        let owner = "_afs3-vlserver._udp.lab.example.";
        let zone = vec![
            (owner, srv(20, 0, "db3.lab.example.")),
            (owner, srv(10, 1, "db2.lab.example.")),
            (owner, srv(10, 9, "db1.lab.example.")),
            ("db1.lab.example.", address(1)),
            ("db2.lab.example.", address(2)),
            ("db3.lab.example.", address(3)),
            (
                "lab.example.",
                afsdb_record(b"\x00\x01\x03db9\x03lab\x07example\x00"),
            ),
        ];
        assert_eq!(found_in(zone, "lab.example").await, Ok(servers([1, 2, 3])));
    }

    #[tokio::test]
    async fn afsdb_comes_second() {
        let zone = vec![
            (
                "lab.example.",
                afsdb_record(b"\x00\x01\x03db1\x03lab\x07example\x00"),
            ),
            ("db1.lab.example.", address(1)),
        ];
        assert_eq!(found_in(zone, "lab.example").await, Ok(servers([1])));
    }

    #[tokio::test]
    async fn a_domain_without_servers_is_no_cell() {
        let zone = vec![("www.example.", address(1))];
        let why = found_in(zone, "lab.example").await.unwrap_err();
        assert!(why.contains("no SRV or AFSDB"), "{why}");
    }

    fn afsdb_record(data: &[u8]) -> RData {
        RData::Unknown {
            code: RecordType::from(AFSDB),
            rdata: NULL::with(data.to_vec()),
        }
    }

    #[test]
    fn afsdb_records_name_a_host() {
        let host = afsdb_host(b"\x00\x01\x03db1\x03lab\x07example\x00").unwrap();
        assert_eq!(host.to_ascii(), "db1.lab.example.");
        assert_eq!(afsdb_host(b"\x00\x02\x03db1\x00"), None, "DCE");
        assert_eq!(afsdb_host(b"\x00\x01\x09db1\x00"), None, "cut short");
        assert_eq!(afsdb_host(b"\x00"), None);
    }
}
