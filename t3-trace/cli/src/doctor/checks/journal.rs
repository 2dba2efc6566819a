//! Checks of the journal: can records get in, stay in and be read. Pure.

use super::super::{
    facts::{Access, Facts, Journal, Limit, Suppressed, Unit},
    finding::{Check, Finding, State},
};
use crate::present::text::lasted;

/// The unit that writes the records.
pub(crate) const DISPATCH: &str = "t3-dispatch.service";
/// A limit from here on lets a burst of a house with thousands of sessions through: two entries for
/// each.
const ROOMY: u64 = 10_000;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let journal = &facts.journal;
    let mut found = vec![takes(journal), access(journal.access.clone())];
    if journal.access != Access::Nothing {
        found.push(storage(journal.persistent));
    }
    found.push(limit(&journal.limit, facts.units.get(DISPATCH)));
    found.push(suppressed(journal));
    found
}

fn takes(journal: &Journal) -> Finding {
    let check = Check::Journald;
    match &journal.takes {
        Ok(()) => Finding::ok(check, "takes entries"),
        Err(why) => {
            let says = format!("does not take entries: {why}; records wait, 65,536 of them at most");
            Finding::of(check, State::Broken, says, "systemctl status systemd-journald; is the disk full?")
        }
    }
}

fn access(access: Access) -> Finding {
    let check = Check::JournalAccess;
    match access {
        Access::Granted => Finding::ok(check, "may be read"),
        Access::Denied => {
            let says = "may not be read: t3-trace closes and explain see nothing; it is for the groups systemd-journal and adm";
            Finding::of(
                check,
                State::Warning,
                says,
                "usermod -aG systemd-journal YOU, and log in again; or ask as root",
            )
        }
        Access::Nothing => {
            let says = "there are no files of it in /var/log/journal or /run/log/journal";
            Finding::of(check, State::Warning, says, "Storage= in journald.conf must not be none")
        }
    }
}

fn storage(persistent: bool) -> Finding {
    let check = Check::JournalStorage;
    if persistent {
        return Finding::ok(check, "on disk");
    }
    let says = "in memory: a restart of the machine takes all records along";
    Finding::of(
        check,
        State::Note,
        says,
        "Storage=persistent in journald.conf; systemctl restart systemd-journald",
    )
}

fn limit(journald: &Limit, unit: Option<&Unit>) -> Finding {
    let check = Check::RateLimit;
    // What a unit leaves out, or sets to 0, is journald's own: a unit cannot switch the limit off
    // by 0.
    let ours = unit.map_or((0, 0), |unit| (unit.log_interval_us, unit.log_burst));
    let interval = if ours.0 > 0 { ours.0 } else { journald.interval_us };
    let burst = if ours.1 > 0 { ours.1 } else { journald.burst };
    if interval == 0 || burst == 0 {
        return Finding::ok(check, "none");
    }
    let from = if ours == (0, 0) { journald.from.as_str() } else { "its unit" };
    let time = lasted(interval / 1000).replace(".0s", "s");
    let says = format!("journald takes {burst} entries of {DISPATCH} in {time} ({from}), and drops the rest");
    let advice = "in its unit: LogRateLimitIntervalSec=1s and LogRateLimitBurst=1000000 (0 does not switch it off there)";
    // By the second it is what a storm of closes must fit through.
    let by_second = burst.saturating_mul(1_000_000) / interval;
    match burst {
        _ if by_second >= ROOMY => Finding::ok(check, format!("{burst} entries in {time}: out of reach")),
        ROOMY.. => Finding::of(check, State::Note, says, advice),
        _ => Finding::of(check, State::Warning, says, advice),
    }
}

fn suppressed(journal: &Journal) -> Finding {
    let check = Check::Suppressed;
    let told = match &journal.suppressed {
        Ok(_) if journal.access != Access::Granted => {
            return Finding::of(
                check,
                State::Note,
                "whether journald dropped any is not known",
                "see journal-access",
            );
        }
        Err(why) => {
            return Finding::of(
                check,
                State::Note,
                format!("whether journald dropped any is not known: {why}"),
                "",
            );
        }
        Ok(all) if all.is_empty() => return Finding::ok(check, "journald dropped none in the last week"),
        Ok(all) => all,
    };
    let entries: u64 = told.iter().fold(0, |sum, one| sum.saturating_add(one.entries));
    let last = |last: &Suppressed| format!(", the last time on {} of {}", last.at, last.unit);
    let last = told.last().map(last).unwrap_or_default();
    let says = format!(
        "journald dropped {entries} entries in the last week{last}: closes of those moments have no record"
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
    fn the_limit_is_the_units_and_else_journalds_and_zero_switches_only_that_off() {
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
    fn who_may_not_read_hears_which_group_and_what_was_dropped_is_summed() {
        assert!(access(Access::Denied).advice.unwrap().contains("usermod -aG systemd-journal"));
        assert_eq!(storage(false).state, State::Note);
        let mut journal = healthy().journal;
        journal.takes = Err("no such file".to_owned());
        assert_eq!(takes(&journal).state, State::Broken);
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
        assert_eq!(suppressed(&journal).state, State::Note, "nobody has looked");
    }
}
