//! Our Kerberos client and the readers of credential caches, against MIT's KDC and `kinit`.

use std::path::Path;
use std::time::Duration;

use afs_client::auth::Principal;
use afs_client::auth::ccache::CcacheName;
use afs_client::auth::credential::Credential;
use afs_client::auth::kdc::{KdcClient, KdcError};
use afs_client::auth::keytab::Keytab;
use afs_client::auth::krb5_conf::Krb5Conf;
use anyhow::{Context, Result};
use rxrpc::crypto::krb5::{Key, Usage};
use testcell::{Cell, run, shared};

const LIMIT: Duration = Duration::from_secs(20);
const REALM: &str = "LAB.EXAMPLE";
const TICKET: Usage = Usage(2);

/// Runs what asks the KDC, as client 1.
fn asking<T: Send>(cell: &Cell, question: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    cell.in_client(1, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(question())
    })
}

fn conf(cell: &Cell) -> Krb5Conf {
    Krb5Conf::load(cell.conf_dir().join("krb5.conf").to_str()).unwrap()
}

fn principal(name: &str) -> Principal {
    Principal::parse(name, Some(REALM)).unwrap()
}

fn keys(cell: &Cell, table: &str, owner: &str) -> Vec<Key> {
    let keytab = Keytab::read(&cell.keytab(table)).unwrap();
    keytab.keys_of(&principal(owner)).unwrap()
}

/// The ticket is for the cell's service, and its key and its client are inside.
fn check_ticket(cell: &Cell, got: &Credential, client: &str) {
    assert_eq!(got.server, principal("afs/lab.example"));
    assert_eq!(got.client, principal(client));
    let key = keys(cell, "afs", "afs/lab.example").remove(0);
    // The sealed part comes last, behind its tag and a length of three bytes.
    let opened = (0..got.ticket.len()).find_map(|at| key.decrypt(TICKET, &got.ticket[at..]).ok());
    let opened = opened.expect("the service's own key opens the ticket");
    let holds = |part: &[u8]| opened.windows(part.len()).any(|window| window == part);
    assert!(holds(&got.key), "the session key is inside");
    assert!(holds(client.as_bytes()), "{client} is inside");
}

#[test]
fn a_keytab_gets_tickets_by_udp_and_by_tcp() {
    let cell = shared();
    for limit in ["1", "65000"] {
        let text = std::fs::read_to_string(cell.conf_dir().join("krb5.conf")).unwrap();
        let text = text.replace(
            "udp_preference_limit = 1",
            &format!("udp_preference_limit = {limit}"),
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let conf = Krb5Conf::load(file.path().to_str()).unwrap();
        let keys = keys(&cell, "alice", "alice");
        let got = asking(&cell, async || {
            let client = KdcClient::new(&conf);
            let granting = client.initial(&principal("alice"), &keys).await?;
            assert_eq!(granting.server, Principal::ticket_granter(REALM, REALM));
            Ok(client.service(&granting, &principal("afs/lab.example")).await?)
        });
        check_ticket(&cell, &got.unwrap(), "alice");
    }
}

#[test]
fn what_kinit_wrote_is_read_and_used() {
    let cell = shared();
    let conf = conf(&cell);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("dir")).unwrap();
    let test = format!("afs-test-{}", std::process::id());
    let keyrings = [
        format!("KEYRING:user:{test}"),
        format!("KEYRING:persistent:0:{test}"),
    ];
    let files = [
        format!("FILE:{}", path("file").display()),
        format!("DIR:{}", path("dir").display()),
    ];
    for name in files.into_iter().chain(keyrings.clone()) {
        kinit(&cell, &name, "bob").unwrap();
        let found = CcacheName::parse(&name).unwrap().read(&conf).unwrap();
        assert_eq!(found.owner, principal("bob"), "{name}");
        let granting = found.ticket_granting().unwrap().clone();
        let got = asking(&cell, async || {
            Ok(KdcClient::new(&conf)
                .service(&granting, &principal("afs/lab.example"))
                .await?)
        });
        check_ticket(&cell, &got.unwrap(), "bob");
    }
    for keyring in &keyrings {
        let mut destroy = cell.client_command(1, "kdestroy");
        run(LIMIT, destroy.args(["-c", keyring])).unwrap().ok().unwrap();
    }
}

