//! Under which names the service of a cell may be known.

use super::krb5_conf::Krb5Conf;
use super::principal::Principal;
use crate::cell::{CellName, realm_of_domain};

/// The realm of a cell: the one that `krb5.conf` maps it to, else its name in upper case. Between the two DNS is asked, if
/// `krb5.conf` says `dns_lookup_realm`: whoever answers decides which realm is believed, so it does not by default. Bounded
/// in time.
pub async fn realm_of_cell(conf: &Krb5Conf, cell: &CellName) -> String {
    if let Some(realm) = conf.realm_of(cell.as_str()).filter(|realm| !realm.is_empty()) {
        return realm.to_owned();
    }
    let told = if conf.flag("dns_lookup_realm", false) {
        realm_of_domain(cell.as_str()).await
    } else {
        None
    };
    told.unwrap_or_else(|| cell.as_str().to_ascii_uppercase())
}

/// The principals that may be the cell's service, in the order in which they are asked for (rx-security.md 6.1):
/// `afs/CELL` first, and plain `afs` only in a realm that is named like the cell. With `given` it is looked for in that
/// realm alone; without, in the user's and in the cell's.
#[must_use]
pub fn names_of_service(cell: &CellName, given: Option<&str>, user: &str, of_cell: &str) -> Vec<Principal> {
    let realms = match given {
        Some(given) => vec![given],
        None if user == of_cell => vec![user],
        None => vec![user, of_cell],
    };
    let mut names: Vec<_> = realms
        .iter()
        .map(|realm| Principal::new(&[SERVICE, cell.as_str()], realm))
        .collect();
    names.extend(
        realms
            .iter()
            .filter(|realm| realm.eq_ignore_ascii_case(cell.as_str()))
            .map(|realm| Principal::new(&[SERVICE], realm)),
    );
    names
}

const SERVICE: &str = "afs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tried_in_order() {
        let cell = CellName::new("lab.example").unwrap();
        let names = |given, user, of_cell| {
            let names = names_of_service(&cell, given, user, of_cell);
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            names(None, "LAB.EXAMPLE", "LAB.EXAMPLE"),
            ["afs/lab.example@LAB.EXAMPLE", "afs@LAB.EXAMPLE"]
        );
        assert_eq!(
            names(None, "CORP", "LAB.EXAMPLE"),
            [
                "afs/lab.example@CORP",
                "afs/lab.example@LAB.EXAMPLE",
                "afs@LAB.EXAMPLE"
            ]
        );
        assert_eq!(
            names(Some("OTHER"), "CORP", "LAB.EXAMPLE"),
            ["afs/lab.example@OTHER"]
        );
    }

    #[tokio::test]
    async fn the_realm_is_the_mapped_one_or_the_name_in_upper_case() {
        let cell = CellName::new("lab.example").unwrap();
        let conf = Krb5Conf::from_text("[domain_realm]\nlab.example = REALM\n");
        assert_eq!(realm_of_cell(&conf, &cell).await, "REALM");
        assert_eq!(realm_of_cell(&Krb5Conf::default(), &cell).await, "LAB.EXAMPLE");
    }
}
