//! A Prometheus that scrapes a mount under load answers every question of every dashboard.
//!
//! With `AFS_PLOT=FILE` it draws what the dashboard of connections shows of a minute, as in `docs/images/connections.svg`.
//!
//! Needs root or fusermount3, /dev/fuse, Debian's package prometheus, and `cargo build -p fuse` before.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use deploy::grafana::{Look, Unit};
use deploy::plot::{Chart, Series};
use deploy::{dashboards, plot, query, root};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testcell::{afs_program, eventually};

#[test]
fn every_panel_has_data() {
    let folder = tempfile::tempdir().unwrap();
    let (metrics, prometheus) = (free_port(), free_port());
    let cell = demo(folder.path(), metrics);
    let keeper_metrics = free_port();
    let keeper = keeper(folder.path(), keeper_metrics);
    let watch = watch(folder.path(), &[metrics, keeper_metrics], prometheus);
    let top = folder.path().join("mnt/demo.example");
    let mounted = eventually(Duration::from_secs(20), || top.join("work").is_dir());
    assert!(mounted, "the demo mounts its cell");
    give_token(folder.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (top, done) = (&top, &done);
            scope.spawn(move || work(top, worker, done));
        }
        let empty = || {
            let asked = dashboards::all().into_iter().flat_map(questions);
            asked
                .filter(|(_, question)| !has_data(prometheus, question))
                .map(|(title, question)| format!("{title}: {question}"))
                .collect::<Vec<_>>()
        };
        let answered = eventually(LIMIT, || {
            thread::sleep(Duration::from_secs(2));
            empty().is_empty()
        });
        let left = if answered { Vec::new() } else { empty() };
        if let Some(file) = std::env::var_os("AFS_PLOT") {
            thread::sleep(PLOTTED);
            fs::write(file, picture(prometheus)).unwrap();
        }
        done.store(true, Ordering::Release);
        assert!(left.is_empty(), "no data for {left:#?}");
    });
    for rule in rules(prometheus) {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let page = get(metrics, "/metrics").unwrap();
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < SERIES_MAX, "{series} series");
    drop(watch);
    drop(keeper);
    drop(cell);
}

/// The questions of a dashboard, with the panel that asks. That something else is shown when there is nothing is taken off: data
/// is what it is to have, but for the panels that this run may have nothing for.
fn questions(dashboard: deploy::grafana::Dashboard) -> Vec<(String, String)> {
    let panels = dashboard.rows.iter().flat_map(|row| row.panels);
    panels
        .flat_map(|panel| {
            panel.queries.iter().map(move |asked| {
                let title = format!("{} / {}", dashboard.title, panel.title);
                let question = query::for_prometheus(asked.query, "30s");
                let is_exempt = MAY_BE_EMPTY.iter().any(|(exempt, _)| *exempt == panel.title);
                let bare = question.strip_suffix(OR_NOTHING).filter(|_| !is_exempt);
                let bare = bare.map(str::to_owned);
                (title, bare.unwrap_or(question))
            })
        })
        .collect()
}

/// The lines of the dashboard of connections over the last minute.
fn picture(prometheus: u16) -> String {
    let dashboard = dashboards::all()
        .into_iter()
        .find(|dashboard| dashboard.uid == "afs-connections")
        .unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let begin = now - PLOTTED.as_secs();
    let panels = dashboard.rows.iter().flat_map(|row| row.panels);
    let lines = panels.filter(|panel| matches!(panel.look, Look::Lines | Look::Stacked));
    let charts: Vec<_> = lines
        .map(|panel| Chart {
            title: panel.title.to_owned(),
            unit: match panel.unit {
                Unit::Rate => "/s",
                Unit::Seconds => "s",
                _ => "",
            },
            series: panel
                .queries
                .iter()
                .flat_map(|asked| {
                    let question = query::for_prometheus(asked.query, "10s");
                    let path = format!(
                        "/api/v1/query_range?query={}&start={begin}&end={now}&step=1",
                        escaped(&question)
                    );
                    let answer = ask(prometheus, &path).expect("Prometheus answers");
                    let found = answer["data"]["result"].as_array().cloned().unwrap_or_default();
                    found.into_iter().map(|found| line(&found, asked.legend, begin))
                })
                .collect(),
        })
        .collect();
    let title = "AFS / Connections: a minute of the embedded cell, 24 programs that pause together, connections that expire after a second";
    plot::svg(title, &charts)
}

/// A series of the answer to a range query, called as its legend says.
fn line(found: &Value, legend: &str, begin: u64) -> Series {
    let labels = found["metric"].as_object().cloned().unwrap_or_default();
    let name = labels.iter().fold(legend.to_owned(), |name, (label, value)| {
        name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
    });
    let points = found["values"].as_array().cloned().unwrap_or_default();
    let point = |point: &Value| {
        let value: f64 = point[1].as_str()?.parse().ok()?;
        Some((point[0].as_f64()? - begin as f64, value)).filter(|(_, value)| value.is_finite())
    };
    Series {
        name,
        points: points.iter().filter_map(point).collect(),
    }
}

