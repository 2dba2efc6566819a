//! Tens of thousands of sessions with random ends on this host, while t3-trace is killed, stopped
//! and absent, dispatch dies alone and together with it, and the disk of the journal is full: one
//! correct record for each.
//!
//! Needs root and `cargo xtask build`. Takes some minutes; with `T3_QUICK` a twentieth of the
//! sessions. `T3_CHAOS_SEED=N` repeats the plans of a run.

use std::process::Command;

use t3_testkit::prerequisite;

#[test]
fn every_session_of_the_chaos_run_has_one_record() {
    if prerequisite::or_skip("every_session_of_the_chaos_run_has_one_record", prerequisite::root()).is_none()
    {
        return;
    }
    let quick = std::env::var_os("T3_QUICK").is_some();
    let (sessions, kills, crashes) = if quick { (2_500, 2, 3) } else { (50_000, 6, 9) };
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("chaos.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-chaos"));
    command.args(["--sessions", &sessions.to_string(), "--kills", &kills.to_string()]);
    command.args(["--crashes", &crashes.to_string(), "--json"]).arg(&json);
    if let Ok(seed) = std::env::var("T3_CHAOS_SEED") {
        command.args(["--seed", &seed]);
    }
    let output = command.output().unwrap();
    let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{report}");
    assert!(output.status.success(), "{report}{errors}");
    // The program checks the records; here is checked that there were enough.
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let audit = &report["audit"];
    let number = |key: &str| audit[key].as_u64().unwrap();
    let least = sessions * 9 / 10;
    assert!(number("closes") >= least && number("closes") == number("expected"), "{audit}");
    assert!(number("opens") >= sessions / 2 && number("opens") == number("opened"), "{audit}");
    assert!(number("interrupted") > 0 && report["journal"]["missing"].as_u64().unwrap() > 0, "{report}");
    let with = audit["rows"].as_array().unwrap().iter().find(|row| row["phase"] == "with").unwrap();
    let kernel = with["kernel"].as_object().unwrap();
    assert!(
        kernel.contains_key("tracepoint") || kernel.contains_key("kprobe"),
        "no kernel evidence: {kernel:?}"
    );
}
