//! `t3-trace explain` about a record: the page must give the verdict's answer, name what decided,
//! and be as sure as the record. What it must name is written here a second time, independent of
//! the page's own texts. Pure.

use t3_record::{CloseRecord, Confidence, How, KernelSource, Segment, Side, Verdict};
use t3_trace_cli::{
    explain::{ExplainInput, Page},
    present::text::Paint,
};

use super::Mismatch;
use crate::journald::Entry;

/// Words that a proven answer does not have.
const HEDGES: [&str; 6] = ["likely", "probably", "perhaps", "seems", "might have", "not proven"];

/// Where the page of this record says something else than the record.
pub(super) fn mismatches(record: &CloseRecord, entry: &Entry) -> Vec<Mismatch> {
    let micros = entry.get("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<i64>().ok());
    compared(record, &page(record, micros.unwrap_or_default() / 1000))
}

fn wall(secs: u64) -> String {
    format!("1970-01-01 {secs}")
}

fn page(record: &CloseRecord, at_ms: i64) -> Page {
    Page::of(&ExplainInput::of(record.clone(), at_ms), &[], wall)
}

fn compared(record: &CloseRecord, page: &Page) -> Vec<Mismatch> {
    let text = page.text(Paint { colour: false }, 110, wall);
    let mut mismatches = Vec::new();
    let mut must = |holds: bool, key: &str, expected: String, got: &str| {
        if !holds {
            mismatches.push(Mismatch { key: format!("explain: {key}"), expected, got: got.to_owned() });
        }
    };
    for (key, word) in [
        ("verdict", Some(record.verdict.to_string())),
        ("segment", Some(record.segment.to_string())),
        ("how", record.how.map(|how| how.to_string())),
        ("confidence", record.confidence.map(|confidence| confidence.to_string())),
    ] {
        let line = text.lines().find(|line| line.starts_with("  verdict=")).unwrap_or_default();
        let said = word.as_ref().map(|word| format!("{key}={word}"));
        let holds = said.as_ref().is_none_or(|said| line.split(' ').any(|word| word == said));
        must(holds, key, said.unwrap_or_default(), line);
    }
    let subject = subject(record);
    must(page.answer.contains(subject), "the answer's subject", subject.to_owned(), &page.answer);
    for named in record.how.into_iter().flat_map(|how| decided(how, record)) {
        let said = format!("{} {}", page.answer, page.confidence);
        must(said.contains(&named), "the deciding evidence", named, &said);
    }
    let said = format!("{} {}", page.answer, page.confidence).to_lowercase();
    let hedged = HEDGES.iter().any(|hedge| said.contains(hedge));
    let proven = record.confidence == Some(Confidence::Proven);
    must(hedged != proven, "as sure as the record", format!("{:?}", record.confidence), &said);
    let starved = page.answer.contains("Pressure explains it");
    must(
        !starved || record.segment == Segment::Devvm,
        "blame of the machine",
        record.segment.to_string(),
        &page.answer,
    );
    let calm = text.chars().all(|c| c == '\n' || !c.is_control());
    must(calm, "text", "no control characters".to_owned(), &text);
    must(!page.next.is_empty(), "what to do", "a step".to_owned(), "nothing");
    mismatches
}

/// Whose act the answer must speak of.
fn subject(record: &CloseRecord) -> &'static str {
    match (record.segment, record.verdict) {
        (Segment::None, _) => "no fault",
        (_, Verdict::EdgeBurst) => "several users",
        (_, Verdict::AdminKilled) => "destroyed on this host",
        (_, Verdict::DispatchShutdown | Verdict::DispatchStalled | Verdict::DispatchDied) => "t3-dispatch",
        (Segment::Serve, _) | (_, Verdict::ServeStalled | Verdict::ServeTimeout | Verdict::ServeOom) => {
            "'s serve"
        }
        (Segment::Downstream, _) => "client",
        _ => "",
    }
}

