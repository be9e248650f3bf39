//! Packets that should not be: nothing dies, nobody's call is harmed, each is counted by its reason.

use std::fs;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use testcell::{Random, fill, sha256, shared};

#[test]
fn foreign_packets_do_no_harm() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let local = tempfile::tempdir().unwrap();
    fill(&local.path().join("file"), 40 << 20, 5).unwrap();
    let expected = sha256(&local.path().join("file")).unwrap();
    let other = cell.mount(2).unwrap();
    let work = other.work("hostile").unwrap();
    fs::copy(local.path().join("file"), work.join("file")).unwrap();

    let target = SocketAddrV4::new(cell.client_address(1).unwrap(), 7001);
    // Also in the name of the file server's port, as far as a stranger can.
    let socket = cell
        .in_client(3, || Ok(UdpSocket::bind("0.0.0.0:7000")?))
        .unwrap();
    let before = mount.metrics().unwrap();
    let attack = std::thread::spawn(move || {
        let mut random = Random::new(3);
        for round in 0..20_000_u32 {
            let len = random.below(200) as usize;
            let mut packet = random.bytes(len);
            // Half of them look like packets of every type, with every kind of lie in their numbers.
            if packet.len() >= 28 && round % 2 == 0 {
                packet[20] = (round % 15) as u8;
                packet[21] &= 0x2f;
                packet[16..20].fill(0);
                packet[26..28].copy_from_slice(&1_u16.to_be_bytes());
            }
            let _ = socket.send_to(&packet, target);
            if round % 64 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert_eq!(
        sha256(&mount.path("work/hostile/file")).unwrap(),
        expected,
        "read under attack"
    );
    attack.join().unwrap();
    let after = mount.metrics().unwrap();
    let dropped = |reason: &str| {
        let labels = [("reason", reason)];
        after.sum("afs_rx_dropped_packets_total", &labels)
            - before.sum("afs_rx_dropped_packets_total", &labels)
    };
    for reason in [
        "short",
        "unknown_type",
        "foreign_epoch",
        "unknown_service",
        "unknown_security",
    ] {
        assert!(dropped(reason) > 0.0, "{reason}:\n{after}");
    }
    assert!(mount.resident_kib().unwrap() < 300 << 10, "memory");
    fs::write(mount.path("work/hostile/after"), "alive").unwrap();
    assert_eq!(fs::read_to_string(work.join("after")).unwrap(), "alive");
    fs::remove_dir_all(&work).unwrap();
}
