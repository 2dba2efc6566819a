//! `t3-trace explain` about a record: the page must give the verdict's answer, name what decided,
//! and be as sure as the record. What it must name is written here a second time, independent of
//! the page's own texts. Pure.

use t3_record::{CloseRecord, Confidence, How, Segment, Verdict};
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
    if let Some(named) = record.how.map(|how| decided(how, record)) {
        let said = format!("{} {}", page.answer, page.sure);
        must(said.contains(&named), "the deciding evidence", named, &said);
    }
    let said = format!("{} {}", page.answer, page.sure).to_lowercase();
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

/// The evidence that a mechanism rests on, as the page must name it.
fn decided(how: How, record: &CloseRecord) -> String {
    let named = match how {
        How::WsCloseEmpty => "Close without a code",
        How::WsClose(code) => return format!("Close {code}"),
        How::Fin | How::HalfClose | How::MidFrame => "FIN",
        How::Rst => "RST",
        How::Vanished => "timed out",
        How::ZeroWindow => "window",
        How::Loss => "retransmissions",
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
        How::ProxyGone if record.verdict == Verdict::DispatchDied => "evidence socket",
        How::ProxyGone => "without a signal",
        How::Exit(status) => return format!("status {status}"),
        How::Signal(9) | How::ProxySignal(9) => "SIGKILL (9)",
        How::Signal(15) | How::ProxySignal(15) => "SIGTERM (15)",
        How::Signal(number) | How::ProxySignal(number) => return format!("({number})"),
        How::Status(status) => return format!("status {status}"),
        How::LocalError(number) => return format!("error {number}"),
    };
    named.to_owned()
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
        let mut keys = Vec::new();
        for change in [
            (|page: &mut Page| page.answer.insert_str(0, "Probably: ")) as fn(&mut Page),
            |page| (page.answer, page.sure) = ("ann's serve was killed.".to_owned(), "Proven.".to_owned()),
            |page| page.answer = page.answer.replace("serve", "client"),
            |page| page.answer.push_str(" Pressure explains it."),
            |page| page.next.clear(),
        ] {
            let mut page = page(&record, 1_000_000);
            change(&mut page);
            keys.extend(compared(&record, &page).into_iter().map(|mismatch| mismatch.key));
        }
        let expected = [
            "as sure as the record",
            "the deciding evidence",
            "the answer's subject",
            "blame of the machine",
            "what to do",
        ];
        assert_eq!(keys, expected.map(|key| format!("explain: {key}")));
    }
}
