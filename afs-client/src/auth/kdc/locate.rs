//! Where the key distribution centers of a realm are: in `krb5.conf`, else in DNS (RFC 4120 7.2.3.2).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::error::KdcError;
use crate::auth::krb5_conf::Krb5Conf;
use crate::cell::services_of;

/// The addresses of the realm's KDCs, in the order in which they are asked. Bounded in time.
pub(super) async fn addresses(conf: &Krb5Conf, realm: &str) -> Result<Vec<SocketAddr>, KdcError> {
    let unknown = |why: String| KdcError::NoKdc {
        realm: realm.to_owned(),
        why,
    };
    let mut hosts: Vec<_> = conf.kdcs(realm).filter_map(host_and_port).collect();
    let mut why = "krb5.conf names none".to_owned();
    if hosts.is_empty() && conf.flag("dns_lookup_kdc", true) {
        match services_of(&format!("_kerberos._udp.{realm}.")).await {
            Ok(found) => hosts = found,
            Err(reason) => why = format!("krb5.conf names none and {reason}"),
        }
    }
    if hosts.is_empty() {
        return Err(unknown(why));
    }
    let mut addresses = Vec::new();
    for (host, port) in hosts.into_iter().take(MAX_HOSTS) {
        match timeout(PATIENCE, lookup_host((host.as_str(), port))).await {
            Ok(Ok(found)) => addresses.extend(found),
            Ok(Err(error)) => why = format!("{host}: {error}"),
            Err(_) => why = format!("{host}: its address cannot be had in time"),
        }
    }
    if addresses.is_empty() {
        return Err(unknown(why));
    }
    Ok(addresses)
}

/// What a `kdc` entry names: `HOST`, `HOST:PORT`, `[ADDRESS]:PORT`, with `udp/` or `tcp/` before it. No host is spoken
/// to through a proxy (`https://`).
fn host_and_port(entry: &str) -> Option<(String, u16)> {
    if entry.contains("://") {
        return None;
    }
    let entry = entry
        .strip_prefix("tcp/")
        .or_else(|| entry.strip_prefix("udp/"))
        .unwrap_or(entry);
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None => KERBEROS_PORT,
        };
        return Some((address.to_owned(), port));
    }
    match entry.split_once(':') {
        // More than one colon is an address.
        Some((host, port)) if !port.contains(':') => Some((host.to_owned(), port.parse().ok()?)),
        _ => Some((entry.to_owned(), KERBEROS_PORT)),
    }
}

const KERBEROS_PORT: u16 = 88;
const MAX_HOSTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_hosts_and_ports() {
        for (entry, expected) in [
            ("kdc.lab.example", Some(("kdc.lab.example", 88))),
            ("10.0.0.1:750", Some(("10.0.0.1", 750))),
            ("tcp/kdc", Some(("kdc", 88))),
            ("[2001:db8::1]:89", Some(("2001:db8::1", 89))),
            ("[2001:db8::1]", Some(("2001:db8::1", 88))),
            ("2001:db8::1", Some(("2001:db8::1", 88))),
            ("kdc:many", None),
            ("https://proxy/KdcProxy", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(entry), expected, "{entry}");
        }
    }

    #[tokio::test]
    async fn a_realm_without_kdc_says_where_to_name_one() {
        let conf = Krb5Conf::from_text(
            "[libdefaults]\ndns_lookup_kdc = false\n[realms]\nR = {\nkdc = 192.0.2.1\n}\n",
        );
        assert_eq!(
            addresses(&conf, "R").await.unwrap(),
            ["192.0.2.1:88".parse().unwrap()]
        );
        assert_eq!(
            addresses(&conf, "NONE").await.unwrap_err().to_string(),
            "no KDC of realm NONE is known (krb5.conf names none); name one in krb5.conf, section [realms]"
        );
    }
}
