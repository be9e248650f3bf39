//! What the benches against a real cell share: processor time, medians, verdicts.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

/// The processor time of all processes that are called so, in ticks (proc_pid_stat(5), fields 14 and 15).
fn worked(is_it: impl Fn(&str) -> bool) -> Result<u64> {
    let mut all = 0;
    for entry in std::fs::read_dir("/proc")? {
        // Those that end meanwhile are of no interest.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        let Some((head, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        if is_it(head) {
            let times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
            all += times.sum::<Result<u64, _>>()?;
        }
    }
    Ok(all)
}

/// Of this process.
pub(crate) fn we_worked() -> Result<u64> {
    let head = format!("{} (", std::process::id());
    worked(|process| process.starts_with(&head))
}

/// Of the file server of OpenAFS.
pub(crate) fn they_worked() -> Result<u64> {
    worked(|process| process.ends_with("(dafileserver"))
}

/// Linux tells processor time in hundredths of a second, whatever its own clock.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The one in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How a bench ends: it was run and met what is wanted, or not, or it could not be run.
pub(crate) fn conclude(name: &str, met: Result<bool>) -> ExitCode {
    match met {
        Ok(met) => ExitCode::from(u8::from(!met)),
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
