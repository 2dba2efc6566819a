//! Checks of the host: pressure, cgroups, wall clock, local users whose identity headers count,
//! unit files that hide packaged ones. Pure.

use t3_config::unit_files::HiddenUnit;

use super::super::{
    facts::{Cgroups, Clock, Collected, Facts, LocalTrust, Pressure},
    finding::{Check, Finding, State},
};
use crate::present::text::lasted;

/// Minimum change of the wall clock that is reported, in milliseconds.
const JUMP: u64 = 1000;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let host = &facts.host;
    let moved = facts.daemon.status().and_then(|status| status.clock_moved_ms);
    let mut found = pressure(&host.pressure);
    found.push(cgroups(&host.cgroups));
    found.push(clock(&host.clock, moved));
    found.push(impersonation(&facts.trust));
    found.extend(units(&facts.hidden_units));
    found
}

/// A masked unit can be intended; one that is hidden is usually left over from an installation by
/// hand.
fn units(hidden: &[HiddenUnit]) -> Vec<Finding> {
    let check = Check::Units;
    if hidden.is_empty() {
        return vec![Finding::ok(check, "no file hides a packaged unit")];
    }
    let finding = |hidden: &HiddenUnit| {
        let state = if hidden.is_masked { State::Note } else { State::Warning };
        Finding::of(check, state, hidden.to_string(), hidden.remedy()).about(hidden.unit.clone())
    };
    hidden.iter().map(finding).collect()
}

