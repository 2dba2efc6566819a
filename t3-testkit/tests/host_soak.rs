//! 9,000 sessions with heartbeats through t3-dispatch for five minutes: none dropped, memory flat,
//! and one correct record for each.
//!
//! Needs root, `cargo xtask build` and 19,200 descriptors per process. With `T3_QUICK` 1,000
//! sessions for ten seconds. `T3_SOAK_SEED=N` repeats the plans of a run.

use std::process::Command;

use t3_testkit::prerequisite;

#[test]
fn thousands_of_sessions_stay_open_and_each_has_one_record() {
    let test = "thousands_of_sessions_stay_open_and_each_has_one_record";
    if prerequisite::or_skip(test, prerequisite::root()).is_none() {
        return;
    }
    let quick = std::env::var_os("T3_QUICK").is_some();
    let (sessions, seconds, closing) = if quick { (1_000_u64, 10_u64, 5) } else { (9_000, 300, 30) };
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("soak.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-soak"));
    for (name, value) in [("--sessions", sessions), ("--seconds", seconds), ("--closing", closing)] {
        command.arg(name).arg(value.to_string());
    }
    // host_memory_limits has them.
    command.arg("--without-limits");
    if let Ok(seed) = std::env::var("T3_SOAK_SEED") {
        command.args(["--seed", &seed]);
    }
    let output = command.arg("--json").arg(&json).output().unwrap();
    let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{report}");
    assert!(output.status.success(), "{report}{errors}");
    // The program checks the records; here is checked that there were enough.
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(serde_json::Value::as_f64).unwrap_or_else(|| panic!("{pointer}"))
    };
    let (all, held) = (sessions as f64, seconds as f64);
    assert_eq!(number("/audit/closes"), all);
    assert_eq!(number("/audit/opens"), all);
    assert_eq!(number("/registered"), all);
    assert!(number("/held_seconds") >= held && number("/samples/1/seconds") > 0.0);
    // One heartbeat per five seconds; a busy host may delay some.
    assert!(number("/heartbeats/n") >= all * (held / 5.0) * 0.9, "{}", report["heartbeats"]);
    assert!(number("/dispatch/1/descriptors") >= 2.0 * all);
    let evidence = report["audit"]["rows"][0]["kernel"].as_object().unwrap();
    let seen = ["tracepoint", "kprobe"].iter().filter_map(|source| evidence.get(*source)?.as_f64());
    assert!(seen.sum::<f64>() >= all * 0.9, "kernel evidence: {evidence:?}");
}
