//! Attaches each eBPF program to the best hook that the kernel offers, and reports the result.

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, Program, RawTracePoint},
};
use t3_record::{vocabulary::KernelSource, wire::Hook};

use super::{Functions, KernelError, btf::Btf};

/// A raw tracepoint: category, name (also of the program), and the evidence lost without it.
struct Tracepoint {
    category: &'static str,
    name: &'static str,
    lost: &'static str,
}

/// The only required hook.
pub const NEEDED: &str = "inet_sock_set_state";

/// Start of the reason when the kernel lacks the hook.
pub const ABSENT: &str = "not in this kernel";

/// Start of the reason when an option disabled the hook.
pub const SWITCHED_OFF: &str = "disabled by";

const TRACEPOINTS: &[Tracepoint] = &[
    Tracepoint { category: "sock", name: NEEDED, lost: "who closed first" },
    Tracepoint { category: "tcp", name: "tcp_receive_reset", lost: "received RST" },
    Tracepoint { category: "tcp", name: "tcp_send_reset", lost: "sent RST" },
    Tracepoint {
        category: "sock",
        name: "inet_sk_error_report",
        lost: "time of a socket error; the error is still read when the socket closes",
    },
    Tracepoint { category: "tcp", name: "tcp_retransmit_skb", lost: "retransmission count" },
    Tracepoint { category: "sched", name: "sched_process_exit", lost: "exit status of processes" },
    Tracepoint { category: "signal", name: "signal_generate", lost: "sender of a fatal signal" },
    Tracepoint { category: "oom", name: "mark_victim", lost: "distinction of OOM kills from other kills" },
];

/// Functions with additional evidence: fentry if it attaches, else a kprobe.
const FUNCTIONS: &[(&str, &str)] = &[
    ("tcp_close", "no effect on verdicts: time of close on half-closed sockets"),
    ("tcp_reset", "no effect on verdicts: tcp:tcp_receive_reset has the same evidence"),
];

/// Returns the tracepoints of the running kernel, from its BTF, which any user may read. Only an
/// attempt shows whether they can be attached.
///
/// # Errors
/// [`KernelError`] when the BTF is missing or not readable.
pub fn offered() -> Result<Vec<(String, bool)>, KernelError> {
    let vmlinux = std::fs::read(super::VMLINUX).map_err(KernelError::NoBtf)?;
    let btf = Btf::parse(&vmlinux)?;
    let known = |point: &Tracepoint| {
        (format!("{}:{}", point.category, point.name), btf.tracepoint(point.name).is_ok())
    };
    Ok(TRACEPOINTS.iter().map(known).collect())
}

/// Whether verdicts depend on a hook; the others are only additional evidence.
#[must_use]
pub fn affects_verdicts(hook: &str) -> bool {
    hook != ACCEPT.0 && FUNCTIONS.iter().all(|(function, _)| *function != hook)
}

/// Function whose return shows accepts, and the tracepoint used where it cannot be hooked.
const ACCEPT: (&str, &str) = ("inet_csk_accept", "tcp_rcv_space_adjust");
/// Evidence lost without either.
const ACCEPT_LOST: &str =
    "process that accepted a watched connection at that moment; procfs is searched later";

/// Attaches all hooks. They stay attached as long as `ebpf` lives.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf<'_>,
    aya_btf: Option<&AyaBtf>,
    functions: Functions,
) -> Result<(Vec<Hook>, KernelSource), KernelError> {
    let mut hooks = Vec::new();
    for point in TRACEPOINTS {
        let name = format!("{}:{}", point.category, point.name);
        let outcome = if btf.tracepoint(point.name).is_ok() {
            tracepoint(ebpf, aya_btf.filter(|_| functions == Functions::Best), point.name)
        } else {
            Err(ABSENT.to_owned())
        };
        match outcome {
            Err(why) if point.name == NEEDED => return Err(KernelError::Hook { hook: name, why }),
            outcome => hooks.push(hook(name, outcome.map(|()| "tracepoint"), point.lost)),
        }
    }
    let mut source = KernelSource::Tracepoint;
    for (function, lost) in FUNCTIONS {
        let outcome = match functions {
            Functions::Best => function_entry(ebpf, aya_btf, function),
            Functions::Kprobe => kprobe(ebpf, function).map(|()| "kprobe"),
            Functions::Tracepoint => Err(format!("{SWITCHED_OFF} --hooks tracepoint")),
        };
        if outcome.is_ok() {
            source = KernelSource::Kprobe;
        }
        hooks.push(hook((*function).to_owned(), outcome, lost));
    }
    hooks.push(accept(ebpf, aya_btf, functions));
    Ok((hooks, source))
}

/// The return of the function has no limit of concurrent calls, which a kretprobe has: processes
/// that wait in `accept` would use it up.
fn accept(ebpf: &mut Ebpf, btf: Option<&AyaBtf>, functions: Functions) -> Hook {
    let (function, point) = ACCEPT;
    let by_function = match (functions, btf) {
        (Functions::Best, Some(btf)) => fexit(ebpf, btf, function),
        (Functions::Best, None) => Err("no BTF".to_owned()),
        (Functions::Kprobe, _) => Err(format!("{SWITCHED_OFF} --hooks kprobe")),
        (Functions::Tracepoint, _) => Err(format!("{SWITCHED_OFF} --hooks tracepoint")),
    };
    let why =
        |error| format!("fexit: {error}; {point} is attached when a port other than serve's is watched");
    hook(function.to_owned(), by_function.map(|()| "fexit").map_err(why), ACCEPT_LOST)
}

