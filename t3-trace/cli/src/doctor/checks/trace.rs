//! Checks of the daemon: status, permission, version, connection of dispatch, losses. Pure.

use t3_record::wire::{DirectState, JournalState, Status};

use super::super::{
    facts::{Daemon, Facts, Heartbeats},
    finding::{Check, Finding, State},
};
use crate::present::text::lasted;

/// Up to one lost event of this many is a note.
const NOTABLE: u64 = 10_000;
/// Watched ports that are listed.
const LISTED: usize = 10;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let at = facts.socket.display().to_string();
    let mut found = vec![daemon(facts, &at), permission(facts, &at)];
    if let Some(status) = facts.daemon.status() {
        found.extend([version(status, env!("CARGO_PKG_VERSION")), dispatch(status)]);
        found.extend(facts.heartbeats.map(heartbeats));
        found.extend(super::restart::finding(status, facts.units.get(super::DISPATCH)));
        found.extend(status.journal.map(records));
        found.extend(status.direct.as_ref().map(direct));
        found.extend([loss(status), tables(status)]);
    }
    found
}

fn daemon(facts: &Facts, at: &str) -> Finding {
    let check = Check::Daemon;
    match &facts.daemon {
        Daemon::Answers(status) => {
            let up = status.uptime_s.map(|up| format!(", up for {}", lasted(up.saturating_mul(1000))));
            let (sessions, subscribers) = (status.sessions, status.subscribers);
            let says = format!(
                "version {} at {at}{}; sessions {sessions}, subscribers {subscribers}",
                status.version,
                up.unwrap_or_default()
            );
            Finding::ok(check, says)
        }
        Daemon::Absent => {
            let says =
                format!("no daemon at {at}: closes have no kernel evidence (kernel=off) and no pressure");
            Finding::of(check, State::Broken, says, absent(facts))
        }
        Daemon::Denied { .. } => Finding::of(check, State::Note, "no permission to query", ""),
        Daemon::Unexpected(why) => {
            let says = format!("unexpected response at {at}: {why}");
            Finding::of(check, State::Broken, says, "systemctl restart t3-trace; journalctl -u t3-trace")
        }
    }
}

fn absent(facts: &Facts) -> String {
    match facts.units.get("t3-trace.service") {
        Some(unit) if !unit.exists() => "install t3-trace.service and start it".to_owned(),
        Some(unit) => {
            format!("the unit is {}: systemctl start t3-trace; journalctl -u t3-trace", unit.active)
        }
        None => "start it as root: t3-trace daemon".to_owned(),
    }
}

fn permission(facts: &Facts, at: &str) -> Finding {
    let check = Check::Permission;
    match &facts.daemon {
        Daemon::Denied { group } if group == "root" => {
            let says = format!("only root may use {at}: its group is root");
            let advice = "create the group t3-trace, restart t3-trace, join the group; or run as root";
            Finding::of(check, State::Broken, says, advice)
        }
        Daemon::Denied { group } => {
            let says = format!("no permission for {at}: only root and the group {group} may use it");
            let advice = format!("usermod -aG {group} YOU, and log in again; or run as root");
            Finding::of(check, State::Broken, says, advice)
        }
        _ if facts.caller.is_root() => Finding::ok(check, "root: all checks are possible"),
        _ => {
            let says = "not root: listeners and hooks cannot be checked completely";
            Finding::of(check, State::Note, says, "run as root for all checks")
        }
    }
}

fn version(status: &Status, own: &str) -> Finding {
    let (check, daemon) = (Check::Version, &status.version);
    if daemon == own {
        return Finding::ok(check, format!("daemon and this program are {own}"));
    }
    let says = format!("the daemon is {daemon}, this program is {own}");
    Finding::of(
        check,
        State::Warning,
        says,
        "install both from the same release; restart t3-trace and t3-dispatch",
    )
}