/// Leg of the deciding event.
fn leg(record: &CloseRecord) -> &'static str {
    if record.verdict.side() == Some(Side::Up) { "upstream leg" } else { "downstream leg" }
}

/// Observer of an event on a leg or of the end of serve.
fn observer(record: &CloseRecord) -> &'static str {
    match record.kernel {
        KernelSource::Kprobe | KernelSource::Tracepoint => "(kernel event)",
        KernelSource::Off | KernelSource::Timeout => "(seen by t3-dispatch)",
    }
}

/// The texts with which the page must name the evidence of a mechanism: the event with leg and
/// observer, the signal with its sender, where the record has them.
fn decided(how: How, record: &CloseRecord) -> Vec<String> {
    let (leg, observer) = (leg(record), observer(record));
    let died = record.verdict == Verdict::DispatchDied;
    let process = record.peer_comm.as_ref().zip(record.peer_pid);
    let process = process.map(|(comm, pid)| format!("serve process {comm}[{pid}] "));
    let process = process.unwrap_or_default();
    let named = match how {
        How::WsCloseEmpty => return vec![format!("Close without a code received on the {leg}")],
        How::WsClose(code) => {
            let frame = [format!("Close {code}"), format!("received on the {leg}")];
            // Who requested the end of serve.
            let sender = record.killed_by.clone().filter(|_| record.verdict == Verdict::ServeClosed);
            return frame.into_iter().chain(sender).collect();
        }
        How::Fin => return vec![format!("FIN on the {leg} {observer}, no Close frame before it")],
        How::HalfClose => {
            return vec![format!("FIN on the {leg} {observer}; the other direction stayed open")];
        }
        How::MidFrame => return vec![format!("FIN on the {leg} {observer} inside a frame")],
        How::Rst => return vec![format!("RST on the {leg} {observer}")],
        How::Vanished => "timed out",
        How::ZeroWindow => "window",
        How::Loss if record.verdict == Verdict::ServeTimeout => "no accept queue was full",
        How::Loss => "retransmissions",
        How::FalseAlarm => "in place of the next one",
        How::OtherAddress => "on another address",
        How::ForeignListener => "belongs to uid",
        How::Backlog => "waited for the client's line",
        How::Pause => "did not run",
        How::PowerLoss => "without a shutdown",
        How::Reboot => "was shut down",
        How::HeartbeatLost => "ping",
        How::Stall if record.verdict == Verdict::DispatchStalled => "event loop",
        How::Stall => "unanswered",
        How::Oom => "OOM killer",
        How::Refused => "ECONNREFUSED",
        How::Unreach => "unreachable",
        How::ConnectTimeout => "never accepted",
        How::HandshakeTimeout => "did not answer the upgrade",
        How::HandshakeEof => "before its reply",
        How::BadAccept => "Sec-WebSocket-Accept",
        How::Garbage => "not HTTP",
        How::Protocol => "RFC 6455",
        How::SockDestroy => "ECONNABORTED",
        How::Burst => "within one second",
        How::Simultaneous => "before either saw",
        How::ProxyGone if died => "evidence socket",
        How::ProxyGone => "without a signal",
        How::Exit(status) => {
            let exit = format!("{process}exited with status {status} {observer}");
            let sender = record.killed_by.as_ref().map(|by| format!("; {by} had sent it a signal"));
            return std::iter::once(exit).chain(sender).collect();
        }
        How::Signal(number) => {
            let kill = format!("{process}killed by {} {observer}", signal(number));
            let sender = record.killed_by.as_ref().map(|by| format!("{}, sent by {by}", signal(number)));
            return std::iter::once(kill).chain(sender).collect();
        }
        How::ProxySignal(number) if died => {
            return vec![format!("t3-dispatch was killed by {}", signal(number))];
        }
        How::ProxySignal(number) => return vec![format!("t3-dispatch received {}", signal(number))],
        How::Status(status) => return vec![format!("status {status}")],
        How::LocalError(number) => return vec![format!("error {number}")],
    };
    vec![named.to_owned()]
}

