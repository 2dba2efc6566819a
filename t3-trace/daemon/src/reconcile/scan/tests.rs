//! Scans of recorded journalctl output, printed by a script in place of journalctl.

use proptest::prelude::*;
use tempfile::TempDir;

use super::{journalctl::fake, *};

const TRUST: Trust = Trust { dispatch: Some(991) };
const SEVENTH: Moment = Moment { wall_us: 1_700_000_000_000_007, monotonic: 7_000 };
const BOOT: &str = "0123456789abcdef0123456789abcdef";

fn cursor(n: u64) -> String {
    format!("s=aa;i={n:x};b={BOOT};m={n:x};t={n:x};x=f{n:x}")
}

/// A line of `journalctl --output=json`, of dispatch.
fn line(n: u64, id: &str, more: &str) -> String {
    format!(
        "{{\"__CURSOR\":\"{}\",\"__REALTIME_TIMESTAMP\":\"170000000000000{n}\",\"__MONOTONIC_TIMESTAMP\":\"{n}\",\
         \"_BOOT_ID\":\"{BOOT}\",\"_UID\":\"991\",\"MESSAGE_ID\":\"{id}\"{more}}}",
        cursor(n)
    )
}

fn open(n: u64) -> String {
    let kept = if n == 3 { ",\"T3_KEPT\":\"true\"" } else { "" };
    let more =
        format!(",\"T3_CONN\":\"c{n}\",\"T3_USER\":\"wizard\",\"T3_IP\":\"192.0.2.7\",\"_PID\":\"42\"{kept}");
    line(n, OPEN_ID, &more)
}

fn close(n: u64, conn: &str) -> String {
    line(n, CLOSE_ID, &format!(",\"T3_CONN\":\"{conn}\""))
}

fn opened(n: u64) -> Found {
    Found::Open(OpenEntry {
        conn: format!("c{n}"),
        user: "wizard".to_owned(),
        ip: "192.0.2.7".to_owned(),
        ray: None,
        is_kept: n == 3,
        boot_id: BOOT.to_owned(),
        pid: Some(42),
        monotonic_us: n,
        realtime_us: 1_700_000_000_000_000 + n,
    })
}

fn closed(conn: &str) -> Found {
    Found::Close { conn: conn.to_owned() }
}

