//! Ids of this boot and of the one before.

use std::ops::ControlFlow;

use super::journalctl::{self, ScanError};

const THIS: &str = "/proc/sys/kernel/random/boot_id";
/// Limit of the boots read: `--list-boots` of some versions repeats boots without end when the wall
/// clock was set back.
const MOST: usize = 10_000;

/// This boot, then the one before if the journal has it.
pub(super) async fn this_and_previous() -> Result<Vec<String>, ScanError> {
    let this = std::fs::read_to_string(THIS).map_err(ScanError::BootId)?.trim().replace('-', "");
    let (mut previous, mut lines) = (None, 0);
    journalctl::run(["--quiet", "--no-pager", "--list-boots"], |line| {
        lines += 1;
        match boot_id(line) {
            Some(id) if id == this => return ControlFlow::Break(()),
            Some(id) => previous = Some(id.to_owned()),
            None => {}
        }
        if lines < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .await?;
    Ok(std::iter::once(this).chain(previous).collect())
}

/// Lines of index, id and times; newer versions print a header before them.
fn boot_id(line: &[u8]) -> Option<&str> {
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    words.next()?.parse::<i64>().ok()?;
    words.next().filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_with_and_without_a_header() {
        let id = "0123456789abcdef0123456789abcdef";
        for (line, expected) in [
            (format!(" -1 {id} Mon 2026-03-02 08:00:00 UTC—Mon 2026-03-02 09:00:00 UTC"), Some(id)),
            (format!("  0 {id} Mon 2026-03-02 08:00:00 UTC Mon 2026-03-02 09:00:00 UTC"), Some(id)),
            ("IDX BOOT ID                          FIRST ENTRY LAST ENTRY".to_owned(), None),
            (format!("x {id}"), None),
            ("-1 0123".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(boot_id(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(boot_id(b"0 \xff"), None);
    }
}
