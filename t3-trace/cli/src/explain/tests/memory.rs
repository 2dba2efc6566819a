//! memory.high and swap on the page.

use super::*;

#[test]
fn throttling_and_full_swap_are_shown_and_do_not_change_the_answer() {
    let of =
        |keys: &str| text(&ExplainInput::of(record(&format!("client_left fin downstream likely {keys}")), 0));
    let plain = of("");
    assert!(!plain.contains("memory.high") && !plain.contains("swap"), "{plain}");
    let answer = |page: &str| page.split("\n\n").next().unwrap().to_owned();
    for (keys, expected) in [
        ("mem_high=1", "throttled 1 time in the last 60 s"),
        ("mem_high=14", "throttled 14 times in the last 60 s"),
        ("swap_free=0", "full"),
        ("swap_free=2147483648", "2.0 GiB free"),
    ] {
        let page = of(keys);
        let found = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(found.contains(expected), "{keys}: {page}");
        assert_eq!(answer(&page), answer(&plain), "{keys}");
    }
}
