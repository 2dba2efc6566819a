//! Checks of the kernel: BTF, hooks, lockdown, locked memory. Pure. A feature that the kernel lacks
//! is a note; one that it has and refuses is broken.

use t3_record::wire::Hook;
use t3_trace_host::kernel::{ABSENT, NEEDED, SWITCHED_OFF};

use super::super::{
    facts::{Facts, Hooks, Kernel, Memlock, Presence},
    finding::{Check, Finding, State},
};

/// First kernel that does not count eBPF maps as locked memory.
const UNCOUNTED: (u32, u32) = (5, 11);
/// Generous size of the maps.
const ENOUGH: u64 = 64 << 20;

pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let missing = facts.daemon.status().map_or(&[][..], |status| &status.missing);
    let mut found = vec![btf(kernel, missing)];
    found.extend(hooks(kernel));
    found.push(lockdown(kernel));
    found.push(memlock(kernel));
    found
}

fn btf(kernel: &Kernel, missing: &[String]) -> Finding {
    let check = Check::Btf;
    match &kernel.btf {
        Presence::Present if missing.is_empty() => {
            Finding::ok(check, format!("Linux {} has BTF", kernel.release))
        }
        Presence::Present => {
            let says = format!("the BTF of Linux {} lacks: {}", kernel.release, missing.join("; "));
            Finding::of(check, State::Note, says, "")
        }
        Presence::Missing => {
            let says = format!("Linux {} has no BTF: no hook can be attached", kernel.release);
            Finding::of(check, State::Note, says, "use a kernel 5.10 or newer with CONFIG_DEBUG_INFO_BTF=y")
        }
        Presence::Unreadable(why) => {
            Finding::of(check, State::Warning, format!("not readable: {why}"), "run as root")
        }
    }
}

fn hooks(kernel: &Kernel) -> Vec<Finding> {
    let check = Check::Hook;
    match &kernel.hooks {
        Hooks::Running(hooks) => hooks.iter().map(|one| hook(one, &kernel.btf, "")).collect(),
        Hooks::Tried(Ok(hooks)) => {
            hooks.iter().map(|one| hook(one, &kernel.btf, " (as a test, without the daemon)")).collect()
        }
        Hooks::Tried(Err(why)) => {
            let says = format!("no hook can be attached: {why}");
            let lacks = kernel.btf == Presence::Missing;
            let advice = "run as root outside of containers: t3-trace needs CAP_BPF and CAP_PERFMON";
            vec![if lacks {
                Finding::of(check, State::Note, says, "")
            } else {
                Finding::of(check, State::Broken, says, advice)
            }]
        }
        Hooks::Offered(Ok(names)) => {
            let one = |(name, there): &(String, bool)| {
                if *there {
                    Finding::of(
                        check,
                        State::Note,
                        "in this kernel; only root can test whether it can be attached",
                        "",
                    )
                } else {
                    Finding::of(check, State::Note, ABSENT, "")
                }
                .about(name.as_str())
            };
            names.iter().map(one).collect()
        }
        Hooks::Offered(Err(why)) => {
            vec![Finding::of(
                check,
                State::Note,
                format!("unknown: {why}"),
                "run as root, or start the daemon",
            )]
        }
    }
}

fn hook(hook: &Hook, btf: &Presence, how: &str) -> Finding {
    let check = Check::Hook;
    let finding = match (&hook.attached, hook.why.as_deref().unwrap_or("reason unknown")) {
        (Some(way), _) => Finding::ok(check, format!("attached by {way}{how}")),
        (None, why) if why.starts_with(SWITCHED_OFF) => {
            Finding::of(check, State::Note, format!("not attached: {why}"), "")
        }
        (None, why) if why.starts_with(ABSENT) && !hook.name.ends_with(NEEDED) => {
            Finding::of(check, State::Note, format!("not attached: {why}"), "")
        }
        // Functions are additional evidence: verdicts do not depend on them.
        (None, why) if hook.name != "all" && !hook.name.contains(':') => {
            Finding::of(check, State::Note, format!("not attached: {why}"), "")
        }
        (None, why) if hook.name == "all" && *btf == Presence::Missing => {
            Finding::of(check, State::Note, format!("none attached: {why}"), "")
        }
        (None, why) => {
            let advice = "journalctl -u t3-trace; check root, capabilities and lockdown; else report it";
            Finding::of(check, State::Broken, format!("not attached: {why}"), advice)
        }
    };
    finding.about(hook.name.as_str())
}

