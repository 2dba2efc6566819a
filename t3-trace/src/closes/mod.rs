//! `t3-trace closes`: the closes that the journal holds, as a table with a summary, as JSON or as CSV. Only reads; the parts that
//! decide are pure and live in the modules below.

pub mod args;
pub mod csv;
pub mod filter;
pub mod read;
pub mod summary;

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::Context;
use t3_record::journal::OPEN_ID;

use crate::{
    journal_trust::{DISPATCH_USER, Trust},
    live::{
        entry::{self, Unusable},
        line::{self, Paint},
        local_time,
    },
};
use args::ClosesArgs;
use summary::Summary;

/// Progress is told this often, and not before.
const PROGRESS: Duration = Duration::from_secs(1);

/// Shows the closes, until the journal's end or until nobody reads them.
///
/// # Errors
/// When the journal cannot be read to its end, or the output fails for another reason than a reader that has gone.
pub fn run(args: &ClosesArgs) -> anyhow::Result<()> {
    let stdout = io::stdout();
    let no_colour = args.plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = Paint { colour: stdout.is_terminal() && !no_colour };
    let trust = Trust::in_user(DISPATCH_USER);
    let out = BufWriter::new(stdout.lock());
    let mut shown = Shown { out, args, paint, trust, day: String::new(), broken: 0, foreign: 0 };
    let written = shown.all().context("read the closes")?;
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write the closes"),
    }
}

struct Shown<'a, W> {
    out: W,
    args: &'a ClosesArgs,
    paint: Paint,
    trust: Trust,
    day: String,
    broken: u64,
    /// Entries that somebody else wrote in our name.
    foreign: u64,
}

impl<W: Write> Shown<'_, W> {
    fn all(&mut self) -> Result<io::Result<()>, read::ReadError> {
        let mut summary = Summary::default();
        if let Err(error) = self.heading() {
            return Ok(Err(error));
        }
        let mut progress = Progress::new();
        let read = read::lines(self.args, |line| {
            progress.step();
            self.line(line, &mut summary)
        });
        progress.end();
        if let Err(error) = read? {
            return Ok(Err(error));
        }
        if self.broken > 0 {
            let _ = writeln!(io::stderr(), "t3-trace closes: {} records could not be read", self.broken);
        }
        if self.foreign > 0 {
            let foreign = self.foreign;
            let _ = writeln!(
                io::stderr(),
                "t3-trace closes: left out {foreign} records that others than t3-dispatch, t3-trace and root wrote into the journal"
            );
        }
        Ok(self.foot(summary))
    }

    fn heading(&mut self) -> io::Result<()> {
        if self.args.csv {
            writeln!(self.out, "{}", csv::heading())
        } else if self.args.json || self.args.summary {
            Ok(())
        } else {
            writeln!(self.out, "{}", line::heading(self.paint))
        }
    }

    fn line(&mut self, line: &str, summary: &mut Summary) -> io::Result<()> {
        let Some(fields) = entry::fields(line) else { return Ok(()) };
        if fields.get("MESSAGE_ID").is_some_and(|id| id == OPEN_ID) {
            if !self.trust.allows(&fields) {
                self.foreign += 1;
                return Ok(());
            }
            let of_user = fields.get("T3_USER").is_some_and(|user| filter::of_user(self.args, user));
            let gap = fields.get("T3_GAP_MS").and_then(|gap| gap.parse().ok());
            gap.filter(|_| of_user).into_iter().for_each(|gap| summary.gap(gap));
            return Ok(());
        }
        let (record, at) = match entry::of(&fields, self.trust) {
            Ok(Some(close)) => close,
            Ok(None) => return Ok(()),
            Err(Unusable::Broken(_)) => {
                self.broken += 1;
                return Ok(());
            }
            Err(Unusable::Foreign { .. }) => {
                self.foreign += 1;
                return Ok(());
            }
        };
        if !filter::wanted(self.args, &record) {
            return Ok(());
        }
        if self.args.csv {
            return writeln!(self.out, "{}", csv::row(&record, at));
        }
        if self.args.json {
            serde_json::to_writer(&mut self.out, &record).map_err(io::Error::from)?;
            return writeln!(self.out);
        }
        summary.close(&record, at);
        if self.args.summary {
            return Ok(());
        }
        let day = local_time::day(at);
        if day != self.day {
            writeln!(self.out, "{day}")?;
            self.day = day;
        }
        writeln!(self.out, "{}", line::close(&record, &local_time::clock(at), self.paint))
    }

    fn foot(&mut self, summary: Summary) -> io::Result<()> {
        if !(self.args.csv || self.args.json || self.args.no_summary) {
            if !self.args.summary {
                writeln!(self.out)?;
            }
            let text = summary.text(|at| format!("{} {}", local_time::day(at), local_time::clock(at)));
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }
}

