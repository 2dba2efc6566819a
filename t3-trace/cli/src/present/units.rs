//! Numbers of the record in words: errors, sizes, shares, times. Pure.

use t3_record::{CloseRecord, evidence::Fate, value::Percent};

use crate::present::{
    chain_text::signal_name,
    text::{lasted, safe},
};

/// An errno with the system's words for it.
pub fn errno(number: i32) -> String {
    let said = std::io::Error::from_raw_os_error(number).to_string();
    let words = said.split(" (os error").next().unwrap_or_default().to_lowercase();
    format!("error {number} ({words})")
}

/// The process behind serve's socket.
pub fn process(record: &CloseRecord) -> Option<String> {
    let comm = record.peer_comm.as_ref().map(|comm| safe(comm));
    Some(match (comm, record.peer_pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        (Some(comm), None) => comm,
        (None, pid) => format!("process {}", pid?),
    })
}

/// What became of it.
pub fn fate(fate: Fate) -> String {
    match fate {
        Fate::Alive => "lives".to_owned(),
        Fate::Exit(status) => format!("exited with status {status}"),
        Fate::Signal(number) => format!("died of {}", signal_name(number)),
        Fate::Oom => "was OOM-killed".to_owned(),
    }
}

/// `memory 0%, IO 45%, CPU 2%`, those that are known.
pub fn shares(shares: [Option<Percent>; 3]) -> String {
    let known = ["memory", "IO", "CPU"].iter().zip(shares);
    let known = known.filter_map(|(name, share)| Some(format!("{name} {:.0}%", share?.0)));
    known.collect::<Vec<_>>().join(", ")
}

/// A size in the unit in which it is a number that can be read.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    // In tenths of the unit, so that nothing is a fraction.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number and its noun, `s` added unless there is one.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A time from the close on: `-2.0s`, `0ms`, `+3.1s`.
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
    fn numbers_are_said_as_people_say_them() {
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
