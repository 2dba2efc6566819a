//! t3-dispatch, t3-trace and journald killed, stopped and restarted in pairs, in both orders, with
//! sessions that close in between: exactly one record of each session.
//!
//! Needs root and `cargo xtask build`. With `T3_QUICK` only kills. `T3_KILL_MATRIX=TEXT` runs the
//! cells whose name contains the text, `T3_KILL_MATRIX_TIMES=N` each of them N times,
//! `T3_KILL_MATRIX_LANES=N` that many at once.

use t3_testkit::{
    kill_matrix::{self, Options},
    prerequisite,
};

/// More do not finish earlier: then the CPUs are busy.
const LANES: usize = 12;

#[test]
fn each_session_has_one_record_whatever_dies_in_whatever_order() {
    let test = "each_session_has_one_record_whatever_dies_in_whatever_order";
    if prerequisite::or_skip(test, prerequisite::root()).is_none() {
        return;
    }
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let options = Options {
        quick: std::env::var_os("T3_QUICK").is_some(),
        only: std::env::var("T3_KILL_MATRIX").ok(),
        times: number("T3_KILL_MATRIX_TIMES").unwrap_or(1),
        lanes: number("T3_KILL_MATRIX_LANES").unwrap_or(LANES),
    };
    let rows = kill_matrix::run(&options).unwrap();
    kill_matrix::print(&rows);
    assert!(!rows.is_empty(), "no cell has run");
    let wrong: Vec<_> =
        rows.iter().filter(|row| !row.wrong.is_empty()).map(|row| (&row.cell, &row.wrong)).collect();
    assert!(wrong.is_empty(), "{} of {} cells: {wrong:#?}", wrong.len(), rows.len());
}
