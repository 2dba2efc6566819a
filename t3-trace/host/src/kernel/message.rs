//! Attaches the programs that read Close frames: at the entry and return of `tcp_sendmsg` and
//! `tcp_recvmsg`, by fentry and fexit, else by kprobe. A direction needs both of its programs.

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{FEntry, FExit, KProbe, Program},
};
use t3_record::wire::Hook;

use super::{
    Functions,
    btf::Btf,
    hooks::{SWITCHED_OFF, hook, program, short},
};

/// The functions, with what is lost without them.
const FUNCTIONS: [(&str, &str); 2] = [
    ("tcp_sendmsg", "Close frames sent on ports with websocket"),
    ("tcp_recvmsg", "Close frames received on ports with websocket"),
];

/// Attaches all of them, or none: the handshake is in both directions.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf<'_>,
    aya_btf: Option<&AyaBtf>,
    functions: Functions,
) -> Vec<Hook> {
    let outcome = match functions {
        Functions::Best => match by_fentry(ebpf, btf, aya_btf) {
            Ok(()) => Ok("fentry"),
            Err(fentry) => by_kprobe(ebpf)
                .map(|()| "kprobe")
                .map_err(|kprobe| format!("fentry: {fentry}; kprobe: {kprobe}")),
        },
        Functions::Kprobe => by_kprobe(ebpf).map(|()| "kprobe"),
        Functions::Tracepoint => Err(format!("{SWITCHED_OFF} --hooks tracepoint")),
    };
    FUNCTIONS.iter().map(|(function, lost)| hook((*function).to_owned(), outcome.clone(), lost)).collect()
}

fn by_fentry(ebpf: &mut Ebpf, btf: &Btf<'_>, aya_btf: Option<&AyaBtf>) -> Result<(), String> {
    let aya_btf = aya_btf.ok_or("no BTF")?;
    let of_receive = match btf.function("tcp_recvmsg").map_err(|error| error.to_string())?.len() {
        4 => "fexit_tcp_recvmsg_4",
        5 => "fexit_tcp_recvmsg_5",
        6 => "fexit_tcp_recvmsg_6",
        other => return Err(format!("tcp_recvmsg has {other} parameters")),
    };
    let pairs = [("tcp_sendmsg", "fexit_tcp_sendmsg"), ("tcp_recvmsg", of_receive)];
    for (function, exit) in pairs {
        let attached = fexit(ebpf, aya_btf, function, exit).and_then(|()| fentry(ebpf, aya_btf, function));
        if let Err(error) = attached {
            for (function, exit) in pairs {
                unload(ebpf, exit);
                unload(ebpf, &format!("fentry_{function}"));
            }
            return Err(format!("{function}: {error}"));
        }
    }
    Ok(())
}

fn fentry(ebpf: &mut Ebpf, btf: &AyaBtf, function: &str) -> Result<(), String> {
    let program: &mut FEntry = program(ebpf, &format!("fentry_{function}"))?;
    program.load(function, btf).map_err(|error| short(&error))?;
    program.attach().map(drop).map_err(|error| short(&error))
}

fn fexit(ebpf: &mut Ebpf, btf: &AyaBtf, function: &str, name: &str) -> Result<(), String> {
    let program: &mut FExit = program(ebpf, name)?;
    program.load(function, btf).map_err(|error| short(&error))?;
    program.attach().map(drop).map_err(|error| short(&error))
}

fn by_kprobe(ebpf: &mut Ebpf) -> Result<(), String> {
    // Returns first: an entry without a return is a gap.
    let programs = FUNCTIONS.iter().flat_map(|(function, _)| {
        [(*function, format!("kretprobe_{function}")), (*function, format!("kprobe_{function}"))]
    });
    let programs: Vec<_> = programs.collect();
    for (function, name) in &programs {
        if let Err(error) = kprobe(ebpf, function, name) {
            programs.iter().for_each(|(_, name)| unload(ebpf, name));
            return Err(format!("{function}: {error}"));
        }
    }
    Ok(())
}

fn kprobe(ebpf: &mut Ebpf, function: &str, name: &str) -> Result<(), String> {
    let program: &mut KProbe = program(ebpf, name)?;
    program.load().map_err(|error| short(&error))?;
    program.attach(function, 0).map(drop).map_err(|error| short(&error))
}

/// A program that is not attached must not stay in the kernel.
fn unload(ebpf: &mut Ebpf, name: &str) {
    let _ = match ebpf.program_mut(name) {
        Some(Program::FEntry(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::KProbe(program)) => program.unload(),
        _ => Ok(()),
    };
}
