//! Keeping keys inside this process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::failure::{Failure, Kind};

/// From now on no core of this process is dumped, and no other process of its user can look into it.
pub fn keep() -> Result<(), Failure> {
    let unsafe_here =
        |error: rustix::io::Errno| Failure::new(Kind::Other, format!("keys would not be safe here: {error}"));
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(unsafe_here)?;
    let none = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    setrlimit(Resource::Core, none).map_err(unsafe_here)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn a_process_that_keeps_keys_dumps_no_core() {
        // In a process of its own: this one is to stay as it is.
        if std::env::var_os(CHILD).is_some() {
            super::keep().unwrap();
            let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
            let core = limits.lines().find(|line| line.starts_with("Max core file size"));
            assert_eq!(core.and_then(|line| line.split_whitespace().nth(4)), Some("0"));
            assert_eq!(
                rustix::process::dumpable_behavior().unwrap(),
                rustix::process::DumpableBehavior::NotDumpable
            );
            return;
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "secret::tests::a_process_that_keeps_keys_dumps_no_core",
            ])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
    }

    const CHILD: &str = "AFS_TEST_SECRET_CHILD";
}
