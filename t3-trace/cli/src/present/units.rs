//! Formats errors, processes, sizes, PSI values and offsets. Pure.

use t3_record::{CloseRecord, evidence::Fate, value::Percent};

use crate::present::{
    chain_text::signal_name,
    text::{lasted, safe},
};

/// Formats an errno: `error 24 (too many open files)`.
pub fn errno(number: i32) -> String {
    let text = std::io::Error::from_raw_os_error(number).to_string();
    let words = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("error {number} ({words})")
}

/// Formats the process of serve: `node[4242]`.
pub fn process(record: &CloseRecord) -> Option<String> {
    let comm = record.peer_comm.as_ref().map(|comm| safe(comm));
    Some(match (comm, record.peer_pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        (Some(comm), None) => comm,
        (None, pid) => format!("process {}", pid?),
    })
}

/// Formats the fate of a process.
pub fn fate(fate: Fate) -> String {
    match fate {
        Fate::Alive => "is alive".to_owned(),
        Fate::Exit(status) => format!("exited with status {status}"),
        Fate::Signal(number) => format!("was killed by {}", signal_name(number)),
        Fate::Oom => "was OOM-killed".to_owned(),
    }
}

/// Formats the known PSI values: `memory 0%, IO 45%, CPU 2%`.
pub fn shares(shares: [Option<Percent>; 3]) -> String {
    let known = ["memory", "IO", "CPU"].iter().zip(shares);
    let known = known.filter_map(|(name, share)| Some(format!("{name} {:.0}%", share?.0)));
    known.collect::<Vec<_>>().join(", ")
}

/// Formats a size in binary units: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    // In tenths of the unit, to avoid floating point.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Formats a count with its noun: `1 ping`, `0 pings`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Formats an offset from the close: `-2.0s`, `0ms`, `+3.1s`.
pub fn offset(ms: i64) -> String {
    let sign = match ms {
        ..0 => "-",
        0 => "",
        1.. => "+",
    };
    format!("{sign}{}", lasted(ms.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_readable_formats() {
        assert_eq!(errno(24), "error 24 (too many open files)");
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (25_769_803_776, "24.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((count(1, "ping"), count(0, "ping")), ("1 ping".to_owned(), "0 pings".to_owned()));
        assert_eq!([-2000, 0, 3100].map(offset), ["-2.0s", "0ms", "+3.1s"]);
        let shares = shares([Some(Percent(0.0)), None, Some(Percent(12.4))]);
        assert_eq!(shares, "memory 0%, CPU 12%");
    }
}
