//! docs/RECORD.md lists what the code writes.
//! `cargo xtask docs` writes the lists.

#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::{fmt::Write, fs, path::PathBuf};

use t3_record::{
    AttemptsRecord, BurstRecord, CloseRecord, How, OpenRecord, TcpCloseRecord,
    journal::{ATTEMPTS_ID, BURST_ID, CLOSE_ID, OPEN_ID, TCP_CLOSE_ID},
    record::Key,
    vocabulary::{Actor, Cause, ClosedBy, Confidence, KernelSource, LegEnd, Segment, Via},
};

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/RECORD.md")
}

fn keys(keys: &[Key]) -> String {
    let mut out = String::from("| key | meaning | value | example | source |\n|---|---|---|---|---|\n");
    for key in keys {
        let always = if key.required { " (always)" } else { "" };
        let _ = writeln!(
            out,
            "| `{}`{always} |{} | {} | `{}` | {} |",
            key.name, key.doc, key.value, key.example, key.source
        );
    }
    out
}

fn words() -> String {
    let mut out = String::from("| vocabulary | words |\n|---|---|\n");
    out.push_str("| `verdict` | see [VERDICTS.md](VERDICTS.md#labels) |\n");
    let mut row = |name: &str, words: Vec<&str>| {
        let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
        let _ = writeln!(out, "| {name} | {} |", words.join(" "));
    };
    row("`cause`", Cause::ALL.iter().map(|w| w.as_str()).collect());
    row("`segment`", Segment::ALL.iter().map(|w| w.as_str()).collect());
    row("`closed_by`", ClosedBy::ALL.iter().map(|w| w.as_str()).collect());
    row("`down_end`, `up_end`", LegEnd::ALL.iter().map(|w| w.as_str()).collect());
    row("`confidence`", Confidence::ALL.iter().map(|w| w.as_str()).collect());
    row("`actor`", Actor::ALL.iter().map(|w| w.as_str()).collect());
    row("`via`", Via::ALL.iter().map(|w| w.as_str()).collect());
    row("`kernel`", KernelSource::ALL.iter().map(|w| w.as_str()).collect());
    // `ws_close` has two forms, with and without a code.
    let mut mechanisms: Vec<&str> = Vec::new();
    for token in How::TOKENS {
        if !mechanisms.contains(token) {
            mechanisms.push(token);
        }
    }
    row("`how` (detail after a colon)", mechanisms);
    out
}

fn replace(text: &str, name: &str, list: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let from = text.find(&begin).expect("the page has the list's begin") + begin.len();
    let to = text.find(&end).expect("the page has the list's end");
    format!("{}{list}{}", &text[..from], &text[to..])
}

#[test]
fn the_page_lists_every_key_and_word() {
    let written = fs::read_to_string(page()).expect("docs/RECORD.md is there");
    let mut expected = written;
    let lists = [
        ("close", keys(CloseRecord::KEYS)),
        ("open", keys(OpenRecord::KEYS)),
        ("burst", keys(BurstRecord::KEYS)),
        ("attempts", keys(AttemptsRecord::KEYS)),
        ("tcp-close", keys(TcpCloseRecord::KEYS)),
        ("words", words()),
    ];
    for (name, list) in lists {
        expected = replace(&expected, name, &list);
    }
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(page(), &expected).expect("docs/RECORD.md can be written");
    }
    assert_eq!(
        fs::read_to_string(page()).unwrap(),
        expected,
        "run `cargo xtask docs` and commit docs/RECORD.md"
    );
}

#[test]
fn the_pages_examples_are_values_of_their_keys() {
    let line: String =
        CloseRecord::KEYS.iter().map(|key| format!(" {}={:?}", key.name, key.example)).collect();
    let record = CloseRecord::from_line(&format!("ws close{line}")).expect("the examples make a record");
    let rewritten = record.pairs();
    let examples: Vec<_> = CloseRecord::KEYS.iter().map(|key| (key.name, key.example.to_owned())).collect();
    assert_eq!(rewritten, examples);
    let line: String =
        TcpCloseRecord::KEYS.iter().map(|key| format!(" {}={:?}", key.name, key.example)).collect();
    let record = TcpCloseRecord::from_line(&format!("tcp close{line}")).expect("the examples make a record");
    let examples: Vec<_> =
        TcpCloseRecord::KEYS.iter().map(|key| (key.name, key.example.to_owned())).collect();
    assert_eq!(record.pairs(), examples);
}

#[test]
fn the_pages_message_ids_are_the_programs() {
    let written = fs::read_to_string(page()).unwrap();
    for id in [CLOSE_ID, OPEN_ID, BURST_ID, ATTEMPTS_ID, TCP_CLOSE_ID] {
        assert!(written.contains(id), "{id}");
    }
}
