//! Small run of the benchmark: everything is measured and in the JSON. Does not check costs.

use std::process::Command;

use t3_testkit::{
    bench::{contestant::Contestant, metric::Metric, metric::Workload, report::Report},
    harness,
};

#[test]
fn a_small_run_measures_everything_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-bench"));
    command.args(["--quick", "--rounds", "2", "--contestant", "floor", "--json"]).arg(&json);
    let mut expected = vec![Contestant::Floor];
    match harness::find("t3-dispatch") {
        Ok(_) => {
            command.args(["--contestant", "dispatch", "--contestant", "dispatch-stored"]);
            expected = vec![Contestant::Dispatch, Contestant::DispatchStored, Contestant::Floor];
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("only the floor is measured: {error}");
        }
    }
    let output = command.output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(report.quick);

    let metrics: Vec<Metric> = report.rows.iter().map(|row| row.metric).collect();
    let all = [
        Metric::EchoCpu,
        Metric::EchoRate,
        Metric::SingleCpu,
        Metric::PacedCpu,
        Metric::PacedP99,
        Metric::BulkCpu,
        Metric::CycleCpu,
        Metric::IdlePss,
    ];
    assert_eq!(metrics, all);
    for row in &report.rows {
        let of: Vec<_> = row.cells.iter().map(|cell| cell.contestant).collect();
        assert_eq!(of, expected, "{:?}", row.metric);
        let rounds = if row.metric == Metric::IdlePss { 1 } else { 2 };
        for cell in &row.cells {
            assert_eq!(cell.values.len(), rounds, "{:?}", row.metric);
            // The memory of a few sessions may be in pages that exist already.
            let is_positive = row.metric == Metric::IdlePss || cell.spread.min > 0.0;
            assert!(is_positive, "{:?} of {:?}: {table}", row.metric, cell.contestant);
        }
    }
    let own = expected.iter().filter(|one| one.is_ours()).count();
    // The memory of the floor may be 0, which has no ratio.
    assert!(report.ratios.len() >= own * (all.len() - 1), "{table}");
    assert_eq!(report.idle.iter().map(|idle| idle.contestant).collect::<Vec<_>>(), expected);
    assert!(report.idle.iter().all(|idle| idle.sessions == 100 && idle.with.pss_kib > 0), "{table}");

    if report.calls.is_empty() {
        assert!(!report.notes.is_empty(), "system calls are missing without a note: {table}");
    } else {
        assert_eq!(report.calls.len(), 5 * expected.len(), "{table}");
    }
    for calls in report.calls.iter().filter(|calls| calls.workload == Workload::Echo) {
        // A message and its reply pass two sockets each: at least two reads and two writes.
        assert!(calls.total >= 4.0, "{table}");
    }
}
