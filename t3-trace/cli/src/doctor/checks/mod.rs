//! Checks: facts to findings, one file per area, pure functions. Every check that was possible has
//! a finding.

mod host;
mod journal;
mod kept;
mod kernel;
mod restart;
mod serves;
mod trace;

use super::{facts::Facts, finding::Finding};

/// Unit that writes the records.
pub(crate) const DISPATCH: &str = "t3-dispatch.service";

/// All findings, in the order of the report.
#[must_use]
pub fn all(facts: &Facts) -> Vec<Finding> {
    let mut found = trace::all(facts);
    found.extend(kernel::all(facts));
    found.extend(host::all(facts));
    found.extend(serves::all(facts));
    found.extend(journal::all(facts));
    found
}

/// Formats an amount of memory.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = "bytes";
    for next in UNITS {
        // Only if the text does not get longer: 1536 MiB stays.
        if value < 1024 || !value.is_multiple_of(1024) && value < 10 * 1024 {
            break;
        }
        value /= 1024;
        unit = next;
    }
    format!("{value} {unit}")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn amounts_are_short_and_exact() {
        for (amount, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (65536, "64 KiB"),
            (8 << 20, "8 MiB"),
            (1536 << 20, "1536 MiB"),
            (12 << 30, "12 GiB"),
            (1 << 40, "1 TiB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
    }
}
