//! Model test of the record protocol: exactly one `ws close`, whatever is killed, in any order.
//!
//! The ledger is the real one. dispatch, the task of t3-trace, its spool, journald and the disks
//! are reduced to their queues, and to steps that are atomic in the real processes. Every
//! interleaving of these steps is explored, breadth first, within these limits:
//!
//! - One session, with three kills (the end of a connection while both sides run counts as one);
//!   with two kills, one full disk and one record that does not fit into a queue; with one kill and
//!   one power loss; with one power loss and one full disk.
//! - Two sessions, with one kill; with one full disk and a spool that holds one record. Some steps
//!   that follow each other in one process are one step there, and a pass is not aborted.
//!
//! A stopped process is one whose steps are not taken. So SIGSTOP at every point is part of it, and
//! so are a socket that accepts nothing, a slow disk and a clock that is set. A restart follows
//! each kill, after any number of other steps. A second dispatch opens sessions of its own. A
//! reboot is a power loss that takes nothing from the disks. Left out: removal of old journal
//! files, damaged files, records that can never be sent, boots before the last one, a host without
//! journalctl, and sessions that one dispatch takes over from another. dispatch sends all of its
//! reports again; the real one the last 256, which is more than a socket holds.
//!
//! *Always*: the journal has at most one close of a session, and none while it is open.
//!
//! *From every state*, if no failure follows and until nothing changes any more: each session that
//! has ended has exactly one close, and when dispatch has ended, too, every session has. A session
//! counts from the moment its open is in the socket of journald or its registration in the spool.
//! The exceptions are named ([`Cause`]), with the number of failures that each needs: at some point
//! no process, no queue and no disk names the session, and the spool never had it (after a power
//! loss: no disk had it).

mod explore;
mod state;
mod steps;

use explore::{Explored, Violation, explore};
use state::{Cause, Left, Rules};
use steps::Step;

const NO_FAILURE: Left = Left { kills: 0, power: 0, fills: 0, drops: 0 };

/// The protocol as it is.
const PROTOCOL: Rules = Rules {
    search: true,
    sync: true,
    sync_after_scan: true,
    keep_reported: true,
    restore: true,
    report_again: true,
    room: usize::MAX,
    stays_full: false,
};

/// Explores, and prints the size and the paths.
fn explored(sessions: usize, left: Left, rules: Rules) -> Explored {
    let found = explore(sessions, left, rules, false);
    println!("{sessions} sessions, {left:?}: {} states, {} steps", found.states, found.steps);
    for (cause, (failures, path)) in &found.lost {
        println!("  {cause:?} needs {failures} failures: {path:?}");
    }
    for (violation, path) in &found.violations {
        println!("  {violation:?} after {} steps: {path:?}", path.len());
    }
    found
}

/// Asserts the violations and the losses with the fewest failures that they need.
fn assert_only(found: &Explored, violations: &[Violation], lost: &[(Cause, u8)]) {
    assert_eq!(found.violations.keys().copied().collect::<Vec<_>>(), violations);
    let causes = found.lost.iter().map(|(cause, (failures, _))| (*cause, *failures));
    assert_eq!(causes.collect::<Vec<_>>(), lost);
}

/// No single failure loses a session. Without its registration, journald has to lose its open, and
/// dispatch has to die; or, with the registration in its memory only, t3-trace as well.
const LOST_BY_KILLS: [(Cause, u8); 3] =
    [(Cause::DispatchKilled, 2), (Cause::TraceKilled, 3), (Cause::JournaldKilled, 2)];

#[test]
fn three_kills_leave_one_close() {
    let found = explored(1, Left { kills: 3, ..NO_FAILURE }, PROTOCOL);
    assert_only(&found, &[], &LOST_BY_KILLS);
}

#[test]
fn kills_with_a_full_disk_and_a_full_queue_leave_one_close() {
    let found = explored(1, Left { kills: 2, fills: 1, drops: 1, power: 0 }, PROTOCOL);
    let [dispatch, trace, journald] = LOST_BY_KILLS;
    assert_only(&found, &[], &[dispatch, trace, journald, (Cause::DiskFull, 2)]);
}

#[test]
fn a_disk_that_stays_full_loses_no_more() {
    let rules = Rules { stays_full: true, ..PROTOCOL };
    let found = explored(1, Left { kills: 1, fills: 1, ..NO_FAILURE }, rules);
    assert_only(&found, &[], &[(Cause::DispatchKilled, 2), (Cause::DiskFull, 2)]);
}

#[test]
fn a_power_loss_takes_only_what_was_on_no_disk() {
    let found = explored(1, Left { kills: 1, power: 1, ..NO_FAILURE }, PROTOCOL);
    assert_only(&found, &[], &[(Cause::PowerLost, 1)]);
    let found = explored(1, Left { power: 1, fills: 1, ..NO_FAILURE }, PROTOCOL);
    assert_only(&found, &[], &[(Cause::PowerLost, 1)]);
}

#[test]
fn two_sessions_have_one_close_each() {
    let found = explored(2, Left { kills: 1, ..NO_FAILURE }, PROTOCOL);
    assert_only(&found, &[], &[]);
}

#[test]
fn what_a_full_spool_does_not_hold_is_counted_as_lost() {
    let rules = Rules { room: 1, stays_full: true, ..PROTOCOL };
    let found = explored(2, Left { fills: 1, ..NO_FAILURE }, rules);
    assert_only(&found, &[], &[]);
}

/// Length of the path to a violation of a protocol without one rule.
fn control(name: &str, left: Left, rules: Rules, violation: Violation) -> Vec<Step> {
    let found = explore(1, left, rules, true);
    let path = found.violations.get(&violation);
    let path = path.unwrap_or_else(|| panic!("without {name}: {:?}", found.violations));
    println!("without {name}: {violation:?} after {} steps: {path:?}", path.len());
    path.clone()
}

#[test]
fn each_rule_is_needed() {
    let without = |change: fn(&mut Rules)| {
        let mut rules = PROTOCOL;
        change(&mut rules);
        rules
    };
    let kill = Left { kills: 1, ..NO_FAILURE };
    control("a search", kill, without(|rules| rules.search = false), Violation::Second);
    control("a sync", kill, without(|rules| rules.sync = false), Violation::Second);
    let fill = Left { fills: 1, ..NO_FAILURE };
    control("reported records", fill, without(|rules| rules.keep_reported = false), Violation::Missing);
    let kills = Left { kills: 3, ..NO_FAILURE };
    control("a spool", kills, without(|rules| rules.restore = false), Violation::Missing);
    let power = Left { power: 1, ..NO_FAILURE };
    let rules = without(|rules| rules.sync_after_scan = false);
    control("a sync after the scan", power, rules, Violation::Missing);
    // The record is missing, or comes when dispatch ends.
    let found = explored(1, Left { kills: 1, ..fill }, without(|rules| rules.report_again = false));
    assert_eq!(found.violations.into_keys().collect::<Vec<_>>(), [Violation::Missing, Violation::Delayed]);
}