fn kinit(cell: &Cell, cache: &str, user: &str) -> Result<()> {
    let mut kinit = cell.client_command(1, "kinit");
    kinit
        .env("KRB5_CONFIG", cell.conf_dir().join("krb5.conf"))
        .args(["-c", cache, "-k", "-t"])
        .arg(cell.keytab(user))
        .arg(user);
    run(LIMIT, &mut kinit)?.ok().map(drop).context("kinit")
}

#[test]
fn refusals_name_the_thing_and_the_cure() {
    let cell = shared();
    let conf = conf(&cell);
    let alice = keys(&cell, "alice", "alice");
    let refused = |result: Result<Credential>| format!("{:#}", result.unwrap_err());
    let initial = |who: &str, keys: &[Key]| {
        let who = principal(who);
        refused(asking(&cell, async || {
            Ok(KdcClient::new(&conf).initial(&who, keys).await?)
        }))
    };
    assert_eq!(
        initial("nobody", &alice),
        "realm LAB.EXAMPLE knows no nobody@LAB.EXAMPLE: check the spelling, or have it made"
    );
    // The KDC wants proof of the key from alice, and not from bob.
    let stranger = Key::new(alice[0].enctype(), &vec![7; alice[0].bytes().len()]).unwrap();
    for name in ["alice", "bob"] {
        assert_eq!(
            initial(name, std::slice::from_ref(&stranger)),
            format!(
                "the key of {name}@LAB.EXAMPLE is not the one that realm LAB.EXAMPLE has: get a new keytab"
            )
        );
    }
    let granting = asking(&cell, async || {
        Ok(KdcClient::new(&conf).initial(&principal("alice"), &alice).await?)
    })
    .unwrap();
    let service = |granting: &Credential, server: &str| {
        let server = principal(server);
        let asked = async || KdcClient::new(&conf).service(granting, &server).await;
        asking(&cell, async || Ok(asked().await)).unwrap().unwrap_err()
    };
    let unknown = service(&granting, "afs/other.example");
    assert!(unknown.is_unknown_service(), "{unknown}");
    assert_eq!(
        unknown.to_string(),
        "realm LAB.EXAMPLE knows no service afs/other.example@LAB.EXAMPLE"
    );
    let old = Credential {
        ends: 1,
        ..granting.clone()
    };
    let expired = service(&old, "afs/lab.example");
    assert_eq!(
        expired.to_string(),
        "the ticket of alice@LAB.EXAMPLE has expired: run kinit"
    );
    let mut forged = granting;
    forged.key[0] ^= 1;
    assert!(matches!(
        service(&forged, "afs/lab.example"),
        KdcError::Refused { .. }
    ));
}

#[test]
fn a_kdc_that_is_down_is_named() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("krb5.conf");
    let address = cell.server_address(1).unwrap();
    let text = format!("[realms]\n{REALM} = {{\nkdc = {address}:9\n}}\n");
    std::fs::write(&file, text).unwrap();
    let conf = Krb5Conf::load(Path::new(&file).to_str()).unwrap();
    let keys = keys(&cell, "alice", "alice");
    let failed = asking(&cell, async || {
        Ok(KdcClient::new(&conf).initial(&principal("alice"), &keys).await?)
    });
    let said = format!("{:#}", failed.unwrap_err());
    assert!(
        said.starts_with(&format!(
            "no KDC of realm LAB.EXAMPLE answers ({address}:9 by UDP: "
        )),
        "{said}"
    );
    assert!(
        said.ends_with("check that it runs and that port 88 is open"),
        "{said}"
    );
}
