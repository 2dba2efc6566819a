//! One close as one line: id, verdict, user, duration, mechanism, pressure and heartbeat. Pure.
//!
//! Up to the mechanism it fits into 80 columns. The id leads to `t3-trace explain`, and the verdict
//! is the word of the record, of `--verdict` and of the dashboards.

use t3_record::{CloseRecord, Confidence, value::Percent};

use super::{
    text::{Paint, lasted, safe},
    verdict_text::{self, Tone},
};

/// Lower PSI values are not shown, in percent.
const NOTABLE: f32 = 1.0;
/// PSI values from here on are highlighted, in percent.
const HIGH: f32 = 20.0;

/// Width of the verdict column in characters: the longest word.
const VERDICT_WIDTH: usize = 17;

/// Width of the host column in characters; a longer name moves the rest of its line.
const HOST_WIDTH: usize = 12;

/// Returns the column headings, with one of the host if each line has it.
#[must_use]
pub fn heading(shows_host: bool, paint: Paint) -> String {
    let columns = format!(
        "{:8}  {}{:13}  {:width$}  {:11}  {:>8}  {:18}  {}",
        "TIME",
        if shows_host { host_column("HOST") } else { String::new() },
        "CONN",
        "VERDICT",
        "USER",
        "DURATION",
        "HOW",
        "PSI / HEARTBEAT",
        width = VERDICT_WIDTH
    );
    paint.dim(&columns)
}

fn host_column(name: &str) -> String {
    format!("{:HOST_WIDTH$}  ", safe(name))
}

/// Returns the line of a change of the host between closes.
#[must_use]
pub fn change(text: &str, clock: &str, host: Option<&str>, paint: Paint) -> String {
    paint.dim(&format!("{clock}  {}-- {}", host.map_or_else(String::new, host_column), safe(text)))
}

/// Returns the line of one close. `clock` is its time of day; `host` is only for a list of several
/// hosts.
#[must_use]
pub fn close(record: &CloseRecord, clock: &str, host: Option<&str>, paint: Paint) -> String {
    let verdict = format!("{:VERDICT_WIDTH$}", record.verdict.as_str());
    let code = match verdict_text::tone(record.verdict, record.segment) {
        Tone::Fine => "32",
        Tone::Warning => "33",
        Tone::Bad => "1;31",
    };
    // `?` marks a likely verdict.
    let mark = if record.confidence == Some(Confidence::Likely) { "?" } else { " " };
    let how = record.how.map_or_else(String::new, |how| how.to_string());
    let head = format!(
        "{}  {}{:13}  {}{mark} {:11}  {:>8}  {how:18}",
        paint.dim(clock),
        host.map_or_else(String::new, host_column),
        safe(&record.conn),
        paint.with(code, &verdict),
        safe(&record.user),
        lasted(record.dur_ms),
    );
    let details = details(record, paint);
    format!("{head}  {}", details.join("  ")).trim_end().to_owned()
}

/// Whether a PSI value of the host or of serve's cgroup is high.
pub(crate) fn has_high_psi(record: &CloseRecord) -> bool {
    let all = [
        record.psi_io,
        record.psi_mem,
        record.psi_cpu,
        record.host_psi_io,
        record.host_psi_mem,
        record.host_psi_cpu,
    ];
    all.into_iter().flatten().any(|Percent(percent)| percent >= HIGH)
}

/// Returns pressure, heartbeat and other details, one item each.
pub(crate) fn details(record: &CloseRecord, paint: Paint) -> Vec<String> {
    let mut parts = Vec::new();
    let psi: Vec<String> = [("io", record.psi_io), ("mem", record.psi_mem), ("cpu", record.psi_cpu)]
        .into_iter()
        .filter_map(|(name, percent)| notable(name, percent?, paint))
        .collect();
    let host: Vec<String> =
        [("io", record.host_psi_io), ("mem", record.host_psi_mem), ("cpu", record.host_psi_cpu)]
            .into_iter()
            .filter_map(|(name, percent)| notable(name, percent?, paint))
            .collect();
    if !psi.is_empty() {
        parts.push(format!("PSI {}", psi.join(" ")));
    } else if !host.is_empty() {
        parts.push(format!("host PSI {}", host.join(" ")));
    } else if record.psi_io.is_some() || record.host_psi_io.is_some() {
        parts.push(paint.dim("PSI ok"));
    }
    if let Some(kills) = record.oom_kills.filter(|kills| *kills > 0) {
        parts.push(paint.with("1;31", &format!("oom kills {kills}")));
    }
    match (record.hb_wait_ms, record.hb_rtt_ms) {
        (Some(wait), _) => parts.push(paint.with("33", &format!("ping unanswered {}", lasted(wait)))),
        (None, Some(0)) => parts.push("hb RTT <1ms".to_owned()),
        (None, Some(rtt)) => parts.push(format!("hb RTT {rtt}ms")),
        (None, None) => {}
    }
    if let Some(burst) = record.burst {
        parts.push(format!("burst {}/{}", burst.sessions, burst.users));
    }
    if let Some(killer) = &record.killed_by {
        parts.push(format!("by {}", safe(killer)));
    }
    if let Some(victim) = &record.oom_victim {
        parts.push(format!("victim {}", safe(victim)));
    }
    if record.reconciled.is_some() {
        parts.push(paint.dim("reconciled"));
    }
    if matches!(record.kernel.as_str(), "off" | "timeout") {
        parts.push(paint.dim(&format!("kernel={}", record.kernel)));
    }
    parts
}

