//! Checks of the journal: accepts, keeps and returns records. Pure.

use super::{
    super::{
        facts::{Access, Facts, Journal, Limit, Suppressed, Unit},
        finding::{Check, Finding, State},
    },
    DISPATCH, kept,
};
use crate::present::text::lasted;

/// Entries that a burst of thousands of sessions needs: two for each.
const ROOMY: u64 = 10_000;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let journal = &facts.journal;
    let mut found = vec![accepts(journal), kept::kept(facts), access(journal.access.clone())];
    if journal.access != Access::NoFiles {
        found.push(storage(journal.persistent));
    }
    found.push(limit(&journal.conf.limit, facts.units.get(DISPATCH)));
    found.push(suppressed(journal));
    found
}

fn accepts(journal: &Journal) -> Finding {
    let check = Check::Journald;
    match &journal.accepts {
        Ok(()) => Finding::ok(check, "accepts entries"),
        Err(why) => {
            let says = format!("does not accept entries: {why}; up to 65,536 records are queued");
            Finding::of(check, State::Broken, says, "systemctl status systemd-journald; is the disk full?")
        }
    }
}

fn access(access: Access) -> Finding {
    let check = Check::JournalAccess;
    match access {
        Access::Granted => Finding::ok(check, "readable"),
        Access::Denied => {
            let says = "not readable: t3-trace closes and explain find no records; the groups systemd-journal and adm have access";
            Finding::of(
                check,
                State::Warning,
                says,
                "usermod -aG systemd-journal YOU, and log in again; or run as root",
            )
        }
        Access::NoFiles => {
            let says = "no files in /var/log/journal or /run/log/journal";
            Finding::of(check, State::Warning, says, "Storage= in journald.conf must not be none")
        }
    }
}

fn storage(persistent: bool) -> Finding {
    let check = Check::JournalStorage;
    if persistent {
        return Finding::ok(check, "persistent");
    }
    let says = "volatile storage: records are lost on reboot";
    Finding::of(
        check,
        State::Note,
        says,
        "set Storage=persistent in journald.conf; systemctl restart systemd-journald",
    )
}

fn limit(journald: &Limit, unit: Option<&Unit>) -> Finding {
    let check = Check::RateLimit;
    // A missing or zero value in a unit means journald's own limit: 0 does not disable it.
    let own = unit.map_or((0, 0), |unit| (unit.log_interval_us, unit.log_burst));
    let interval = if own.0 > 0 { own.0 } else { journald.interval_us };
    let burst = if own.1 > 0 { own.1 } else { journald.burst };
    if interval == 0 || burst == 0 {
        return Finding::ok(check, "none");
    }
    let from = if own == (0, 0) { journald.from.as_str() } else { "its unit" };
    let time = lasted(interval / 1000).replace(".0s", "s");
    let says =
        format!("journald accepts {burst} entries of {DISPATCH} per {time} ({from}) and drops the rest");
    let advice = "set LogRateLimitIntervalSec=1s and LogRateLimitBurst=1000000 in its unit (0 does not disable it there)";
    // Rate per second for a burst of closes.
    let by_second = burst.saturating_mul(1_000_000) / interval;
    match burst {
        _ if by_second >= ROOMY => Finding::ok(check, format!("{burst} entries per {time}: sufficient")),
        ROOMY.. => Finding::of(check, State::Note, says, advice),
        _ => Finding::of(check, State::Warning, says, advice),
    }
}

fn suppressed(journal: &Journal) -> Finding {
    let check = Check::Suppressed;
    let dropped = match &journal.suppressed {
        Ok(_) if journal.access != Access::Granted => {
            return Finding::of(
                check,
                State::Note,
                "unknown whether journald dropped entries",
                "see journal-access",
            );
        }
        Err(why) => {
            return Finding::of(
                check,
                State::Note,
                format!("unknown whether journald dropped entries: {why}"),
                "",
            );
        }
        Ok(all) if all.is_empty() => return Finding::ok(check, "no entries dropped in the last week"),
        Ok(all) => all,
    };
    let entries: u64 = dropped.iter().fold(0, |sum, one| sum.saturating_add(one.entries));
    let last = |last: &Suppressed| format!(", last at {} of {}", last.at, last.unit);
    let last = dropped.last().map(last).unwrap_or_default();
    let says = format!(
        "journald dropped {entries} entries in the last week{last}; closes at these times have no record"
    );
    Finding::of(check, State::Warning, says, "see rate-limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::healthy;

    fn journald(interval_s: u64, burst: u64) -> Limit {
        Limit { interval_us: interval_s * 1_000_000, burst, from: "journald.conf".to_owned() }
    }

    #[test]
    fn the_units_limit_overrides_journalds_and_zero_is_ignored() {
        let unit = |interval_s: u64, burst| {
            Some(Unit { log_interval_us: interval_s * 1_000_000, log_burst: burst, ..Unit::default() })
        };
        for (journald, unit, state) in [
            (journald(30, 10_000), None, State::Note),
            (journald(30, 1000), None, State::Warning),
            (journald(0, 1000), None, State::Ok),
            (journald(30, 0), None, State::Ok),
            (journald(30, 10_000), unit(0, 0), State::Note),
            (journald(30, 1000), unit(0, 50_000), State::Note),
            (journald(30, 1000), unit(1, 1_000_000), State::Ok),
            (journald(0, 0), unit(30, 100), State::Warning),
        ] {
            let finding = limit(&journald, unit.as_ref());
            assert_eq!(finding.state, state, "{journald:?} {unit:?}: {finding:?}");
        }
    }

    #[test]
    fn missing_access_names_the_group_and_dropped_entries_are_summed() {
        assert!(access(Access::Denied).advice.unwrap().contains("usermod -aG systemd-journal"));
        assert_eq!(storage(false).state, State::Note);
        let mut journal = healthy().journal;
        journal.accepts = Err("no such file".to_owned());
        assert_eq!(accepts(&journal).state, State::Broken);
        let one = |entries, at: &str| Suppressed { unit: DISPATCH.to_owned(), entries, at: at.to_owned() };
        journal.suppressed = Ok(vec![one(5, "Monday"), one(7, "Tuesday")]);
        let found = suppressed(&journal);
        assert_eq!(found.state, State::Warning);
        assert!(found.says.contains("dropped 12 entries") && found.says.contains("Tuesday"), "{found:?}");
        journal.suppressed = Err("x".to_owned());
        assert_eq!(suppressed(&journal).state, State::Note);
        journal.suppressed = Ok(Vec::new());
        assert_eq!(suppressed(&journal).state, State::Ok);
        journal.access = Access::Denied;
        assert_eq!(suppressed(&journal).state, State::Note, "not checked");
    }
}