/// Attaches the substitute for [`accept`] if that is not attached. It runs for each read of each
/// connection of the host, so it is not attached for serve ports alone, whose listeners are known.
pub(super) fn accept_by_read(ebpf: &mut Ebpf, hooks: &mut [Hook]) {
    let (function, point) = ACCEPT;
    let Some(known) = hooks.iter_mut().find(|hook| hook.name == function && hook.attached.is_none()) else {
        return;
    };
    let why = |error| format!("{point}: {error}");
    *known = hook(
        function.to_owned(),
        raw_tracepoint(ebpf, point).map(|()| "tracepoint").map_err(why),
        ACCEPT_LOST,
    );
}

fn fexit(ebpf: &mut Ebpf, btf: &AyaBtf, function: &str) -> Result<(), String> {
    let fexit: &mut FExit = program(ebpf, &format!("fexit_{function}"))?;
    fexit.load(function, btf).map_err(|error| short(&error))?;
    if let Err(error) = fexit.attach() {
        // As in `fentry`.
        let _ = fexit.unload();
        return Err(short(&error));
    }
    Ok(())
}

pub(super) fn hook(name: String, outcome: Result<&str, String>, lost: &str) -> Hook {
    match outcome {
        Ok(way) => Hook { name, attached: Some(way.to_owned()), why: None },
        Err(why) => Hook { name, attached: None, why: Some(format!("{why}; lost: {lost}")) },
    }
}

/// With the program that reads kernel memory without helpers, if there is one and the kernel
/// accepts it; both record the same.
fn tracepoint(ebpf: &mut Ebpf, btf: Option<&AyaBtf>, name: &str) -> Result<(), String> {
    match btf {
        Some(btf) if btf_tracepoint(ebpf, btf, name).is_ok() => Ok(()),
        _ => raw_tracepoint(ebpf, name),
    }
}

fn btf_tracepoint(ebpf: &mut Ebpf, btf: &AyaBtf, name: &str) -> Result<(), String> {
    let program: &mut BtfTracePoint = program(ebpf, &format!("btf_{name}"))?;
    program.load(name, btf).map_err(|error| short(&error))?;
    if let Err(error) = program.attach() {
        let _ = program.unload();
        return Err(short(&error));
    }
    Ok(())
}

fn raw_tracepoint(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    let program: &mut RawTracePoint = program(ebpf, name)?;
    program.load().map_err(|error| short(&error))?;
    program.attach(name).map_err(|error| short(&error))?;
    Ok(())
}

fn function_entry(ebpf: &mut Ebpf, btf: Option<&AyaBtf>, function: &str) -> Result<&'static str, String> {
    let fentry = match btf {
        Some(btf) => fentry(ebpf, btf, function),
        None => Err("no BTF".to_owned()),
    };
    let Err(no_fentry) = fentry else { return Ok("fentry") };
    match kprobe(ebpf, function) {
        Ok(()) => Ok("kprobe"),
        Err(no_kprobe) => Err(format!("fentry: {no_fentry}; kprobe: {no_kprobe}")),
    }
}

fn fentry(ebpf: &mut Ebpf, btf: &AyaBtf, function: &str) -> Result<(), String> {
    let program: &mut FEntry = program(ebpf, &format!("fentry_{function}"))?;
    program.load(function, btf).map_err(|error| short(&error))?;
    if let Err(error) = program.attach() {
        // A program that is not attached must not stay in the kernel.
        let _ = program.unload();
        return Err(short(&error));
    }
    Ok(())
}

fn kprobe(ebpf: &mut Ebpf, function: &str) -> Result<(), String> {
    let program: &mut KProbe = program(ebpf, &format!("kprobe_{function}"))?;
    program.load().map_err(|error| short(&error))?;
    if let Err(error) = program.attach(function, 0) {
        let _ = program.unload();
        return Err(short(&error));
    }
    Ok(())
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| format!("the eBPF object has no program {name}"))
}

/// An error with its causes on one line. Of a verifier log the end is kept, which has the reason.
pub(super) fn short(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let chars = words.chars().count();
    if chars <= 400 {
        return words;
    }
    let start: String = words.chars().take(120).collect();
    let end: String = words.chars().skip(chars - 260).collect();
    format!("{start} [...] {end}")
}

#[cfg(test)]
mod tests {
    use super::{NEEDED, affects_verdicts, short};

    #[test]
    fn verdicts_depend_on_tracepoints_only() {
        assert!(affects_verdicts(&format!("sock:{NEEDED}")) && affects_verdicts("all"));
        assert!(!affects_verdicts("tcp_close") && !affects_verdicts("tcp_reset"));
    }

    #[test]
    fn a_long_error_is_cut_in_the_middle_and_on_one_line() {
        let error = std::io::Error::other(format!("first\nline {} the reason", "x\n".repeat(5_000)));
        let text = short(&error);
        assert!(text.starts_with("first line"), "{text}");
        assert!(text.ends_with("the reason"), "{text}");
        assert!(text.len() < 450 && !text.contains('\n'), "{text}");
    }
}