fn pressure(files: &[(&'static str, Pressure)]) -> Vec<Finding> {
    let check = Check::Pressure;
    let measured = |(name, file): &(&str, Pressure)| match file {
        Pressure::Some(percent) => Some(format!("{name} {percent:.0}%")),
        _ => None,
    };
    let shares: Vec<_> = files.iter().filter_map(measured).collect();
    if shares.len() == files.len() {
        return vec![Finding::ok(check, format!("PSI some, 10 s: {}", shares.join(", ")))];
    }
    let bad = files.iter().filter_map(|(name, file)| {
        let (says, advice) = match file {
            Pressure::Some(_) => return None,
            Pressure::Missing => {
                let says = "no PSI in this kernel: records lack its psi keys";
                (says.to_owned(), "use a kernel with CONFIG_PSI=y")
            }
            Pressure::Off => {
                let says = "PSI is disabled: records lack its psi keys";
                (says.to_owned(), "boot with psi=1")
            }
            Pressure::Unreadable(why) => (format!("not readable: {why}"), ""),
        };
        Some(Finding::of(check, State::Note, says, advice).about(*name))
    });
    bad.collect()
}

/// Local users who could impersonate others: t3-dispatch trusts the identity headers of their
/// processes.
fn impersonation(trust: &Collected<LocalTrust>) -> Finding {
    let check = Check::Impersonation;
    let trust = match trust {
        Ok(trust) => trust,
        Err(why) => {
            let says = format!("trusted local users are not known: {why}");
            return Finding::of(check, State::Note, says, "run t3-dispatch check as root");
        }
    };
    let names = |users: &mut dyn Iterator<Item = &(String, bool)>| {
        users.map(|(user, _)| user.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (all, logins) = (
        names(&mut trust.users.iter()),
        names(&mut trust.users.iter().filter(|(_, can_log_in)| *can_log_in)),
    );
    let says = "these local users could impersonate others";
    if all.is_empty() {
        return Finding::ok(check, format!("{says}: none"));
    }
    if trust.secret {
        return Finding::ok(check, format!("{says}, with the proxy secret only: {all}"));
    }
    if logins.is_empty() {
        let advice = "add proxy-secret-file if other programs run as this user (docs/SECURITY-MODEL.md)";
        return Finding::of(check, State::Note, format!("{says}: {all}"), advice);
    }
    let advice = format!(
        "run the proxy as a system user and set trusted-user to it instead of {logins}, or set proxy-secret-file"
    );
    Finding::of(check, State::Warning, format!("{says}: {all}"), advice)
}

fn cgroups(cgroups: &Cgroups) -> Finding {
    let check = Check::Cgroups;
    let Some(v2) = cgroups.v2.as_ref().map(|path| path.display()) else {
        let says = "no cgroup version 2 is mounted: records have the pressure of the host only";
        return Finding::of(check, State::Note, says, "boot with systemd.unified_cgroup_hierarchy=1");
    };
    if cgroups.v1.iter().any(|controller| controller == "memory") {
        let says = format!(
            "version 2 at {v2}; version 1 has the memory controller: records lack the mem_ keys and oom_kills"
        );
        return Finding::of(check, State::Note, says, "boot with systemd.unified_cgroup_hierarchy=1");
    }
    let hybrid = if cgroups.v1.is_empty() { "" } else { ", with version 1" };
    Finding::ok(check, format!("version 2 at {v2}{hybrid}"))
}

fn clock(clock: &Clock, moved_ms: Option<i64>) -> Finding {
    let check = Check::Clock;
    if let Some(moved) = moved_ms.filter(|moved| moved.unsigned_abs() >= JUMP) {
        let direction = if moved > 0 { "forward" } else { "back" };
        let by = lasted(moved.unsigned_abs());
        let says = format!(
            "the wall clock was set {direction} by {by} since t3-trace started: do not compare times across this change"
        );
        return Finding::of(
            check,
            State::Note,
            says,
            "durations in records are correct: they use the monotonic clock",
        );
    }
    match clock.synchronised {
        Some(true) => Finding::ok(check, format!("synchronised, error up to {}", lasted(clock.error_ms))),
        Some(false) => {
            let says = "not synchronised: times cannot be compared with logs of other hosts";
            Finding::of(check, State::Warning, says, "timedatectl set-ntp true; is an NTP server reachable?")
        }
        None => Finding::of(check, State::Note, "unknown whether synchronised", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_pressure_is_a_note_with_its_reason() {
        let all = |file: Pressure| [("memory", Pressure::Some(1.0)), ("io", file)];
        assert_eq!(pressure(&all(Pressure::Some(40.4)))[0].says, "PSI some, 10 s: memory 1%, io 40%");
        for (file, advice) in [
            (Pressure::Missing, Some("use a kernel with CONFIG_PSI=y")),
            (Pressure::Off, Some("boot with psi=1")),
            (Pressure::Unreadable("x".to_owned()), None),
        ] {
            let found = pressure(&all(file));
            assert_eq!((found.len(), found[0].state), (1, State::Note));
            assert_eq!((found[0].about.as_deref(), found[0].advice.as_deref()), (Some("io"), advice));
        }
    }

    #[test]
    fn a_hidden_unit_is_a_warning_and_a_masked_one_a_note() {
        let hidden = |unit: &str, is_masked| HiddenUnit {
            unit: unit.to_owned(),
            by: std::path::Path::new("/etc/systemd/system").join(unit),
            packaged: std::path::Path::new("/usr/lib/systemd/system").join(unit),
            is_masked,
        };
        let states = |hidden: &[HiddenUnit]| {
            let found = units(hidden).into_iter();
            found.map(|finding| (finding.about, finding.state, finding.advice)).collect::<Vec<_>>()
        };
        assert_eq!(states(&[]), [(None, State::Ok, None)]);
        let found = states(&[hidden("t3-dispatch.service", false), hidden("t3-mint.socket", true)]);
        let about = |name: &str| Some(name.to_owned());
        assert_eq!((&found[0].0, found[0].1), (&about("t3-dispatch.service"), State::Warning));
        assert_eq!((&found[1].0, found[1].1), (&about("t3-mint.socket"), State::Note));
        let advice = found[0].2.as_deref().unwrap_or_default();
        assert!(
            advice.contains("rm /etc/systemd/system/t3-dispatch.service; systemctl daemon-reload"),
            "{advice}"
        );
    }

    #[test]
    fn only_cgroup_version_2_with_memory_is_ok() {
        for (v2, v1, state) in [
            (true, &[][..], State::Ok),
            (true, &["name=systemd"][..], State::Ok),
            (true, &["cpu", "memory"][..], State::Note),
            (false, &["memory"][..], State::Note),
        ] {
            let v1 = v1.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(cgroups(&Cgroups { v2: v2.then(|| "/sys/fs/cgroup".into()), v1 }).state, state);
        }
    }

    #[test]
    fn a_changed_or_unsynchronised_clock_is_reported() {
        let right = Clock { synchronised: Some(true), error_ms: 12 };
        for (clock, moved, state) in [
            (&right, None, State::Ok),
            (&right, Some(-999), State::Ok),
            (&right, Some(-1000), State::Note),
            (&Clock { synchronised: Some(false), error_ms: 0 }, Some(0), State::Warning),
            (&Clock::default(), Some(0), State::Note),
        ] {
            assert_eq!(super::clock(clock, moved).state, state, "{clock:?} {moved:?}");
        }
        assert!(super::clock(&right, Some(i64::MIN)).says.contains("back"));
    }

    #[test]
    fn local_users_who_could_impersonate_others_are_named() {
        let found = |users: &[(&str, bool)], secret| {
            let users = users.iter().map(|(user, can_log_in)| ((*user).to_owned(), *can_log_in)).collect();
            let finding = impersonation(&Ok(LocalTrust { users, secret }));
            (finding.state, finding.says)
        };
        for (users, secret, state, end) in [
            (&[][..], false, State::Ok, "others: none"),
            (&[("traefik", false)], false, State::Note, "others: traefik"),
            (&[("traefik", false), ("ann", true)], false, State::Warning, "others: traefik, ann"),
            (&[("ann", true)], true, State::Ok, "with the proxy secret only: ann"),
        ] {
            let (found, says) = found(users, secret);
            assert!(found == state && says.ends_with(end), "{users:?}: {says}");
        }
        assert_eq!(impersonation(&Err("no".to_owned())).state, State::Note);
    }
}
