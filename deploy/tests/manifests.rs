//! Every manifest is held against the rules, and the rules against manifests that break them.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use deploy::manifest::{Manifest, below, containers, rendered};
use serde_json::{Value, json};

fn example(name: &str) -> Manifest {
    let found = rendered()
        .unwrap()
        .into_iter()
        .find(|manifest| manifest.name() == name);
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

#[test]
fn every_manifest_keeps_the_rules() {
    let all = rendered().unwrap();
    let faults: Vec<_> = all.iter().flat_map(Manifest::faults).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let pods = all.iter().filter(|manifest| manifest.pod().is_some()).count();
    assert!(pods >= 3, "{pods}");
    let policy = example("NetworkPolicy afs").value;
    assert_eq!(
        policy["spec"]["podSelector"]["matchLabels"]["afs-fuse"],
        json!("true")
    );
}

#[test]
fn what_is_named_in_a_kustomization_is_there() {
    for manifest in below("deploy/kubernetes").unwrap() {
        let folder = manifest.file.parent().unwrap();
        let named = |list: &str| manifest.value[list].as_array().cloned().unwrap_or_default();
        let patches = named("patches").into_iter().map(|patch| patch["path"].clone());
        for named in named("resources")
            .into_iter()
            .chain(named("components"))
            .chain(patches)
        {
            let at = folder.join(named.as_str().unwrap());
            assert!(at.exists(), "{}: {named}", manifest.file.display());
        }
    }
}

/// Whether kustomize still makes it of the example, `deploy/test manifests` says: it needs kubectl.
#[test]
fn every_example_is_rendered() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(deploy::root().join("deploy/kubernetes").join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        names
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("examples"), names("rendered"));
}

#[test]
fn whoever_breaks_a_rule_is_told() {
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut manifest = example("Deployment software");
        change(&mut manifest.value["spec"]["template"]["spec"]);
        manifest.faults().join("\n")
    };
    for (part, change) in [
        (
            "nobody else, is privileged",
            (&|spec: &mut Value| {
                spec["containers"][0]["securityContext"]["privileged"] = json!(true);
            }) as &dyn Fn(&mut Value),
        ),
        ("it shares a mount", &|spec| {
            spec["containers"][0]["volumeMounts"][0]["mountPropagation"] = json!("Bidirectional");
        }),
        ("it is root", &|spec| {
            spec["initContainers"][1]["securityContext"]["runAsUser"] = json!(0);
        }),
        ("capabilities are added", &|spec| {
            spec["initContainers"][1]["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
        }),
        ("waits for itself", &|spec| {
            spec["initContainers"][1]["volumeMounts"][0]["name"] = json!("afs");
        }),
        ("/resources/limits/memory is not set", &|spec| {
            spec["containers"][0]["resources"] = json!({});
        }),
        ("hostNetwork is not needed", &|spec| {
            spec["hostNetwork"] = json!(true)
        }),
        ("is of the host", &|spec| {
            spec["volumes"][0]["hostPath"] = json!({"path": "/"})
        }),
        ("a keeper listens to no network", &|spec| {
            spec["initContainers"][0]["ports"] = json!([])
        }),
        ("are not the keeper and then the server", &|spec| {
            spec["initContainers"].as_array_mut().unwrap().swap(0, 1);
        }),
        ("a similar argument exists: '--identity'", &|spec| {
            spec["initContainers"][1]["args"][2] = json!("--identiy=mount");
        }),
        ("AFS_CEL is no variable of afs; did you mean AFS_CELL?", &|spec| {
            spec["initContainers"][1]["env"][0]["name"] = json!("AFS_CEL");
        }),
    ] {
        let faults = broken(change);
        assert!(faults.contains(part), "wanted `{part}', was told:\n{faults}");
    }
}

#[test]
fn podman_gets_the_same_containers_in_the_same_order() {
    let job = example("Job job");
    let pod = job.for_podman(Path::new("/volumes")).unwrap();
    let names: Vec<_> = containers(&pod)
        .iter()
        .map(|container| container["name"].clone())
        .collect();
    assert_eq!(names, ["afs-keeper", "afs", "job"]);
    assert_eq!(
        pod["spec"]["volumes"][0]["hostPath"]["path"],
        json!("/volumes/afs")
    );
    let server = &pod["spec"]["containers"][1];
    assert_eq!(
        server["securityContext"],
        job.pod().unwrap()["spec"]["initContainers"][1]["securityContext"]
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    deploy::pages::write(folder.path()).unwrap();
    for page in [
        "afs.1",
        "afs-mount.1",
        "afs-keeper.1",
        "afs-serve.1",
        "afs-aklog.1",
    ] {
        let text = std::fs::read_to_string(folder.path().join("man").join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    for completion in ["afs.bash", "_afs", "afs.fish"] {
        let text = std::fs::read_to_string(folder.path().join("completions").join(completion)).unwrap();
        assert!(text.contains("orphan-deadline"), "{completion}");
    }
}

#[test]
fn systemd_understands_the_unit() {
    let unit = deploy::root().join("deploy/systemd/afs.service");
    let said = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(unit)
        .output()
        .unwrap();
    // It ends well whatever it finds. That nobody installed the program here is no mistake of the unit.
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("afs.service") && !line.contains("/usr/bin/afs is not executable"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
