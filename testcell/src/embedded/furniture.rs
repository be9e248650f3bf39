//! What a cell is furnished with: the same as the script of the real cell makes (`testcell/cell/content.py`).

use super::cell::{Cell, CellError};

impl Cell {
    /// Makes the volumes that tests and visitors expect: `root.cell` with `README`, `public/`, `work/` (and `work2/` on a
    /// second server) where anybody may write, `tiny/` with a quota of 1000 KiB, `home/alice/` where nobody but
    /// alice may do anything, and `ro/`, which is replicated on all servers, as `root.cell` is.
    ///
    /// # Errors
    ///
    /// There are such volumes already.
    pub async fn furnish(&self) -> Result<(), CellError> {
        for (name, server, rights, quota) in [
            ("root.afs", 1, "rl", 5_000),
            ("root.cell", 1, "rl", 5_000),
            ("work", 1, "rlidwka", 4_000_000),
            ("tiny", 1, "rlidwka", 1_000),
            ("home.alice", 1, "", 100_000),
            ("ro.data", 1, "rl", 5_000),
            ("work2", 2, "rlidwka", 4_000_000),
        ] {
            if server <= self.servers() {
                self.make_volume(name, server, rights)?;
                self.set_quota(name, quota).await?;
            }
        }
        let (plain, writable) = (self.name(), format!(".{}", self.name()));
        self.mount("root.afs", plain, "#root.cell.").await?;
        self.mount("root.afs", &writable, "%root.cell.").await?;
        self.furnish_root().await?;
        self.furnish_data().await?;
        let diary = b"Dear diary, only alice reads this.\n";
        self.write("home.alice", "diary", diary).await?;
        self.allow("home.alice", "", "alice", "rlidwka").await?;
        let all: Vec<_> = (1..=self.servers()).collect();
        for name in ["root.afs", "root.cell", "ro.data"] {
            self.release(name, &all).await?;
        }
        Ok(())
    }

    async fn furnish_root(&self) -> Result<(), CellError> {
        let root = "root.cell";
        let readme = format!("The top of the test cell {}.\n", self.name());
        self.write(root, "README", readme.as_bytes()).await?;
        for dir in ["home", "public"] {
            self.make_dir(root, dir).await?;
        }
        self.write(root, "public/README", b"Anyone may read this.\n")
            .await?;
        for (path, target) in [
            ("work", "#work."),
            ("tiny", "#tiny."),
            ("ro", "#ro.data."),
            ("home/alice", "#home.alice."),
        ] {
            self.mount(root, path, target).await?;
        }
        if self.servers() >= 2 {
            self.mount(root, "work2", "#work2.").await?;
        }
        Ok(())
    }

    async fn furnish_data(&self) -> Result<(), CellError> {
        let data = "ro.data";
        self.write(data, "hello", b"hello, world\n").await?;
        self.write(data, "empty", b"").await?;
        self.symlink(data, "link", "hello").await?;
        self.write(data, "run", b"#!/bin/sh\necho from a read-only volume\n")
            .await?;
        self.set_mode(data, "run", 0o755).await?;
        self.make_dir(data, "dir").await?;
        for number in 0..200 {
            let (path, text) = (format!("dir/file{number:03}"), format!("{number}\n"));
            self.write(data, &path, text.as_bytes()).await?;
        }
        Ok(())
    }
}