/// A journalctl that lists two boots, writes its arguments to a file, and prints these lines and
/// runs this command for any read.
fn journal(lines: &[String], then: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("lines"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let script = format!(
        "echo \"$*\" >> {}\ncase \"$*\" in *--list-boots*) echo \" -1 {BOOT} Mon—Mon\"; exit 0;; esac\ncat {}\n{then}",
        path("args"),
        path("lines")
    );
    fake::set(&dir, &script);
    dir
}

fn calls(dir: &TempDir) -> Vec<String> {
    std::fs::read_to_string(dir.path().join("args")).unwrap().lines().map(str::to_owned).collect()
}

async fn read(from: &From) -> (Result<Scanned, ScanError>, Vec<Found>) {
    let mut all = Vec::new();
    let scanned = scan(from, TRUST, |found| all.push(found)).await;
    (scanned, all)
}

#[tokio::test]
async fn records_of_this_boot_and_the_one_before_are_read_in_order() {
    let dir = journal(&[open(1), close(2, "c1"), open(3)], "");
    let (scanned, all) = read(&From::Boots).await;
    let expected = Scanned { cursor: Some(cursor(3)), entries: 3, ..Scanned::default() };
    assert_eq!(scanned.unwrap(), expected);
    assert_eq!(all, [opened(1), closed("c1"), opened(3)]);
    let this = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().replace('-', "");
    let calls = calls(&dir);
    assert!(
        calls[1].ends_with(&format!(
            "MESSAGE_ID={OPEN_ID} MESSAGE_ID={CLOSE_ID} _BOOT_ID={this} _BOOT_ID={BOOT}"
        )),
        "{calls:?}"
    );
}

#[tokio::test]
async fn an_empty_journal_has_no_cursor_whatever_the_exit_status() {
    for then in ["exit 0", "exit 1"] {
        let _dir = journal(&[], then);
        let (scanned, all) = read(&From::Boots).await;
        assert_eq!((scanned.unwrap(), all), (Scanned::default(), vec![]), "{then}");
    }
}

#[tokio::test]
async fn after_a_cursor_its_own_entry_is_not_passed() {
    let dir = journal(&[open(1), close(2, "c1")], "");
    // journald has moved the entry to another file, with another sequence number.
    let moved = cursor(1).replace("s=aa;i=1", "s=bb;i=77");
    let (scanned, all) = read(&From::Cursor(moved.clone())).await;
    let expected = Scanned { cursor: Some(cursor(2)), entries: 1, ..Scanned::default() };
    assert_eq!((scanned.unwrap(), all), (expected, vec![closed("c1")]));
    let calls = calls(&dir);
    assert!(calls.len() == 1 && calls[0].contains(&format!("--cursor={moved} MESSAGE_ID=")), "{calls:?}");
}

#[tokio::test]
async fn without_the_entry_of_the_cursor_both_boots_are_read() {
    for lost in [cursor(9), "garbage".to_owned(), String::new()] {
        let _dir = journal(&[open(1), close(2, "c1")], "");
        let (scanned, all) = read(&From::Cursor(lost.clone())).await;
        let expected = Scanned { cursor: Some(cursor(2)), entries: 2, restarted: true, ..Scanned::default() };
        assert_eq!((scanned.unwrap(), all), (expected, vec![opened(1), closed("c1")]), "{lost}");
    }
}

#[tokio::test]
async fn unusable_entries_are_counted_and_the_rest_is_read() {
    let huge = line(3, CLOSE_ID, &format!(",\"T3_CONN\":\"{}\"", "x".repeat(1 << 19)));
    let foreign = close(4, "c1").replace("\"_UID\":\"991\"", "\"_UID\":\"1000\"");
    let without_user = open(5).replace("T3_USER", "OTHER");
    let too_long = line(6, CLOSE_ID, ",\"T3_CONN\":null");
    let other_id = close(7, "c1").replace(CLOSE_ID, "00");
    let lines = ["garbage".to_owned(), "[]".to_owned(), huge, foreign, without_user, too_long, other_id];
    let lines = [vec![open(1)], lines.to_vec(), vec![close(8, "c2")]].concat();
    let _dir = journal(&lines, "");
    let (scanned, all) = read(&From::Boots).await;
    let expected = Scanned { cursor: Some(cursor(8)), entries: 9, skipped: 7, ..Scanned::default() };
    assert_eq!((scanned.unwrap(), all), (expected, vec![opened(1), closed("c2")]));
}

#[tokio::test]
async fn values_that_are_no_texts_are_read() {
    let bytes = open(1).replace("\"wizard\"", "[119,105,122,27,255]");
    let twice = open(2).replace("\"wizard\"", "[\"wizard\",\"mallory\"]");
    let unprintable_twice = open(3).replace("\"wizard\"", "[[119,27],\"mallory\"]");
    let escaped = open(4).replace("\"wizard\"", "\"wiz\\u0061rd\"");
    let mixed = open(5).replace("\"wizard\"", "[1,\"x\"]");
    let _dir = journal(&[bytes, twice, unprintable_twice, escaped, mixed], "");
    let (scanned, all) = read(&From::Boots).await;
    let users: Vec<_> = all
        .into_iter()
        .map(|found| match found {
            Found::Open(open) => open.user,
            Found::Close { conn } => conn,
        })
        .collect();
    assert_eq!(users, ["wiz\u{1b}\u{fffd}", "wizard", "w\u{1b}", "wizard"]);
    assert_eq!(scanned.unwrap().skipped, 1);
}

#[tokio::test]
async fn damaged_files_are_warnings_and_failures_are_errors() {
    let message = "Journal file /x\u{1b}[2J.journal is truncated, ignoring file.";
    let _dir = journal(&[open(1)], &format!("echo '{message}' >&2"));
    let (scanned, _) = read(&From::Boots).await;
    assert_eq!(scanned.unwrap().warnings, [message.replace('\u{1b}', "\u{fffd}")]);
    let _dir = journal(&[open(1)], "yes 'Failed to iterate through journal' | head -n 9999 >&2; exit 1");
    let (scanned, all) = read(&From::Boots).await;
    let Err(ScanError::Failed { stderr, .. }) = scanned else { panic!("{scanned:?}") };
    assert!(stderr.starts_with("Failed to iterate") && stderr.len() < 4096, "{}", stderr.len());
    assert_eq!(all, [opened(1)]);
}

#[tokio::test]
async fn a_missing_or_silent_journalctl_is_an_error_of_its_own() {
    fake::remove();
    assert!(matches!(sync().await, Err(ScanError::NoProgram)));
    assert!(matches!(read(&From::Boots).await.0, Err(ScanError::NoProgram)));
    let _dir = journal(&[open(1)], "exec sleep 60");
    let (scanned, all) = read(&From::Boots).await;
    assert!(matches!(scanned, Err(ScanError::Slow(_))), "{scanned:?}");
    assert_eq!(all, [opened(1)]);
}

#[tokio::test]
async fn sync_reports_that_journald_does_not_confirm() {
    let dir = tempfile::tempdir().unwrap();
    fake::set(&dir, "exit 0");
    sync().await.unwrap();
    fake::set(&dir, "echo 'Failed to connect' >&2; exit 1");
    let error = sync().await.unwrap_err().to_string();
    assert!(error.contains("Failed to connect"), "{error}");
    fake::set(&dir, "exec sleep 60");
    assert!(matches!(sync().await, Err(ScanError::Sync(_)) | Err(ScanError::Slow(_))));
}

#[tokio::test]
async fn times_are_those_of_the_first_line() {
    let dir = journal(&[open(7), open(8)], "exec sleep 60");
    let oldest = oldest_entry().await.unwrap().unwrap();
    assert_eq!((oldest.boot_id.as_str(), oldest.monotonic_us), (BOOT, 7));
    assert_eq!(last_sign(BOOT, Some(42)).await.unwrap(), Some(SEVENTH));
    assert_eq!(last_sign(BOOT, None).await.unwrap(), Some(SEVENTH));
    let calls = calls(&dir);
    let field = "--quiet --no-pager --output=json --output-fields=_BOOT_ID";
    let newest = format!("{field} --reverse --lines=1 _BOOT_ID={BOOT}");
    assert_eq!(calls, [field.to_owned(), format!("{newest} _PID=42"), newest]);
    let _dir = journal(&[], "");
    assert_eq!(oldest_entry().await.unwrap(), None);
}

#[tokio::test]
async fn a_search_asks_for_two_hundred_sessions_at_once_and_believes_trusted_writers() {
    let forged = close(8, "c8").replace("\"_UID\":\"991\"", "\"_UID\":\"1000\"");
    let dir = journal(&[close(7, "c7"), forged], "");
    let conns: Vec<String> = (0..450).map(|n| format!("c{n}")).collect();
    assert_eq!(recorded(&conns, TRUST).await.unwrap(), BTreeSet::from(["c7".to_owned()]));
    let terms = |call: &String| call.matches(" T3_CONN=").count();
    assert_eq!(calls(&dir).iter().map(terms).collect::<Vec<_>>(), [200, 200, 50]);
    assert!(recorded(&[], TRUST).await.unwrap().is_empty());
    assert_eq!(calls(&dir).len(), 3);
}

#[tokio::test]
async fn a_boot_ended_cleanly_when_journald_stopped_last() {
    for (id, clean) in
        [(JOURNALD_STOPPED, true), (UNIT_STOPPING, true), (JOURNALD_STARTED, false), (UNIT_STARTING, false)]
    {
        let _dir = journal(&[line(1, id, "")], "");
        assert_eq!(ended_cleanly(BOOT).await.unwrap(), clean, "{id}");
    }
    let _dir = journal(&[], "");
    assert!(!ended_cleanly(BOOT).await.unwrap());
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = entry::decode(&bytes, TRUST);
        let _ = entry::position(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_change_of_a_record_is_decoded_without_a_panic(at in 0_usize..300, byte: u8) {
        let mut line = open(1).into_bytes();
        let at = at % line.len();
        line[at] = byte;
        let _ = entry::decode(&line, TRUST);
    }
}
