//! Small run of the benchmark: everything is measured and in the JSON. Does not check costs.

use std::process::Command;

use t3_testkit::{
    bench::{contestant::Contestant, report::Report},
    harness,
};

#[test]
fn a_small_run_measures_everything_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("bench.json");
    let mut expected = vec![Contestant::Direct];
    let mut command = Command::new(env!("CARGO_BIN_EXE_t3-bench"));
    command.args(["--quick", "--contestant", "direct", "--json"]).arg(&json);
    match harness::find("t3-dispatch") {
        Ok(_) => {
            command.args(["--contestant", "dispatch"]);
            expected.push(Contestant::Dispatch);
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("only the direct connection is measured: {error}");
        }
    }
    let output = command.output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();

    for size in [32, 65_536] {
        let of: Vec<_> =
            report.echo.iter().filter(|echo| echo.payload == size && echo.sessions > 1).collect();
        assert_eq!(of.iter().map(|echo| echo.contestant).collect::<Vec<_>>(), expected, "{table}");
        assert!(of.iter().all(|echo| echo.p50_us > 0.0 && echo.p99_us >= echo.p50_us), "{table}");
    }
    assert_eq!(report.bulk.iter().map(|bulk| bulk.contestant).collect::<Vec<_>>(), expected);
    assert!(report.bulk.iter().all(|bulk| bulk.bytes_per_s > 0.0), "{table}");

    let proxies = expected.len() - 1;
    assert_eq!(report.memory.len(), proxies);
    for idle in &report.memory {
        assert!(idle.sessions == 100 && idle.with.pss_kib > 0 && idle.open_us > 0.0, "{table}");
    }
    for echo in report.echo.iter().filter(|echo| echo.contestant == Contestant::Dispatch) {
        assert!(echo.cpu_us.median > 0.0, "{table}");
        // A message and its reply pass two sockets each: at least two reads and two writes.
        assert!(echo.syscalls.is_none_or(|calls| calls >= 4.0), "{table}");
        assert!(
            echo.syscalls.is_some() || !report.notes.is_empty(),
            "a number is missing without a note: {table}"
        );
    }
    for echo in report.echo.iter().filter(|echo| echo.contestant == Contestant::Direct) {
        assert_eq!(echo.cpu_us.max, 0.0, "a direct connection has no CPU of a proxy");
    }
}
