//! The manifests for Kubernetes, as kustomize has put them together: read, held against the rules of this project, and turned
//! into what podman can run.
//!
//! The rules: the keeper is the one container with privileges, and has neither network ports nor the right to be anything
//! else; all others meet the pod security standard *restricted*; a mount is shared by nobody but the keeper; every container
//! says what it needs; the keeper starts first and ends last; the pod has a network policy. What is given to `afs` is read by its own command line.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use fuse::cli::Cli;
use fuse::environment::{self, Strange};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// A document of a manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file that it stands in.
    pub file: PathBuf,
    /// What it says.
    pub value: Value,
}

/// What is applied: all that is below `deploy/kubernetes/rendered`.
///
/// # Errors
///
/// One cannot be read.
pub fn rendered() -> Result<Vec<Manifest>> {
    below("deploy/kubernetes/rendered")
}

/// All that is committed below a folder of the repository.
///
/// # Errors
///
/// One cannot be read.
pub fn below(folder: &str) -> Result<Vec<Manifest>> {
    let mut found = Vec::new();
    walk(&crate::root().join(folder), &mut found)?;
    found.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<Manifest>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.extend(read(&path)?);
        }
    }
    Ok(())
}

/// The documents of a file.
///
/// # Errors
///
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<Manifest>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown}"))?;
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| {
            let value = Value::deserialize(document).with_context(|| format!("{shown}"))?;
            let file = path.to_owned();
            Ok(Manifest { file, value })
        })
        .collect()
}

impl Manifest {
    /// The pod that it makes, if it makes one.
    #[must_use]
    pub fn pod(&self) -> Option<&Value> {
        match self.text("/kind") {
            "Pod" => Some(&self.value),
            "Job" | "Deployment" | "StatefulSet" | "DaemonSet" => self.value.pointer("/spec/template"),
            _ => None,
        }
    }

    /// Its kind and name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.text("/kind"), self.text("/metadata/name"))
    }

    fn text(&self, at: &str) -> &str {
        text(&self.value, at)
    }

    /// The rules that it breaks.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let Some(pod) = self.pod() else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        let mut fault = |what: String| faults.push(format!("{}: {what}", self.name()));
        for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
            if is_true(at(pod, &format!("/spec/{forbidden}"))) {
                fault(format!("{forbidden} is not needed"));
            }
        }
        if *at(pod, "/spec/automountServiceAccountToken") != json!(false) {
            fault("automountServiceAccountToken is not false".to_owned());
        }
        for volume in list(pod, "/spec/volumes") {
            if !at(volume, "/hostPath").is_null() {
                fault(format!("volume {} is of the host", text(volume, "/name")));
            }
        }
        if text(pod, "/metadata/labels/afs-fuse") != "true" {
            fault("without the label afs-fuse=true it has no network policy".to_owned());
        }
        if [0, 1].map(|at| text(pod, &format!("/spec/initContainers/{at}/name"))) != OURS {
            fault(
                "its sidecars are not the keeper and then the server: they end in the order reversed"
                    .to_owned(),
            );
        }
        for container in containers(pod) {
            for what in container_faults(container) {
                fault(format!("container {}: {what}", text(container, "/name")));
            }
        }
        faults
    }

    /// The same pod for podman, which knows no sidecars and shares no emptyDir: sidecars come first among the containers, and
    /// volumes are folders below `folder`. What is in config maps and secrets must be put there.
    #[must_use]
    pub fn for_podman(&self, folder: &Path) -> Option<Value> {
        let mut pod = self.pod()?.clone();
        let name = self.text("/metadata/name").to_owned();
        let mut all: Vec<Value> = containers(&pod).into_iter().cloned().collect();
        for container in &mut all {
            if let Some(fields) = container.as_object_mut() {
                for unknown in [
                    "restartPolicy",
                    "startupProbe",
                    "livenessProbe",
                    "readinessProbe",
                    "ports",
                    "resources",
                ] {
                    fields.remove(unknown);
                }
                fields.insert("imagePullPolicy".to_owned(), json!("Never"));
            }
        }
        let volumes: Vec<Value> = list(&pod, "/spec/volumes")
            .map(|volume| {
                let name = text(volume, "/name");
                json!({"name": name, "hostPath": {"path": folder.join(name), "type": "Directory"}})
            })
            .collect();
        let spec = pod.get_mut("spec")?.as_object_mut()?;
        spec.remove("initContainers");
        spec.insert("containers".to_owned(), Value::Array(all));
        spec.insert("volumes".to_owned(), Value::Array(volumes));
        spec.insert("hostNetwork".to_owned(), json!(true));
        spec.insert("restartPolicy".to_owned(), json!("Never"));
        Some(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": pod.get("spec")?,
        }))
    }
}

