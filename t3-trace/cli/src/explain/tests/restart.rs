//! Restarts of t3-dispatch on the page.

use super::*;

#[test]
fn restarts_that_the_session_survived_are_in_the_timeline() {
    for (keys, entries) in [
        ("", &[][..]),
        ("resumed=1 resumed_ms=2000", &["-2.0s  dispatch    dispatch restarted: the session continued\n"]),
        (
            "resumed=3 resumed_ms=2000",
            &["dispatch restarted: the session continued; restart 3 since it opened\n"],
        ),
        ("resumed=2", &["session opened, from 192.0.2.7; continued over 2 restarts of dispatch\n"]),
    ] {
        let page = text(&ExplainInput::of(record(&format!("client_left fin downstream likely {keys}")), 0));
        entries.iter().for_each(|entry| assert!(page.contains(entry), "{keys}: {page}"));
        assert_eq!(page.contains("restart"), !entries.is_empty(), "{page}");
    }
}
