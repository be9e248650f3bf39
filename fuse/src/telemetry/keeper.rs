//! The metrics of `afs keeper`: those rows of the table that tell of it, and its process.

use std::time::Duration;

use prometheus::Registry;

use super::families::Families;
use super::metrics::{NO_LABELS, exposition};
use super::process;

/// What a keeper counts.
pub struct KeeperMetrics {
    registry: Registry,
    families: Families,
}

/// What a process has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was given the mount.
    Given,
    /// It could not go on with it.
    Hopeless,
}

impl Came {
    const fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Hopeless => "hopeless",
        }
    }
}

impl KeeperMetrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        families.build_info.with_label_values(&[VERSION]).set(1);
        for came in [Came::Given, Came::Hopeless] {
            families.keeper_given.with_label_values(&[came.name()]);
        }
        families.keeper_aborts.with_label_values(NO_LABELS);
        families.keeper_orphan_time.with_label_values(NO_LABELS);
        Ok(Self { registry, families })
    }

    /// The keeper has a mount or not, and a process serves it or not.
    pub fn holds(&self, mount: bool, served: bool) {
        let families = &self.families;
        families
            .keeper_mounts
            .with_label_values(NO_LABELS)
            .set(mount.into());
        families
            .keeper_orphans
            .with_label_values(NO_LABELS)
            .set((mount && !served).into());
    }

    /// A process came for the mount.
    pub fn came(&self, came: Came) {
        self.families.keeper_given.with_label_values(&[came.name()]).inc();
    }

    /// The mount was without a process for so long.
    pub fn orphaned(&self, time: Duration) {
        self.families
            .keeper_orphan_time
            .with_label_values(NO_LABELS)
            .observe(time.as_secs_f64());
    }

    /// The mount was given up.
    pub fn aborted(&self) {
        self.families.keeper_aborts.with_label_values(NO_LABELS).inc();
    }

    /// The exposition in the classic text form.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        process::refresh(&self.families);
        exposition(&self.registry.gather())
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_shows_what_is_its_own() {
        let metrics = KeeperMetrics::new().unwrap();
        metrics.holds(true, false);
        metrics.came(Came::Given);
        metrics.orphaned(Duration::from_millis(300));
        let text = metrics.render().unwrap();
        for line in [
            "afs_keeper_mounts 1",
            "afs_keeper_orphaned_mounts 1",
            "afs_keeper_servers_total{result=\"given\"} 1",
            "afs_keeper_servers_total{result=\"hopeless\"} 0",
            "afs_keeper_aborts_total 0",
            "afs_keeper_orphan_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("afs_rx_") && !text.contains("afs_fuse_"), "{text}");
        metrics.holds(true, true);
        assert!(metrics.render().unwrap().contains("afs_keeper_orphaned_mounts 0"));
    }
}
