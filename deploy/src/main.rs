//! Writes every generated file to its place; with `pages FOLDER`, manual pages and completions into a folder; with `pod FILE
//! FOLDER`, prints the pod of a manifest as podman can run it, with its volumes below a folder.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => committed(),
        ["pod", file, folder] => pod(Path::new(file), Path::new(folder)),
        ["pages", folder] => deploy::pages::write(Path::new(folder)),
        _ => bail!("nothing, `pages FOLDER' or `pod FILE FOLDER'"),
    }
}

fn pod(file: &Path, folder: &Path) -> Result<()> {
    let manifests = deploy::manifest::read(file)?;
    let mut pods = manifests
        .iter()
        .filter_map(|manifest| manifest.for_podman(folder));
    let pod = pods
        .next()
        .with_context(|| format!("{} makes no pod", file.display()))?;
    println!("{pod:#}");
    Ok(())
}

fn committed() -> Result<()> {
    for file in deploy::files() {
        let path = deploy::root().join(&file.path);
        let shown = file.path.display();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{shown}"))?;
        }
        fs::write(&path, file.text).with_context(|| format!("{shown}"))?;
        println!("{shown}");
    }
    Ok(())
}