/// How far the reading is, on stderr, when that is a terminal and stdout is not being filled there.
struct Progress {
    on: bool,
    read: u64,
    told: Instant,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { on: io::stderr().is_terminal(), read: 0, told: Instant::now(), shown: false }
    }

    fn step(&mut self) {
        self.read += 1;
        if self.on && self.read.is_multiple_of(1024) && self.told.elapsed() >= PROGRESS {
            let _ = write!(io::stderr(), "\r{} records read", self.read);
            self.told = Instant::now();
            self.shown = true;
        }
    }

    fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, CloseRecord, KernelSource, Segment, Verdict};

    use super::*;

    pub(super) fn record(user: &str, verdict: Verdict, segment: Segment, dur_ms: u64) -> CloseRecord {
        CloseRecord::new(
            user.to_owned(),
            "192.0.2.7".to_owned(),
            dur_ms,
            Cause::UpstreamClosed,
            verdict,
            segment,
            "c1".to_owned(),
            KernelSource::Tracepoint,
        )
    }

    fn shown(args: &ClosesArgs) -> String {
        let paint = Paint { colour: false };
        let trust = Trust { dispatch: Some(991) };
        let mut shown =
            Shown { out: Vec::new(), args, paint, trust, day: String::new(), broken: 0, foreign: 0 };
        let mut summary = Summary::default();
        shown.heading().unwrap();
        let fields = record("alice", Verdict::ServeKilled, Segment::Serve, 5000).to_fields();
        let mut fields: serde_json::Map<String, serde_json::Value> =
            fields.into_iter().map(|(name, value)| (name.into_owned(), value.into())).collect();
        fields.insert("__REALTIME_TIMESTAMP".to_owned(), "1700000042123456".into());
        fields.insert("_UID".to_owned(), "1000".into());
        let forged = serde_json::to_string(&fields).unwrap();
        fields.insert("_UID".to_owned(), "991".into());
        let whole = serde_json::to_string(&fields).unwrap();
        fields.remove("T3_CONN");
        let broken = serde_json::to_string(&fields).unwrap();
        let open = |uid, gap| {
            format!(
                "{{\"MESSAGE_ID\":\"{OPEN_ID}\",\"_UID\":\"{uid}\",\"T3_USER\":\"alice\",\"T3_GAP_MS\":\"{gap}\"}}"
            )
        };
        for line in [whole, broken, forged, open(991, 40), open(1000, 9000), "no json".to_owned()] {
            shown.line(&line, &mut summary).unwrap();
        }
        assert_eq!((shown.broken, shown.foreign), (1, 2));
        shown.foot(summary).unwrap();
        String::from_utf8(shown.out).unwrap()
    }

    #[test]
    fn a_table_has_its_summary_below_and_each_form_is_by_itself() {
        let table = shown(&ClosesArgs::default());
        assert!(table.starts_with("TIME ") && table.contains("  serve was killed  "), "{table}");
        assert!(table.contains("\n\n1 closes\n") && table.contains("reconnected after  p10 40ms"), "{table}");
        let summary = shown(&ClosesArgs { summary: true, ..ClosesArgs::default() });
        assert!(summary.starts_with("1 closes\n"), "{summary}");
        let only = shown(&ClosesArgs { no_summary: true, ..ClosesArgs::default() });
        assert_eq!(only.lines().count(), 3, "{only}");
        let json = shown(&ClosesArgs { json: true, ..ClosesArgs::default() });
        assert!(json.starts_with('{') && json.lines().count() == 1, "{json}");
        let csv = shown(&ClosesArgs { csv: true, ..ClosesArgs::default() });
        assert!(csv.starts_with("time,user,") && csv.lines().count() == 2, "{csv}");
    }
}