/// What a user of the mount does, until he is done. That some of it fails is meant.
fn work(top: &Path, worker: usize, done: &AtomicBool) {
    let began = Instant::now();
    let own = top.join(format!("work/worker-{worker}"));
    let _ = fs::create_dir_all(&own);
    for round in 0_usize.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let file = own.join(format!("file-{}", round % 5));
        let _ = fs::write(&file, vec![7; 64 * 1024]);
        let _ = fs::read(&file);
        let _ = fs::read(top.join("work/clock"));
        let _ = fs::metadata(own.join("missing"));
        let _ = fs::read_dir(&own).map(Iterator::count);
        let _ = fs::remove_file(&file);
        // All rest for longer than an idle connection lives.
        while began.elapsed().as_secs() % 10 >= 6 && !done.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A process of ours. Its drop ends it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let ended = eventually(Duration::from_secs(20), || {
            self.0.try_wait().is_ok_and(|status| status.is_some())
        });
        if !ended {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The embedded cell, mounted, with servers that are slow and fail at times.
fn demo(folder: &Path, metrics: u16) -> Process {
    let (mount, faults) = (folder.join("mnt"), folder.join("faults"));
    fs::create_dir(&mount).unwrap();
    fs::write(
        &faults,
        "every 9 fs FetchStatus: abort UAEIO\nevery 2 fs StoreData64: delay 30ms\n",
    )
    .unwrap();
    let child = Command::new(afs_program().unwrap())
        .args([
            "demo",
            "--metrics",
            &format!("127.0.0.1:{metrics}"),
            "--mountpoint",
        ])
        .arg(mount)
        .arg("--faults")
        .arg(faults)
        .env("AFS_CONNECTION_EXPIRY", "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

/// Gives the mount a token, for a cell that it never calls: the demo's knows no keys.
fn give_token(folder: &Path) {
    // A KeyFile: how many keys, the version of the first, the key.
    let key = [
        &1_u32.to_be_bytes()[..],
        &1_u32.to_be_bytes(),
        &[0x13, 0x34, 0x57, 0x79, 0x9b, 0xbc, 0xdf, 0xf1],
    ]
    .concat();
    let (file, servers) = (folder.join("KeyFile"), folder.join("cells"));
    fs::write(&file, key).unwrap();
    fs::write(&servers, ">other.example\n127.71.0.1\n").unwrap();
    let status = Command::new(afs_program().unwrap())
        .args(["aklog", "--no-renew", "--cell", "other.example", "--localauth"])
        .arg(file)
        .env("AFS_CELLSERVDB", servers)
        .status()
        .unwrap();
    assert!(status.success(), "the demo takes a token: {status}");
}

/// A keeper whose server does not come.
fn keeper(folder: &Path, metrics: u16) -> Process {
    let mount = folder.join("kept");
    fs::create_dir(&mount).unwrap();
    let child = Command::new(afs_program().unwrap())
        .args([
            "keeper",
            "--orphan-deadline",
            "86400",
            "--metrics",
            &format!("127.0.0.1:{metrics}"),
            "--socket",
        ])
        .arg(folder.join("keeper"))
        .arg(mount)
        .spawn()
        .unwrap();
    Process(child)
}

/// A Prometheus with the rules, which looks each second.
fn watch(folder: &Path, metrics: &[u16], port: u16) -> Process {
    let rules = root().join("deploy/monitoring/rules").canonicalize().unwrap();
    let targets: Vec<_> = metrics.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{0}/recording.yaml', '{0}/alerts.yaml']\n\
         scrape_configs: [{{job_name: afs, static_configs: [{{targets: [{1}]}}]}}]\n",
        rules.display(),
        targets.join(", ")
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, config).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus, of Debian's package of that name");
    let process = Process(child);
    let ready = || get(port, "/-/ready").is_some();
    assert!(
        eventually(Duration::from_secs(30), ready),
        "Prometheus is not ready"
    );
    process
}

/// Some number came back, and not only "not a number".
fn has_data(port: u16, question: &str) -> bool {
    let Some(answer) = ask(port, &format!("/api/v1/query?query={}", escaped(question))) else {
        return false;
    };
    let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    results
        .iter()
        .filter_map(|series| series["value"][1].as_str())
        .any(|value| value != "NaN")
}

fn rules(port: u16) -> Vec<Value> {
    let answer = ask(port, "/api/v1/rules").expect("Prometheus answers");
    let groups = answer["data"]["groups"].as_array().cloned().unwrap();
    let rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap())
        .collect();
    assert_eq!(
        rules.len(),
        deploy::rules::ALERTS.len() + deploy::rules::RECORDINGS.len()
    );
    rules
}

fn ask(port: u16, path: &str) -> Option<Value> {
    let answer: Value = serde_json::from_str(&get(port, path)?).ok()?;
    (answer["status"] == "success").then_some(answer)
}

fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    testcell::get(address.into(), path).ok()
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// What stands for nothing in a question.
const OR_NOTHING: &str = " or vector(0)";
/// Panels that the run may have no data for, and why.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    (
        "Refused while dying",
        "a call must meet a connection in the moment in which it is reaped",
    ),
    (
        "Waiting that reuse has saved",
        "the servers of the demo have no key, so there are no handshakes",
    ),
];
/// More than a service has channels.
const WORKERS: usize = 24;
const LIMIT: Duration = Duration::from_secs(90);
/// What a picture shows.
const PLOTTED: Duration = Duration::from_secs(60);
/// The budget of an idle mount, which this one keeps under its load.
const SERIES_MAX: usize = 1500;
