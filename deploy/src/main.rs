//! Writes every generated file to its place.

use std::fs;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
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