fn dispatch(status: &Status) -> Finding {
    let check = Check::Dispatch;
    if !status.dispatch {
        let says = "t3-dispatch is not connected: its records have kernel=off";
        let advice = "systemctl status t3-dispatch; its user must be in the group t3-trace, its trace-socket must be the socket above";
        return Finding::of(check, State::Broken, says, advice);
    }
    let ports = |ports: &[u16]| match ports {
        [] => "none".to_owned(),
        ports if ports.len() > 8 => format!("{} ports", ports.len()),
        ports => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let says = format!("connected; listens on {}, serves on {}", ports(&status.listen), ports(&status.serve));
    Finding::ok(check, says)
}

fn heartbeats(heartbeats: Heartbeats) -> Finding {
    let check = Check::Heartbeats;
    let Heartbeats { sessions, without } = heartbeats;
    match (sessions, without) {
        (0, _) => Finding::ok(check, "no session is older than 30 s"),
        (_, 0) => Finding::ok(check, format!("recognised in all {sessions} sessions older than 30 s")),
        _ => {
            let says = format!(
                "none recognised in {without} of {sessions} sessions older than 30 s: their records have hb_by=none, and a stall of their serve is not detected"
            );
            let advice = "normal for applications that ping every 30 s or less often, or never; t3 pings every 5 s: reload its page, update t3";
            let state = if without == sessions { State::Warning } else { State::Note };
            Finding::of(check, state, says, advice)
        }
    }
}

fn records(journal: JournalState) -> Finding {
    let check = Check::Records;
    let JournalState { missing, rewritten, lost, waiting } = journal;
    if missing == 0 && lost == 0 {
        let says = match waiting {
            0 => "all are in the journal".to_owned(),
            _ => format!("none is missing; {waiting} are not yet compared with the journal"),
        };
        return Finding::ok(check, says);
    }
    let mut says = format!(
        "{missing} records that journald had accepted were not in the journal since t3-trace started"
    );
    says.push_str(&format!("; {rewritten} were written again, {waiting} wait, {lost} are lost"));
    let advice = "see journal-keeps and suppressed; journalctl -u systemd-journald; when the cause is gone: t3-trace closes --reconcile";
    Finding::of(check, State::Warning, says, advice)
}

/// Connections that dispatch did not carry; none as long as all were recorded.
fn direct(direct: &DirectState) -> Finding {
    let DirectState { ports, written, short, over_budget, lost } = direct;
    let missing = over_budget + lost;
    if missing == 0 {
        let listed: Vec<String> = ports.iter().take(LISTED).map(u16::to_string).collect();
        let more = match ports.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let watched = if listed.is_empty() {
            "outgoing connections".to_owned()
        } else {
            format!("connections without t3-dispatch to port {}{more}", listed.join(", "))
        };
        let says =
            format!("{watched}: {written} recorded since t3-trace started, {short} shorter than the minimum");
        return Finding::ok(Check::Direct, says);
    }
    let says = format!(
        "{missing} closed connections without a tcp close record since t3-trace started: {over_budget} over \
         the budget of their port, {lost} lost by the kernel's ring; {written} recorded"
    );
    let advice = "raise min_duration or budget of the port in [[watch]] (/etc/t3-trace.toml)";
    Finding::of(Check::Direct, State::Warning, says, advice)
}

fn loss(status: &Status) -> Finding {
    let check = Check::Loss;
    let (lost, full) = (status.lost, status.map_full);
    let of = status.events.map(|events| format!(" of {events}")).unwrap_or_default();
    if full > 0 {
        let says = format!("{full} facts dropped: map full; {lost} events{of} lost since the start");
        return Finding::of(
            check,
            State::Warning,
            says,
            "more sessions than the maps hold: see tables; report it",
        );
    }
    if lost == 0 {
        return Finding::ok(check, format!("no kernel event{of} lost since the start"));
    }
    let says = format!("{lost} kernel events{of} lost since the start; records of that time have lost=");
    let rare = status.events.is_some_and(|events| lost.saturating_mul(NOTABLE) < events);
    let state = if rare { State::Note } else { State::Warning };
    Finding::of(
        check,
        state,
        says,
        "check the pressure of the host; rare losses are harmless, because the facts are in maps",
    )
}

fn tables(status: &Status) -> Finding {
    let check = Check::Tables;
    if status.tables.is_empty() {
        return Finding::of(check, State::Note, "none: the kernel side of the daemon is off", "see hook");
    }
    let sizes = status.tables.iter().map(|table| match table.used {
        Some(used) => format!("{} {used}/{}", table.name, table.size),
        None => format!("{} {}", table.name, super::bytes(table.size)),
    });
    let sizes = sizes.collect::<Vec<_>>().join(", ");
    let tight = |table: &&t3_record::wire::Table| {
        !table.forgets
            && table.used.is_some_and(|used| used.saturating_mul(10) >= table.size.saturating_mul(9))
    };
    match status.tables.iter().find(tight) {
        Some(table) => {
            let says = format!("{} is nearly full: {sizes}", table.name);
            let advice = "further connections are identified by their addresses only; report it";
            Finding::of(check, State::Warning, says, advice)
        }
        None => Finding::ok(check, sizes),
    }
}

#[cfg(test)]
mod tests {
    use t3_record::wire::Table;

    use super::*;
    use crate::doctor::{
        facts::{Caller, Unit},
        tests::healthy,
    };

    fn status() -> Status {
        healthy().daemon.status().unwrap().clone()
    }

    #[test]
    fn connections_without_a_record_are_a_warning() {
        let state = DirectState { ports: vec![80], written: 9, short: 1_000, over_budget: 0, lost: 0 };
        let finding = direct(&state);
        assert_eq!(finding.state, State::Ok, "short ones are not recorded on purpose");
        assert!(finding.says.contains("to port 80: 9 recorded") && finding.says.contains("1000 shorter"));
        let many = direct(&DirectState { ports: (1..=12).collect(), ..state });
        assert!(many.says.contains("9, 10 and 2 more: "), "{}", many.says);
        let outgoing = direct(&DirectState { ports: Vec::new(), ..state });
        assert!(outgoing.says.starts_with("outgoing connections: 9 recorded"), "{}", outgoing.says);
        let finding = direct(&DirectState { over_budget: 3, lost: 2, ..state });
        assert_eq!((finding.check, finding.state), (Check::Direct, State::Warning));
        assert!(finding.says.starts_with("5 closed connections without"), "{}", finding.says);
    }

    #[test]
    fn missing_permission_names_the_group() {
        let mut facts = healthy();
        facts.caller = Caller { uid: 1000 };
        facts.daemon = Daemon::Denied { group: "t3-trace".to_owned() };
        let found = all(&facts);
        assert_eq!(
            found.iter().map(|finding| finding.state).collect::<Vec<_>>(),
            [State::Note, State::Broken]
        );
        assert!(found[1].says.contains("group t3-trace"), "{found:?}");
        assert!(found[1].advice.as_ref().unwrap().contains("usermod -aG t3-trace"));
        facts.daemon = Daemon::Denied { group: "root".to_owned() };
        assert!(all(&facts)[1].advice.as_ref().unwrap().starts_with("create the group t3-trace"));
    }

    #[test]
    fn an_absent_daemon_is_broken_with_advice_for_its_unit() {
        for (load, active, advice) in [
            (Some("not-found"), "inactive", "install"),
            (Some("loaded"), "failed", "the unit is failed: systemctl start"),
            (None, "", "start it as root"),
        ] {
            let mut facts = healthy();
            facts.daemon = Daemon::Absent;
            facts.units.clear();
            if let Some(load) = load {
                let unit = Unit { load: load.to_owned(), active: active.to_owned(), ..Unit::default() };
                facts.units.insert("t3-trace.service".to_owned(), unit);
            }
            let found = all(&facts);
            assert_eq!((found.len(), found[0].state), (2, State::Broken), "unknown facts have no finding");
            assert!(found[0].advice.as_ref().unwrap().starts_with(advice), "{found:?}");
        }
    }

    #[test]
    fn sessions_without_heartbeats_are_reported() {
        for (sessions, without, state) in
            [(0, 0, State::Ok), (3, 0, State::Ok), (3, 1, State::Note), (3, 3, State::Warning)]
        {
            let finding = heartbeats(Heartbeats { sessions, without });
            assert_eq!(finding.state, state, "{finding:?}");
        }
    }

    #[test]
    fn records_that_did_not_arrive_are_reported() {
        for (missing, rewritten, lost, waiting, state) in [
            (0, 0, 0, 0, State::Ok),
            (0, 0, 0, 3, State::Ok),
            (2, 2, 0, 0, State::Warning),
            (0, 0, 1, 0, State::Warning),
        ] {
            let finding = records(JournalState { missing, rewritten, lost, waiting });
            assert_eq!(finding.state, state, "{finding:?}");
            assert_eq!(finding.advice.is_some(), state == State::Warning);
        }
        let mut facts = healthy();
        let Daemon::Answers(status) = &mut facts.daemon else { unreachable!() };
        status.journal = None;
        assert!(all(&facts).iter().all(|finding| finding.check != Check::Records), "not compared yet");
    }

    #[test]
    fn loss_is_judged_by_its_rate() {
        for (lost, full, events, state) in [
            (0, 0, Some(5), State::Ok),
            (1, 0, Some(10_001), State::Note),
            (1, 0, Some(10_000), State::Warning),
            (1, 0, None, State::Warning),
            (0, 1, Some(1_000_000), State::Warning),
        ] {
            let finding = loss(&Status { lost, map_full: full, events, ..status() });
            assert_eq!(finding.state, state, "{finding:?}");
        }
    }

    #[test]
    fn only_a_map_without_eviction_can_be_too_full() {
        for (used, forgets, state) in
            [(90, false, State::Warning), (89, false, State::Ok), (100, true, State::Ok)]
        {
            let table = Table { name: "T".to_owned(), size: 100, used: Some(used), forgets };
            let finding = tables(&Status { tables: vec![table], ..status() });
            assert_eq!(finding.state, state, "{finding:?}");
        }
        assert_eq!(tables(&Status { tables: Vec::new(), ..status() }).state, State::Note);
    }

    #[test]
    fn another_release_and_a_missing_dispatch_are_reported() {
        assert_eq!(version(&status(), "9.9.9").state, State::Warning);
        assert_eq!(dispatch(&Status { dispatch: false, ..status() }).state, State::Broken);
        let many = Status { serve: (1..=9).collect(), ..status() };
        assert!(dispatch(&many).says.ends_with("serves on 9 ports"));
    }
}
