//! Checks of each serve: a listener on the port of its route, and unit limits that keep a build of
//! one user from ending the sessions. Pure.

use std::net::SocketAddr;

use super::super::{
    facts::{Facts, Listener, Serve, TableError, Unit},
    finding::{Check, Finding, State},
};

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let serves = match &facts.serves {
        Ok(serves) => serves,
        Err(why) => return vec![no_table(why)],
    };
    let mut found = vec![Finding::ok(Check::Routes, format!("{} serves", serves.len()))];
    for serve in serves {
        let shared = serves
            .iter()
            .find(|other| other.port != serve.port && other.unit.is_some() && other.unit == serve.unit);
        let listens = self::serve(serve, shared, facts.caller.is_root());
        let name = name(serve);
        found.push(listens.about(&name));
        if !matches!(serve.process, Listener::Process { .. }) {
            continue;
        }
        let unit = serve.unit.as_ref().and_then(|unit| facts.units.get(unit));
        let of_serve = [high(serve), max(serve), oom(serve, unit), pressure(serve)];
        found.extend(of_serve.into_iter().flatten().map(|finding| finding.about(&name)));
    }
    found
}

fn no_table(why: &TableError) -> Finding {
    let (state, why) = match why {
        TableError::Unreadable(why) => (State::Note, why),
        TableError::Malformed(why) => (State::Broken, why),
    };
    Finding::of(
        Check::Routes,
        state,
        format!("serves are not checked: {why}"),
        "run t3-dispatch check; or use --table FILE",
    )
}

fn name(serve: &Serve) -> String {
    serve.unit.clone().unwrap_or_else(|| format!("{}:{}", serve.user, serve.port))
}

fn serve(serve: &Serve, shared: Option<&Serve>, root: bool) -> Finding {
    let (check, port, user) = (Check::Serve, serve.port, &serve.user);
    match &serve.process {
        Listener::Absent => {
            let says = format!("no listener on {port}: {user}'s WebSockets end as serve_refused");
            Finding::of(
                check,
                State::Warning,
                says,
                format!("systemctl status t3-serve@{user}, or remove {user} from the routing table"),
            )
        }
        Listener::Elsewhere(ip) => {
            let at = SocketAddr::new(*ip, port);
            let says = format!(
                "listens on {at}, and t3-dispatch connects to 127.0.0.1:{port}: {user}'s WebSockets end as serve_refused"
            );
            Finding::of(check, State::Warning, says, "let serve listen on 127.0.0.1")
        }
        Listener::Unknown => {
            let advice = if root { "" } else { "run as root" };
            Finding::of(check, State::Note, format!("unknown process listens on {port}"), advice)
        }
        Listener::Process { .. } if let Some(other) = shared => {
            let says = format!(
                "shares its unit with {}'s serve on {}: no separate pressure and limits",
                other.user, other.port
            );
            Finding::of(check, State::Warning, says, "run each serve in its own unit (t3-serve@.service)")
        }
        Listener::Process { pid, comm } if serve.unit.is_none() => {
            let says = format!("{comm}[{pid}] listens on {port} without a unit: its limits are not checked");
            Finding::of(check, State::Note, says, "run each serve in its own unit (t3-serve@.service)")
        }
        Listener::Process { pid, comm } => {
            Finding::ok(check, format!("{comm}[{pid}] listens on {port} for {user}"))
        }
    }
}

fn high(serve: &Serve) -> Option<Finding> {
    let check = Check::MemoryHigh;
    if serve.levels.is_empty() {
        return None;
    }
    let Some((level, high)) = serve.levels.iter().find_map(|level| Some((level, level.high?))) else {
        return Some(Finding::ok(check, "no soft limit"));
    };
    let says = format!(
        "MemoryHigh={} on {}: above it every allocation is throttled and nothing is killed; a unit can stall for an hour",
        super::bytes(high),
        level.name
    );
    let advice = format!("systemctl set-property {} MemoryHigh=infinity, and set a MemoryMax", level.name);
    Some(Finding::of(check, State::Warning, says, advice))
}

fn max(serve: &Serve) -> Option<Finding> {
    let check = Check::MemoryMax;
    let own = serve.levels.first()?;
    let limit = serve.levels.iter().filter_map(|level| Some((level.max?, level))).min_by_key(|(max, _)| *max);
    Some(match limit {
        None => {
            let says = "no MemoryMax: one user's build can use all memory of the host; the OOM killer then selects among all processes";
            Finding::of(
                check,
                State::Warning,
                says,
                format!(
                    "systemctl set-property {} MemoryMax=12G, or the amount that the host can spare",
                    own.name
                ),
            )
        }
        Some((max, level)) if level.name != own.name => {
            let says = format!("only {} has a limit, {}: its units share it", level.name, super::bytes(max));
            Finding::of(check, State::Note, says, format!("set a separate MemoryMax for {}", own.name))
        }
        Some((max, _)) => Finding::ok(check, super::bytes(max)),
    })
}