fn lockdown(kernel: &Kernel) -> Finding {
    let check = Check::Lockdown;
    match kernel.lockdown.as_deref() {
        None => Finding::ok(check, "none in this kernel"),
        Some("confidentiality") => {
            let says = "confidentiality: no eBPF program may read the kernel";
            Finding::of(check, State::Note, says, "boot without lockdown=confidentiality (integrity is fine)")
        }
        Some(mode) => Finding::ok(check, format!("{mode}: eBPF programs may read the kernel")),
    }
}

fn memlock(kernel: &Kernel) -> Finding {
    let check = Check::Memlock;
    let Some((major, minor)) = version(&kernel.release) else {
        return Finding::of(check, State::Note, format!("unknown kernel version {}", kernel.release), "");
    };
    if (major, minor) >= UNCOUNTED {
        return Finding::ok(check, "this kernel does not count eBPF maps as locked memory");
    }
    match &kernel.memlock {
        None => Finding::of(check, State::Note, "unknown limit", ""),
        Some(Memlock { bytes: None, .. }) => Finding::ok(check, "no limit"),
        Some(Memlock { bytes: Some(limit), .. }) if *limit >= ENOUGH => {
            Finding::ok(check, super::bytes(*limit))
        }
        Some(Memlock { bytes: Some(limit), of_daemon }) => {
            let whose = if *of_daemon { "the daemon" } else { "this program" };
            let says =
                format!("{whose} may lock only {}, and this kernel counts eBPF maps", super::bytes(*limit));
            Finding::of(check, State::Warning, says, "set LimitMEMLOCK=infinity in t3-trace.service")
        }
    }
}

/// `5.10.0-28-amd64` is 5.10.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::healthy;

    fn not_attached(name: &str, why: &str) -> Hook {
        Hook { name: name.to_owned(), attached: None, why: Some(why.to_owned()) }
    }

    #[test]
    fn a_missing_hook_is_a_note_and_a_refused_one_is_broken() {
        for (name, why, btf, state) in [
            ("sock:inet_sk_error_report", ABSENT, Presence::Present, State::Note),
            ("sock:inet_sock_set_state", ABSENT, Presence::Present, State::Broken),
            ("tcp:tcp_send_reset", "Operation not permitted", Presence::Present, State::Broken),
            ("tcp_close", "fentry: x; kprobe: y; lost: nothing", Presence::Present, State::Note),
            ("tcp_close", "disabled by --hooks tracepoint", Presence::Present, State::Note),
            ("all", "disabled by --no-ebpf", Presence::Present, State::Note),
            ("all", "cannot read", Presence::Missing, State::Note),
            ("all", "cannot load the eBPF object", Presence::Present, State::Broken),
        ] {
            let finding = hook(&not_attached(name, why), &btf, "");
            assert_eq!(finding.state, state, "{name} {why}");
            assert!(finding.says.contains(why), "the reason is reported");
        }
    }

    #[test]
    fn without_root_and_daemon_hooks_are_only_listed() {
        let mut kernel = healthy().kernel;
        let names = vec![("a:b".to_owned(), true), ("c:d".to_owned(), false)];
        kernel.hooks = Hooks::Offered(Ok(names));
        let found = hooks(&kernel);
        assert!(found.iter().all(|finding| finding.state == State::Note) && found.len() == 2);
        kernel.hooks = Hooks::Tried(Err("no".to_owned()));
        assert_eq!(hooks(&kernel)[0].state, State::Broken);
        kernel.btf = Presence::Missing;
        assert_eq!((hooks(&kernel)[0].state, btf(&kernel, &[]).state), (State::Note, State::Note));
    }

    #[test]
    fn locked_memory_counts_on_old_kernels_only() {
        for (release, bytes, state) in [
            ("6.18.44", Some(65536), State::Ok),
            ("5.11.0-rc1", Some(65536), State::Ok),
            ("5.10.0-28-amd64", Some(65536), State::Warning),
            ("5.10.0-28-amd64", Some(64 << 20), State::Ok),
            ("5.10.0-28-amd64", None, State::Ok),
            ("strange", None, State::Note),
        ] {
            let mut kernel = healthy().kernel;
            kernel.release = release.to_owned();
            kernel.memlock = Some(Memlock { of_daemon: true, bytes });
            assert_eq!(memlock(&kernel).state, state, "{release} {bytes:?}");
        }
    }

    #[test]
    fn only_confidentiality_prevents_ebpf() {
        for (mode, state) in [
            (None, State::Ok),
            (Some("none"), State::Ok),
            (Some("integrity"), State::Ok),
            (Some("confidentiality"), State::Note),
        ] {
            let mut kernel = healthy().kernel;
            kernel.lockdown = mode.map(str::to_owned);
            assert_eq!(lockdown(&kernel).state, state);
        }
    }
}