/// All containers of a pod, sidecars first.
#[must_use]
pub fn containers(pod: &Value) -> Vec<&Value> {
    list(pod, "/spec/initContainers")
        .chain(list(pod, "/spec/containers"))
        .collect()
}

fn container_faults(container: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let security = at(container, "/securityContext");
    let is_keeper = text(container, "/args/0") == "keeper";
    if is_true(at(security, "/privileged")) != is_keeper {
        faults.push("the keeper, and nobody else, is privileged".to_owned());
    }
    if !is_true(at(security, "/readOnlyRootFilesystem")) {
        faults.push("its root can be written".to_owned());
    }
    if is_keeper {
        if !at(container, "/ports").is_null() {
            faults.push("a keeper listens to no network".to_owned());
        }
    } else {
        faults.extend(unrestricted(security));
    }
    for mount in list(container, "/volumeMounts") {
        let is_shared = text(mount, "/mountPropagation") == "Bidirectional";
        if is_shared && !is_keeper {
            faults.push("it shares a mount".to_owned());
        }
        if text(container, "/args/0") == "serve" && text(mount, "/name") == "afs" {
            faults.push("a server that has its own mount waits for itself".to_owned());
        }
    }
    for place in [
        "/resources/requests/cpu",
        "/resources/requests/memory",
        "/resources/limits/memory",
    ] {
        if at(container, place).is_null() {
            faults.push(format!("{place} is not set"));
        }
    }
    if OURS.contains(&text(container, "/name")) {
        faults.extend(misspelt(container));
    }
    faults
}

/// What the pod security standard *restricted* wants of a container.
fn unrestricted(security: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut want = |is: bool, what: &str| {
        if !is {
            faults.push(what.to_owned());
        }
    };
    want(is_true(at(security, "/runAsNonRoot")), "runAsNonRoot is not true");
    want(
        at(security, "/runAsUser").as_u64().is_some_and(|user| user > 0),
        "it is root",
    );
    want(
        *at(security, "/allowPrivilegeEscalation") == json!(false),
        "allowPrivilegeEscalation is not false",
    );
    want(
        *at(security, "/capabilities/drop") == json!(["ALL"]),
        "capabilities are not dropped",
    );
    want(
        at(security, "/capabilities/add").is_null(),
        "capabilities are added",
    );
    want(
        *at(security, "/seccompProfile/type") == json!("RuntimeDefault"),
        "there is no seccomp profile",
    );
    faults
}

/// What `afs` would not understand of its arguments and of its environment.
fn misspelt(container: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let arguments = list(container, "/args").filter_map(Value::as_str);
    if let Err(error) = Cli::try_parse_from(std::iter::once("afs").chain(arguments)) {
        faults.push(error.to_string());
    }
    for variable in list(container, "/env") {
        let name = text(variable, "/name");
        match environment::strange(name, text(variable, "/value")) {
            None => {}
            Some(Strange::Misspelt(near)) => {
                faults.push(format!("{name} is no variable of afs; did you mean {near}?"));
            }
            Some(Strange::Unknown) => faults.push(format!("{name} is no variable of afs")),
        }
    }
    faults
}

fn list<'v>(value: &'v Value, at: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value.pointer(at).and_then(Value::as_array).into_iter().flatten()
}

fn text<'v>(value: &'v Value, at: &str) -> &'v str {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// What stands at a place; nothing is null.
fn at<'v>(value: &'v Value, place: &str) -> &'v Value {
    value.pointer(place).unwrap_or(&Value::Null)
}

fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true)
}

/// The containers that run `afs`, in the order in which they start.
const OURS: [&str; 2] = ["afs-keeper", "afs"];
