//! Figures as people read them.

use std::time::Duration;

/// A number of bytes: `17 B`, `1.2 MiB`.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = format!("{count} B");
    let mut tenths = u128::from(count) * 10;
    for unit in units {
        if tenths < 10_240 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        shown = format!("{}.{} {unit}", tenths / 10, tenths % 10);
    }
    shown
}

/// A time span, to two figures or so: `0.31 ms`, `3.2 s`, `2 h 13 min`, `4 d 1 h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => {
            let millis = time.as_secs_f64() * 1000.0;
            let decimals = if millis < 1.0 {
                2
            } else {
                usize::from(millis < 100.0)
            };
            format!("{millis:.decimals$} ms")
        }
        1..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The same, of seconds.
pub fn seconds(time: f64) -> String {
    span(Duration::try_from_secs_f64(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (count, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_288_490, "1.2 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
        for (time, shown) in [
            (0.000_31, "0.31 ms"),
            (0.015, "15.0 ms"),
            (0.25, "250 ms"),
            (3.21, "3.2 s"),
            (59.0, "59 s"),
            (130.0, "2 min"),
            (7980.0, "2 h 13 min"),
            (349_300.0, "4 d 1 h"),
        ] {
            assert_eq!(seconds(time), shown);
        }
        assert_eq!(seconds(f64::NAN), "0.00 ms");
    }
}