fn notable(name: &str, Percent(percent): Percent, paint: Paint) -> Option<String> {
    let text = format!("{name} {percent:.0}%");
    (percent >= NOTABLE).then(|| if percent >= HIGH { paint.with("1;33", &text) } else { text })
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, How, KernelSource, Segment, Verdict};

    use super::*;

    const PLAIN: Paint = Paint { colour: false };

    fn record(verdict: Verdict) -> CloseRecord {
        CloseRecord::new(
            "wizard".to_owned(),
            "192.0.2.7".to_owned(),
            192_000,
            Cause::UpstreamClosed,
            verdict,
            Segment::Serve,
            "k3v9q0a1b2c3d".to_owned(),
            KernelSource::Tracepoint,
        )
    }

    #[test]
    fn every_verdict_fits_its_column() {
        let longest = Verdict::ALL.iter().map(|verdict| verdict.as_str().len()).max();
        assert_eq!(longest, Some(VERDICT_WIDTH));
        let mut closed = record(Verdict::DispatchShutdown);
        closed.how = Some(How::WsClose(1000));
        let line = close(&closed, "12:34:56", None, PLAIN);
        assert!(line.len() <= 80, "{} columns: {line}", line.len());
    }

    #[test]
    fn a_kill_is_one_line() {
        let mut killed = record(Verdict::ServeKilled);
        killed.how = Some(How::Signal(9));
        killed.confidence = Some(Confidence::Proven);
        killed.psi_io = Some(Percent(45.2));
        killed.psi_mem = Some(Percent(0.4));
        killed.hb_rtt_ms = Some(12);
        killed.killed_by = Some("systemd[1]".to_owned());
        assert_eq!(
            close(&killed, "12:34:56", None, PLAIN),
            "12:34:56  k3v9q0a1b2c3d  serve_killed       wizard          3m12s  signal:9            PSI io 45%  hb RTT 12ms  by systemd[1]"
        );
    }

    #[test]
    fn columns_are_aligned_with_their_headings() {
        let line = close(&record(Verdict::Unknown), "12:34:56", None, PLAIN);
        let heading = heading(false, PLAIN);
        let with_host = close(&record(Verdict::Unknown), "12:34:56", Some("devvm2"), PLAIN);
        let other = super::heading(true, PLAIN);
        assert_eq!(other.find("HOST"), with_host.find("devvm2"));
        assert_eq!(other.find("CONN"), with_host.find("k3v9"));
        assert_eq!(heading.find("CONN"), line.find("k3v9"));
        assert_eq!(heading.find("VERDICT"), line.find("unknown"));
        assert_eq!(heading.find("USER"), line.find("wizard"));
        assert_eq!(heading.find("DURATION").map(|at| at + 8), line.find("3m12s").map(|at| at + 5));
    }

    #[test]
    fn a_likely_verdict_is_marked_and_absent_values_are_not_shown() {
        let mut likely = record(Verdict::ServeLeft);
        likely.confidence = Some(Confidence::Likely);
        let line = close(&likely, "12:34:56", None, PLAIN);
        assert!(line.contains("serve_left       ? wizard"), "{line}");
        assert!(!line.contains("PSI") && !line.contains("hb") && !line.contains("kernel"), "{line}");
    }

    #[test]
    fn a_folded_line_keeps_every_part_whole() {
        let mut busy = record(Verdict::ServeOom);
        busy.how = Some(How::Signal(9));
        busy.psi_io = Some(Percent(45.2));
        busy.psi_mem = Some(Percent(71.0));
        busy.oom_kills = Some(2);
        busy.hb_wait_ms = Some(15_000);
        busy.killed_by = Some("kill of an operator[4242]".to_owned());
        busy.oom_victim = Some("node serve.js --port 3773".to_owned());
        busy.kernel = KernelSource::Off;
        let line = close(&busy, "12:34:56", None, PLAIN);
        for width in [60, 80, 120] {
            let folded = crate::present::text::folded(&line, Some(width));
            assert!(folded.lines().all(|line| line.chars().count() <= width), "{width}:\n{folded}");
            assert!(folded.split_whitespace().eq(line.split_whitespace()), "{width}:\n{folded}");
            let parts = details(&busy, PLAIN);
            assert_eq!(parts.len(), 6);
            for part in parts.iter().map(String::as_str).chain(["serve_oom", "wizard"]) {
                assert!(folded.lines().any(|line| line.contains(part)), "{part:?} at {width}:\n{folded}");
            }
        }
    }

    #[test]
    fn plain_lines_have_no_escapes_and_hostile_text_adds_none() {
        let mut hostile = record(Verdict::ServeOom);
        hostile.user = "a\x1b[2Jb\n".to_owned();
        hostile.oom_victim = Some("x\x07".to_owned());
        assert!(!close(&hostile, "12:34:56", None, PLAIN).contains(|c: char| c.is_control()));
        let coloured = close(&hostile, "12:34:56", None, Paint { colour: true });
        assert!(coloured.contains("\x1b[1;31m") && !coloured.contains("\x1b[2J"));
    }
}