/// The signals of the catalogue with name and number, others with their number.
fn signal(number: i32) -> String {
    match number {
        6 => "SIGABRT (6)".to_owned(),
        9 => "SIGKILL (9)".to_owned(),
        11 => "SIGSEGV (11)".to_owned(),
        15 => "SIGTERM (15)".to_owned(),
        _ => format!("({number})"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::faults::records;

    fn records_of_the_page() -> Vec<CloseRecord> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/VERDICTS.md");
        let page = fs::read_to_string(path).unwrap();
        let found = records::read(&page);
        found.into_iter().map(|(_, line)| CloseRecord::from_line(line.unwrap()).unwrap()).collect()
    }

    #[test]
    fn every_record_of_the_verdicts_page_is_explained_as_it_says() {
        let records = records_of_the_page();
        assert!(records.len() > 20);
        for record in records {
            assert_eq!(compared(&record, &page(&record, 1_000_000)), [], "{}", record.verdict);
        }
    }

    #[test]
    fn the_page_of_another_verdict_is_found() {
        let records = records_of_the_page();
        for record in &records {
            for other in records.iter().filter(|other| other.verdict != record.verdict) {
                let mismatches = compared(record, &page(other, 1_000_000));
                assert!(
                    mismatches.iter().any(|mismatch| mismatch.key == "explain: verdict"),
                    "{} {mismatches:?}",
                    record.verdict
                );
            }
        }
    }

    #[test]
    fn an_answer_that_is_hedged_or_names_nothing_is_found() {
        let mut records = records_of_the_page().into_iter();
        let record = records.find(|record| record.verdict == Verdict::ServeKilled).unwrap();
        for (change, key) in [
            (
                (|page: &mut Page| page.answer.insert_str(0, "Probably: ")) as fn(&mut Page),
                "as sure as the record",
            ),
            (
                |page| {
                    (page.answer, page.confidence) =
                        ("ann's serve was killed.".to_owned(), "Proven.".to_owned());
                },
                "the deciding evidence",
            ),
            (
                |page| page.confidence = page.confidence.replace(" (kernel event)", ""),
                "the deciding evidence",
            ),
            (
                |page| page.confidence = page.confidence.replace("kernel event", "seen by t3-dispatch"),
                "the deciding evidence",
            ),
            (|page| page.answer = page.answer.replace(", sent by", ", not by"), "the deciding evidence"),
            (|page| page.answer = page.answer.replace("serve", "client"), "the answer's subject"),
            (|page| page.answer.push_str(" Pressure explains it."), "blame of the machine"),
            (|page| page.next.clear(), "what to do"),
        ] {
            let mut page = page(&record, 1_000_000);
            change(&mut page);
            let keys: Vec<_> = compared(&record, &page).into_iter().map(|mismatch| mismatch.key).collect();
            assert!(
                !keys.is_empty() && keys.iter().all(|one| *one == format!("explain: {key}")),
                "{key}: {keys:?}"
            );
        }
    }

    #[test]
    fn a_fin_without_its_observer_or_with_another_leg_is_found() {
        let records = records_of_the_page();
        let is_fin = |record: &&CloseRecord| matches!(record.how, Some(How::Fin));
        let found: Vec<_> = records.iter().filter(is_fin).collect();
        assert!(found.len() > 1);
        for record in found {
            for (from, to) in
                [(" (kernel event)", ""), ("kernel event", "seen by t3-dispatch"), ("stream leg", "stream")]
            {
                let mut page = page(record, 1_000_000);
                page.confidence = page.confidence.replace(from, to);
                let keys: Vec<_> = compared(record, &page).into_iter().map(|mismatch| mismatch.key).collect();
                assert_eq!(keys, ["explain: the deciding evidence"], "{from}");
            }
        }
    }
}
