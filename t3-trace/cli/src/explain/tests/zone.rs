//! Times of a page whose time zone is not that of the system.

use super::*;

#[test]
fn commands_have_times_in_utc_if_the_page_has_a_zone_of_its_own() {
    let mut facts = ExplainInput::of(record("serve_left fin serve likely"), 1_700_000_000_500);
    let wall_time = wall(1_700_000_000 - 60);
    for (has_own_zone, expected, other) in
        [(false, wall_time.as_str(), " UTC'"), (true, "--since '2023-11-14 22:12:20 UTC'", "--since '@")]
    {
        facts.has_own_zone = has_own_zone;
        let next = Page::of(&facts, &[], wall).next.join("\n");
        assert!(next.contains(expected) && !next.contains(other), "{expected}: {next}");
    }
}
