//! The report as aligned text. Pure.
//!
//! The last columns are ratios to HAProxy in the same run: below 1 is cheaper than HAProxy.

use std::fmt::Write as _;

use super::{
    contestant::Contestant::{self, Haproxy, HaproxyOne},
    report::{Bulk, Echo, Idle, Report},
    stats::Spread,
};

/// Renders the report.
#[must_use]
pub fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!("{} cores, {}, Linux {}", machine.cores, machine.cpu, machine.kernel);
    if let Some(haproxy) = &machine.haproxy {
        let _ = write!(text, ", {haproxy}");
    }
    let _ = writeln!(text, "\nmedians of {} rounds; ratios below 1: cheaper than HAProxy", report.rounds);
    if !report.memory.is_empty() {
        text.push_str(&idle(&report.memory));
    }
    if !report.echo.is_empty() {
        text.push_str(&echo(&report.echo));
    }
    if !report.bulk.is_empty() {
        text.push_str(&bulk(&report.bulk));
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn idle(rows: &[Idle]) -> String {
    let sessions = rows.first().map_or(0, |row| row.sessions);
    let title =
        format!("{sessions} idle sessions, each after one heartbeat (kernel socket memory not included)");
    let against = |who| rows.iter().find(|row| row.contestant == who).map(|row| row.pss_kib);
    let mut cells = vec![
        ["", "threads", "before", "with", "after", "PSS", "RSS", "open", "close", "idle", "PSS", "PSS"]
            .map(str::to_owned),
        [
            "",
            "",
            "MiB",
            "MiB",
            "MiB",
            "KiB/session",
            "KiB/session",
            "CPU µs",
            "CPU µs",
            "CPU ms/s",
            "/haproxy-1",
            "/haproxy",
        ]
        .map(str::to_owned),
    ];
    for row in rows {
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        cells.push([
            row.contestant.name().to_owned(),
            row.threads.to_string(),
            mib(row.before.pss_kib),
            mib(row.with.pss_kib),
            mib(row.after.pss_kib),
            format!("{:.2}", row.pss_kib),
            format!("{:.2}", row.rss_kib),
            format!("{:.0}", row.open_us),
            format!("{:.0}", row.close_us),
            format!("{:.2}", row.idle_ms_per_s),
            ratio(row.pss_kib, against(HaproxyOne)),
            ratio(row.pss_kib, against(Haproxy)),
        ]);
    }
    section(&title, &cells)
}

fn echo(rows: &[Echo]) -> String {
    let mut cells = vec![
        [
            "payload",
            "sessions",
            "",
            "CPU µs/msg",
            "(min–max)",
            "calls/msg",
            "p50 µs",
            "p99 µs",
            "msg/s",
            "CPU",
            "CPU",
        ]
        .map(str::to_owned),
        ["", "", "", "", "", "", "", "", "", "/haproxy-1", "/haproxy"].map(str::to_owned),
    ];
    for row in rows {
        let of = |who: Contestant| {
            let same = |other: &&Echo| {
                (other.contestant, other.payload, other.sessions) == (who, row.payload, row.sessions)
            };
            rows.iter().find(same).map(|other| other.cpu_us.median)
        };
        let proxy = row.contestant != Contestant::Direct;
        cells.push([
            row.payload.to_string(),
            row.sessions.to_string(),
            row.contestant.name().to_owned(),
            if proxy { format!("{:.2}", row.cpu_us.median) } else { "-".to_owned() },
            if proxy { range(&row.cpu_us, 1.0) } else { "-".to_owned() },
            optional(row.syscalls),
            format!("{:.0}", row.p50_us),
            format!("{:.0}", row.p99_us),
            format!("{:.0}", row.messages_per_s),
            if proxy { ratio(row.cpu_us.median, of(HaproxyOne)) } else { "-".to_owned() },
            if proxy { ratio(row.cpu_us.median, of(Haproxy)) } else { "-".to_owned() },
        ]);
    }
    section("a message and its reply of the same size", &cells)
}

fn bulk(rows: &[Bulk]) -> String {
    let mut cells = vec![
        ["frame", "sessions", "", "MB/CPU s", "(min–max)", "calls/MiB", "MB/s", "CPU/byte", "CPU/byte"]
            .map(str::to_owned),
        ["", "", "", "", "", "", "", "/haproxy-1", "/haproxy"].map(str::to_owned),
    ];
    for row in rows {
        let cost = |row: &Bulk| row.bytes_per_cpu_s.map(|speed| 1.0 / speed.median);
        let of = |who: Contestant| {
            let same = |other: &&Bulk| {
                (other.contestant, other.frame, other.sessions) == (who, row.frame, row.sessions)
            };
            rows.iter().find(same).and_then(cost)
        };
        let against = |who| cost(row).map_or_else(|| "-".to_owned(), |cost| ratio(cost, of(who)));
        cells.push([
            row.frame.to_string(),
            row.sessions.to_string(),
            row.contestant.name().to_owned(),
            row.bytes_per_cpu_s.map_or_else(|| "-".to_owned(), |speed| format!("{:.0}", speed.median / 1e6)),
            row.bytes_per_cpu_s.map_or_else(|| "-".to_owned(), |speed| range(&speed, 1e6)),
            optional(row.syscalls_per_mib),
            format!("{:.0}", row.bytes_per_s / 1e6),
            against(HaproxyOne),
            against(Haproxy),
        ]);
    }
    section("bytes from backend to client", &cells)
}

fn range(spread: &Spread, unit: f64) -> String {
    let digits = if spread.max / unit < 100.0 { 2 } else { 0 };
    format!("{:.digits$}–{:.digits$}", spread.min / unit, spread.max / unit)
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn ratio(value: f64, to: Option<f64>) -> String {
    match to {
        Some(to) if to > 0.0 => format!("{:.2}", value / to),
        _ => "-".to_owned(),
    }
}

/// A title and rows of cells; text is left-aligned, numbers are right-aligned.
fn section<const N: usize>(title: &str, rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = format!("\n{title}\n");
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let words =
                cell.starts_with(|first: char| first.is_ascii_lowercase()) && cell.contains(['-', 'd']);
            let _ = if words { write!(line, "  {cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows =
            [["direct".to_owned(), "1.00".to_owned()], ["t3-dispatch".to_owned(), "123.45".to_owned()]];
        assert_eq!(section("title", &rows), "\ntitle\n  direct         1.00\n  t3-dispatch  123.45\n");
    }

    #[test]
    fn a_ratio_needs_a_positive_reference() {
        assert_eq!(ratio(1.0, Some(2.0)), "0.50");
        assert_eq!(ratio(1.0, None), "-");
        assert_eq!(ratio(1.0, Some(0.0)), "-");
    }
}
