//! What the tests need of the machine. A missing thing is a failure that names it, never a silent skip.

use std::path::Path;

use anyhow::{Result, bail};

use crate::harness::cell::SCRIPT;

const TOOLS: &[(&str, &str)] = &[
    ("bosserver", "openafs-fileserver"),
    ("vlserver", "openafs-dbserver"),
    ("akeyconvert", "openafs-krb5"),
    ("vos", "openafs-client"),
    ("krb5kdc", "krb5-kdc"),
    ("kadmin.local", "krb5-admin-server"),
    ("kinit", "krb5-user"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("python3", "python3"),
    ("git", "git"),
    ("tar", "tar"),
    ("tshark", "tshark"),
];

const FOLDERS: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/lib/openafs",
];

/// Fails with one message that names everything that is missing.
pub(crate) fn check() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the tests against a real cell make network namespaces and mounts: run them as root");
    }
    if !Path::new("/dev/fuse").exists() {
        bail!("/dev/fuse is missing: load the module with `modprobe fuse'");
    }
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(tool, _)| !FOLDERS.iter().any(|folder| Path::new(folder).join(tool).exists()))
        .map(|(tool, package)| format!("{tool} (package {package})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = Path::new(SCRIPT).with_file_name("install");
    bail!(
        "missing: {}; run {} as root",
        missing.join(", "),
        install.display()
    )
}
