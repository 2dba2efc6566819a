//! Golden pages of `t3-trace explain` for faults of the catalogue.
//!
//! Each `golden/explain/NAME.in` has the content of the journal and of the layers, one item per
//! line with its time in milliseconds since the epoch; the first `ws close` is explained.
//! `cargo xtask docs` writes the pages.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed helper fails its test")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use t3_record::{
    BurstRecord, CloseRecord, OpenRecord,
    edge::{cloudflared, logpush, traefik},
    probe::Disconnect,
};
use t3_trace_cli::{
    explain::{
        ExplainInput, Page,
        facts::{Context, Timed},
        find::Close,
    },
    layers::{Layer, Outcome, QueryStatus},
    present::text::Paint,
};

/// Faults with a page.
const PAGES: [&str; 12] = [
    "burst_fin",
    "client_close_1001",
    "client_vanished_idle",
    "client_watchdog_path",
    "dispatch_sigkill",
    "memory_high",
    "serve_401",
    "serve_exit_1_without_kernel",
    "serve_mute",
    "serve_oom",
    "serve_sigkill",
    "serve_sigkill_edge_contradicts",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explain")
}

/// `2026-11-25 14:10:07` in UTC.
fn wall(secs: u64) -> String {
    let (days, of_day) = (i64::try_from(secs / 86_400).unwrap(), secs % 86_400);
    // The inverse of `Date::days`: Howard Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let of_era_year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * march + 2) / 5 + 1, if march < 10 { march + 3 } else { march - 9 });
    let year = of_era_year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Parses an input file.
fn facts(text: &str) -> ExplainInput {
    let lines = || text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parts =
        lines().map(|line| line.split_once(' ').unwrap()).map(|(at, rest)| (at.parse().unwrap(), rest));
    let mut facts: Option<ExplainInput> = None;
    let mut around = Context::default();
    let mut opens: Vec<Timed<OpenRecord>> = Vec::new();
    let mut gathered = t3_trace_cli::layers::LayerData::default();
    for (at_ms, rest) in parts.clone() {
        if let Ok(what) = CloseRecord::from_line(rest) {
            if facts.is_none() {
                facts = Some(ExplainInput::of(what, at_ms));
            } else {
                around.closes.push(Timed { at_ms, what });
            }
        } else if let Ok(what) = OpenRecord::from_line(rest) {
            opens.push(Timed { at_ms, what });
        } else if let Ok(what) = BurstRecord::from_line(rest) {
            around.bursts.push(Timed { at_ms, what });
        } else if let Some(disconnect) = Disconnect::from_line(rest) {
            around.disconnects.push(disconnect);
        } else if let Some(line) = rest.strip_prefix("systemd ") {
            around.units.push(Timed { at_ms, what: line.to_owned() });
        } else if let Some(line) = rest.strip_prefix("kernel ") {
            around.kernel.push(Timed { at_ms, what: line.to_owned() });
        } else if let Some(line) = rest.strip_prefix("host ") {
            around.host.push(Timed { at_ms, what: line.to_owned() });
        } else if let Some(line) = rest.strip_prefix("logpush ") {
            gathered.layers.logpush.get_or_insert_default().take(line, logpush::parse(line));
        } else if let Some(line) = rest.strip_prefix("traefik ") {
            gathered.layers.traefik.get_or_insert_default().take(line, traefik::parse(line));
        } else if let Some(line) = rest.strip_prefix("cloudflared ") {
            gathered.layers.cloudflared.get_or_insert_default().take(line, cloudflared::parse(line));
        } else {
            panic!("unknown item: {rest}");
        }
    }
    let mut facts = facts.unwrap();
    let conn = facts.record.conn.clone();
    facts.open = opens.iter().find(|open| open.what.conn == conn).cloned();
    facts.back = opens.iter().find(|open| open.what.prev.as_ref() == Some(&conn)).cloned();
    let zero = facts.zero_ms();
    (around.from_ms, around.until_ms) = (zero - 60_000, zero + 75_000);
    gathered.layers.neighbours =
        around.closes.iter().map(|close| (close.what.clone(), close.at_ms)).collect();
    facts.around = Some(around);
    let lines = |prefix: &str| parts.clone().filter(|(_, rest)| rest.starts_with(prefix)).count();
    gathered.outcomes = Layer::ALL
        .map(|layer| {
            let (prefix, from) = match layer {
                Layer::Traefik => ("traefik ", "the file traefik.log"),
                Layer::Cloudflared => ("cloudflared ", "the file cloudflared.log"),
                Layer::Logpush => ("logpush ", "the folder logpush"),
                _ => ("", ""),
            };
            let queried = !prefix.is_empty() && lines(prefix) > 0;
            let yes = QueryStatus::Yes { from: from.to_owned(), found: lines(prefix), note: None };
            Outcome { layer, status: if queried { yes } else { QueryStatus::No } }
        })
        .to_vec();
    facts.gathered = gathered;
    facts
}

fn page(name: &str) -> String {
    Page::of(&input(name), &[], wall).text(Paint { colour: false }, 110, wall)
}

/// The page with a list of other closes, as if the selection matched them too.
fn page_at(name: &str, width: usize) -> String {
    let facts = input(name);
    let others = facts.around.iter().flat_map(|around| &around.closes).take(2);
    let near = others.map(|close| Close {
        record: close.what.clone(),
        at_ms: close.at_ms,
        written_ms: close.at_ms,
        host: None,
    });
    Page::of(&facts, &near.collect::<Vec<_>>(), wall).text(Paint { colour: false }, width, wall)
}

fn input(name: &str) -> ExplainInput {
    facts(&fs::read_to_string(folder().join(format!("{name}.in"))).unwrap())
}

#[test]
fn every_fault_has_its_page() {
    let mut wrong = Vec::new();
    for name in PAGES {
        let page = page(name);
        let file = folder().join(format!("{name}.txt"));
        if std::env::var_os("T3_UPDATE_DOCS").is_some() {
            fs::write(&file, &page).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        if golden != page {
            wrong.push(format!("{}:\n{page}", file.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "differs from the golden file (`cargo xtask docs` updates it)\n{}",
        wrong.join("\n")
    );
}

/// A `\\` at the end of a line continues a command.
#[test]
fn a_page_fits_its_terminal_and_breaks_no_word() {
    let words =
        |text: &str| text.replace(" \\\n", "\n").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    for name in PAGES {
        let expected = words(&page_at(name, usize::MAX));
        for width in [60, 80, 120] {
            let page = page_at(name, width);
            let longest = page.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(longest.chars().count() <= width, "{name} at {width}: {longest}\n{page}");
            assert_eq!(words(&page), expected, "{name} at {width}:\n{page}");
        }
    }
}

#[test]
fn a_page_is_folded_at_60_and_80_columns() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explain-folded");
    for (name, width) in [("serve_sigkill", 60), ("serve_mute", 80)] {
        let file = folder.join(format!("{name}-{width}.txt"));
        let page = page_at(name, width);
        if std::env::var_os("T3_UPDATE_DOCS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &page).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert!(golden == page, "{} differs (`cargo xtask docs` updates it)\n{page}", file.display());
    }
}

/// docs/EXPLAIN.md has the page after its marker.
#[test]
fn the_docs_have_the_current_page() {
    const BEGIN: &str = "<!-- page:serve_sigkill -->\n";
    const END: &str = "\n## How to read it";
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/EXPLAIN.md");
    let manual = fs::read_to_string(&file).unwrap();
    let page = page("serve_sigkill");
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") };
    let shown: String = page.lines().map(line).collect();
    let (before, rest) = manual.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{shown}{END}{after}");
    if std::env::var_os("T3_UPDATE_DOCS").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    let same = fs::read_to_string(&file).unwrap() == expected;
    assert!(same, "{} differs from explain (`cargo xtask docs` updates it)", file.display());
}

#[test]
fn every_golden_file_has_a_test() {
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(there, PAGES.map(str::to_owned).into());
}

#[test]
fn wall_formats_known_times() {
    for (secs, text) in [
        (0, "1970-01-01 00:00:00"),
        (1_709_164_799, "2024-02-28 23:59:59"),
        (1_709_208_000, "2024-02-29 12:00:00"),
        (1_785_110_400, "2026-07-27 00:00:00"),
    ] {
        assert_eq!(wall(secs), text);
    }
}