fn oom(serve: &Serve, unit: Option<&Unit>) -> Option<Finding> {
    let check = Check::OomPolicy;
    if serve.oom_group == Some(true) {
        let says = "memory.oom.group is set: an OOM kill terminates all processes of the unit";
        return Some(Finding::of(check, State::Warning, says, "set OOMPolicy=continue in its unit"));
    }
    match unit?.oom_policy.as_deref()? {
        "continue" => Some(Finding::ok(check, "continue: an OOM-killed build does not stop serve")),
        other => {
            let says = format!(
                "OOMPolicy={other}: after an OOM kill of a build in this unit, systemd stops serve, too"
            );
            Some(Finding::of(
                check,
                State::Warning,
                says,
                "set OOMPolicy=continue in its unit; systemctl daemon-reload; restart it while idle",
            ))
        }
    }
}

fn pressure(serve: &Serve) -> Option<Finding> {
    let check = Check::ServePressure;
    Some(if serve.pressure? {
        Finding::ok(check, "available")
    } else {
        let says = "its cgroup has no pressure files: records of its closes lack the psi keys";
        Finding::of(check, State::Note, says, "see pressure and cgroups; check cgroup.pressure")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{facts::Level, tests::healthy};

    fn one() -> Serve {
        healthy().serves.unwrap().remove(0)
    }

    fn level(name: &str, high: Option<u64>, max: Option<u64>) -> Level {
        Level { name: name.to_owned(), high, max }
    }

    #[test]
    fn a_soft_limit_of_any_ancestor_is_a_warning() {
        let with = |levels| high(&Serve { levels, ..one() });
        assert_eq!(with(vec![level("a", None, None)]).unwrap().state, State::Ok);
        let found = with(vec![level("a", None, None), level("user.slice", Some(4 << 30), None)]).unwrap();
        assert_eq!(found.state, State::Warning);
        assert!(found.says.contains("MemoryHigh=4 GiB on user.slice"), "{found:?}");
        assert_eq!(with(Vec::new()), None, "unknown limits have no finding");
    }

    #[test]
    fn the_smallest_hard_limit_counts_and_should_be_separate() {
        let with = |levels| max(&Serve { levels, ..one() }).map(|finding| (finding.state, finding.says));
        assert_eq!(with(Vec::new()), None);
        assert_eq!(with(vec![level("a", None, None)]).unwrap().0, State::Warning);
        assert_eq!(
            with(vec![level("a", None, Some(1 << 30)), level("b", None, Some(2 << 30))]).unwrap(),
            (State::Ok, "1 GiB".to_owned())
        );
        assert_eq!(
            with(vec![level("a", None, None), level("b", None, Some(2 << 30))]).unwrap().0,
            State::Note
        );
    }

    #[test]
    fn only_oom_policy_continue_is_ok() {
        let unit = |policy: Option<&str>| Unit { oom_policy: policy.map(str::to_owned), ..Unit::default() };
        let state = |serve: &Serve, policy| oom(serve, Some(&unit(policy))).map(|finding| finding.state);
        assert_eq!(state(&one(), Some("continue")), Some(State::Ok));
        assert_eq!(state(&one(), Some("stop")), Some(State::Warning));
        assert_eq!(state(&one(), Some("kill")), Some(State::Warning));
        assert_eq!(state(&one(), None), None);
        assert_eq!(oom(&one(), None), None);
        let grouped = Serve { oom_group: Some(true), ..one() };
        assert_eq!(state(&grouped, Some("continue")), Some(State::Warning));
    }

    #[test]
    fn a_port_without_a_visible_process_is_reported() {
        let elsewhere = Listener::Elsewhere("::1".parse().unwrap());
        for (process, state) in [
            (Listener::Absent, State::Warning),
            (elsewhere, State::Warning),
            (Listener::Unknown, State::Note),
        ] {
            let mut facts = healthy();
            let serves = facts.serves.as_mut().unwrap();
            serves.truncate(1);
            serves[0].process = process;
            let found = all(&facts);
            assert_eq!((found.len(), found[1].state), (2, state), "limits without a process are not judged");
        }
        let mut facts = healthy();
        let serves = facts.serves.as_mut().unwrap();
        serves[1].unit = serves[0].unit.clone();
        assert_eq!(all(&facts).iter().filter(|finding| finding.says.contains("shares its unit")).count(), 2);
        for (why, state) in [
            (TableError::Unreadable("x".to_owned()), State::Note),
            (TableError::Malformed("x".to_owned()), State::Broken),
        ] {
            facts.serves = Err(why);
            assert_eq!(all(&facts)[0].state, state);
        }
    }
}
