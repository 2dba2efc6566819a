//! Checks of each serve: does something listen where a login is sent, and do its unit's limits keep
//! one user's build from taking the sessions along. Pure.

use super::super::{
    facts::{Facts, Listener, NoTable, Serve, Unit},
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

fn no_table(why: &NoTable) -> Finding {
    let (state, why) = match why {
        NoTable::Unreadable(why) => (State::Note, why),
        NoTable::Malformed(why) => (State::Broken, why),
    };
    Finding::of(
        Check::Routes,
        state,
        format!("serves are not looked at: {why}"),
        "t3-dispatch check; or --table FILE",
    )
}

fn name(serve: &Serve) -> String {
    serve.unit.clone().unwrap_or_else(|| format!("{}:{}", serve.user, serve.port))
}

fn serve(serve: &Serve, shared: Option<&Serve>, root: bool) -> Finding {
    let (check, port, user) = (Check::Serve, serve.port, &serve.user);
    match &serve.process {
        Listener::Nobody => {
            let says = format!("nobody listens on {port}: {user}'s WebSockets end as serve_refused");
            Finding::of(
                check,
                State::Warning,
                says,
                format!("systemctl status t3-serve@{user}, or take {user} out of the routing table"),
            )
        }
        Listener::Unseen => {
            let advice = if root { "" } else { "ask as root" };
            Finding::of(
                check,
                State::Note,
                format!("something listens on {port}; whose it is could not be seen"),
                advice,
            )
        }
        Listener::Process { .. } if let Some(other) = shared => {
            let says = format!(
                "shares its unit with {}'s serve on {}: neither has a pressure or a limit of its own",
                other.user, other.port
            );
            Finding::of(check, State::Warning, says, "a unit for each: t3-serve@.service")
        }
        Listener::Process { pid, comm } if serve.unit.is_none() => {
            let says =
                format!("{comm}[{pid}] listens on {port} and is in no unit: its limits are not looked at");
            Finding::of(check, State::Note, says, "a unit for each: t3-serve@.service")
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
        "MemoryHigh={} on {}: at that line every allocation is slowed down and nothing is killed; a unit can stand still like that for an hour",
        super::bytes(high),
        level.name
    );
    let advice = format!("systemctl set-property {} MemoryHigh=infinity, and a MemoryMax", level.name);
    Some(Finding::of(check, State::Warning, says, advice))
}

fn max(serve: &Serve) -> Option<Finding> {
    let check = Check::MemoryMax;
    let own = serve.levels.first()?;
    let limit = serve.levels.iter().filter_map(|level| Some((level.max?, level))).min_by_key(|(max, _)| *max);
    Some(match limit {
        None => {
            let says = "no MemoryMax: one user's build can take the whole machine, and the kernel then chooses among all";
            Finding::of(
                check,
                State::Warning,
                says,
                format!("systemctl set-property {} MemoryMax=12G, or what the machine can spare", own.name),
            )
        }
        Some((max, level)) if level.name != own.name => {
            let says = format!(
                "only {} has a limit, {}: its members take it from each other",
                level.name,
                super::bytes(max)
            );
            Finding::of(check, State::Note, says, format!("a MemoryMax of its own for {}", own.name))
        }
        Some((max, _)) => Finding::ok(check, super::bytes(max)),
    })
}

fn oom(serve: &Serve, unit: Option<&Unit>) -> Option<Finding> {
    let check = Check::OomPolicy;
    if serve.oom_group == Some(true) {
        let says = "memory.oom.group is set: one process too many, and the kernel kills all of the unit";
        return Some(Finding::of(check, State::Warning, says, "OOMPolicy=continue in its unit"));
    }
    match unit?.oom_policy.as_deref()? {
        "continue" => Some(Finding::ok(check, "continue: a killed build leaves serve alone")),
        other => {
            let says = format!(
                "OOMPolicy={other}: when the kernel kills a build of this unit, systemd stops serve, too"
            );
            Some(Finding::of(
                check,
                State::Warning,
                says,
                "OOMPolicy=continue in its unit; systemctl daemon-reload; restart it when nobody works",
            ))
        }
    }
}

fn pressure(serve: &Serve) -> Option<Finding> {
    let check = Check::ServePressure;
    Some(if serve.pressure? {
        Finding::ok(check, "measured")
    } else {
        let says = "its cgroup has no pressure files: records of its closes have no psi keys";
        Finding::of(check, State::Note, says, "see pressure and cgroups; or cgroup.pressure is 0 there")
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
    fn a_soft_limit_anywhere_above_is_a_warning() {
        let with = |levels| high(&Serve { levels, ..one() });
        assert_eq!(with(vec![level("a", None, None)]).unwrap().state, State::Ok);
        let found = with(vec![level("a", None, None), level("user.slice", Some(4 << 30), None)]).unwrap();
        assert_eq!(found.state, State::Warning);
        assert!(found.says.contains("MemoryHigh=4 GiB on user.slice"), "{found:?}");
        assert_eq!(with(Vec::new()), None, "nothing is said of what is not known");
    }

    #[test]
    fn the_smallest_hard_limit_counts_and_one_of_its_own_is_best() {
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
    fn only_continue_is_a_good_oom_policy() {
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
    fn a_port_without_a_process_is_told_by_what_is_known_of_it() {
        for (process, state) in [(Listener::Nobody, State::Warning), (Listener::Unseen, State::Note)] {
            let mut facts = healthy();
            let serves = facts.serves.as_mut().unwrap();
            serves.truncate(1);
            serves[0].process = process;
            let found = all(&facts);
            assert_eq!((found.len(), found[1].state), (2, state), "limits of nobody are not judged");
        }
        let mut facts = healthy();
        let serves = facts.serves.as_mut().unwrap();
        serves[1].unit = serves[0].unit.clone();
        assert_eq!(all(&facts).iter().filter(|finding| finding.says.contains("shares its unit")).count(), 2);
        for (why, state) in [
            (NoTable::Unreadable("x".to_owned()), State::Note),
            (NoTable::Malformed("x".to_owned()), State::Broken),
        ] {
            facts.serves = Err(why);
            assert_eq!(all(&facts)[0].state, state);
        }
    }
}
