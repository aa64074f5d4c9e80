//! Sizes and durations as people read them.

use std::time::{Duration, SystemTime};

/// `512 B`, `1.5 KiB`, `16.0 MiB`: powers of 1024.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    let mut name = "";
    for unit in UNITS {
        tenths = (tenths + 512) / 1024;
        name = unit;
        if tenths < 10 * 1024 {
            break;
        }
    }
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// `12 files, 1.5 KiB`, `1 empty file`, `no file`.
pub fn human_files(files: u64, bytes: u64) -> String {
    match (files, bytes) {
        (0, _) => "no file".to_owned(),
        (1, 0) => "1 empty file".to_owned(),
        (1, bytes) => format!("1 file, {}", human_bytes(bytes)),
        (files, 0) => format!("{files} empty files"),
        (files, bytes) => format!("{files} files, {}", human_bytes(bytes)),
    }
}

/// `0.1235`, `1250`, `1.5e-7`: four significant digits at most.
pub fn human_number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.3e}").replace("00e", "e").replace(".0e", "e");
    }
    let decimals = if size >= 1000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else if size >= 1.0 {
        3
    } else {
        4
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `45 s`, `2 min 5 s`, `3 h 20 min`: two units at most, cut down to whole ones.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// `14:05:09`, in UTC.
pub fn utc_time(at: SystemTime) -> String {
    let at = humantime::format_rfc3339_seconds(at).to_string();
    at.get(11..19).unwrap_or_default().to_owned()
}

/// `2026-11-29T14:05:09Z`, of seconds since 1970.
pub fn utc_date(seconds: u64) -> String {
    // The year 9999 is the last one that it writes.
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// `1st`, `2nd`, `3rd`, `11th`.
pub fn ordinal(number: u32) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(0.0 => "0")]
    #[test_case(0.123_456 => "0.1235")]
    #[test_case(-2.0 => "-2")]
    #[test_case(12.345 => "12.35")]
    #[test_case(1234.5 => "1234")]
    #[test_case(0.000_015 => "1.5e-5")]
    #[test_case(2e9 => "2e9")]
    fn numbers(value: f64) -> String {
        human_number(value)
    }

    #[test_case(0 => "0 B")]
    #[test_case(1023 => "1023 B")]
    #[test_case(1536 => "1.5 KiB")]
    #[test_case(16 * 1024 * 1024 => "16.0 MiB")]
    #[test_case(1024 * 1024 - 1 => "1.0 MiB")]
    #[test_case(u64::MAX => "16.0 EiB")]
    fn bytes_read_well(bytes: u64) -> String {
        human_bytes(bytes)
    }

    #[test]
    fn files_read_well() {
        let all = [(0, 0), (1, 0), (1, 5), (3, 0), (12, 2048)].map(|(files, bytes)| human_files(files, bytes));
        assert_eq!(all, ["no file", "1 empty file", "1 file, 5 B", "3 empty files", "12 files, 2.0 KiB"]);
    }

    #[test_case(0 => "0 s")]
    #[test_case(45 => "45 s")]
    #[test_case(120 => "2 min")]
    #[test_case(125 => "2 min 5 s")]
    #[test_case(3600 => "1 h")]
    #[test_case(12_000 => "3 h 20 min")]
    fn durations_read_well(seconds: u64) -> String {
        human_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn ordinals_read_well() {
        let all = [1, 2, 3, 4, 11, 12, 13, 21, 112].map(ordinal);
        assert_eq!(all, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
    }
}
