//! Filter of `closes` by its options. Pure.

use t3_record::{CloseRecord, TcpCloseRecord};

use super::args::ClosesArgs;

/// Whether a record matches all options.
#[must_use]
pub fn wanted(args: &ClosesArgs, record: &CloseRecord) -> bool {
    of_user(args, &record.user)
        && (args.verdict.is_empty() || args.verdict.contains(&record.verdict))
        && (args.segment.is_empty() || args.segment.contains(&record.segment))
        && args.short.is_none_or(|short| u128::from(record.dur_ms) < short.as_millis())
}

/// As [`wanted`], of a connection that t3-dispatch did not carry; one without a user matches no
/// `--user`.
#[must_use]
pub fn wanted_direct(args: &ClosesArgs, record: &TcpCloseRecord) -> bool {
    args.user.as_ref().is_none_or(|wanted| record.user.as_ref() == Some(wanted))
        && (args.verdict.is_empty() || args.verdict.contains(&record.verdict))
        && (args.segment.is_empty() || args.segment.contains(&record.segment))
        && args.short.is_none_or(|short| u128::from(record.dur_ms) < short.as_millis())
}

/// Whether the user matches `--user`; without the option every user does.
#[must_use]
pub fn of_user(args: &ClosesArgs, user: &str) -> bool {
    args.user.as_ref().is_none_or(|wanted| wanted == user)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use t3_record::{Segment, Verdict};

    use super::{super::tests::record, *};

    #[test]
    fn a_record_must_match_all_options() {
        let record = record("alice", Verdict::ServeOom, Segment::Serve, 5000);
        let user = |user: &str| ClosesArgs { user: Some(user.to_owned()), ..ClosesArgs::default() };
        let verdict = |verdict| ClosesArgs { verdict: vec![verdict], ..ClosesArgs::default() };
        let segment = |segment| ClosesArgs { segment: vec![segment], ..ClosesArgs::default() };
        let short = |ms| ClosesArgs { short: Some(Duration::from_millis(ms)), ..ClosesArgs::default() };
        for (args, expected) in [
            (ClosesArgs::default(), true),
            (user("alice"), true),
            (user("bob"), false),
            (verdict(Verdict::ServeOom), true),
            (verdict(Verdict::ServeExited), false),
            (segment(Segment::Serve), true),
            (segment(Segment::Downstream), false),
            (short(5001), true),
            (short(5000), false),
            (ClosesArgs { verdict: vec![Verdict::ServeOom], ..user("bob") }, false),
        ] {
            assert_eq!(wanted(&args, &record), expected, "{args:?}");
        }
    }
}
