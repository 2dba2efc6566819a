//! `cargo xtask vm-test`: Debian's kernels with systemd as PID 1 and kprobes, in software emulation (no /dev/kvm needed),
//! each running the project's own programs, statically linked so that one build fits every release.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::cli::VmTestArgs;
use crate::packages::User;
use crate::tally::{Counts, Report, Step, TierReport};
use crate::vm::apt;
use crate::vm::boot::Boot;
use crate::vm::payload::Payload;
use crate::vm::recipe::Recipe;
use crate::vm::rootfs::{self, Image};
use crate::vm::suite::Suite;
use crate::{cargo, ebpf, packages, paths, say, toolchain};

/// The test program that runs in guests: its crate, its name, its command line there.
const VM_TESTS: (&str, &str, &str) =
    ("t3-testkit", "t3-faults", "t3-faults --tier vm --kernel kprobe --json /out/results.json");
/// The same, with each way to hook functions that the best one hides: fentry is there in all guests.
const OTHER_HOOKS: [&str; 2] = [
    "t3-faults --tier vm --first --hooks kprobe --kernel kprobe",
    "t3-faults --tier vm --first --hooks tracepoint --kernel tracepoint",
];
/// Runs the whole catalogue; the others leave out what dispatch decides without the kernel, to save a quarter of an hour.
const FULL: Suite = Suite::Bookworm;
/// Emulation is about ten times slower than the machine; what waits there does so for longer.
const PATIENCE: &str = "4";
/// The crates whose programs a guest gets.
const PROGRAMS_OF: [&str; 3] = ["t3-trace", "t3-dispatch", "t3-testkit"];

/// Runs the command.
pub fn run(args: &VmTestArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    packages::ensure(User::Vm)?;
    let steps = steps(args)?;
    let report =
        Report { tiers: vec![TierReport { name: "vm", steps, time: begin.elapsed(), not_run: None }] };
    report.closing(true).iter().for_each(|line| println!("{line}"));
    Ok(if report.counts(true).failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Boots every release asked for; a failed one does not keep the others from running.
pub fn steps(args: &VmTestArgs) -> Result<Vec<Step>> {
    let suites = if args.suites.is_empty() { Suite::ALL.to_vec() } else { args.suites.clone() };
    let payload = payload(args)?;
    say::step("making the guests' file systems");
    let images = images(&suites)?;
    let (full, brief): (Vec<_>, Vec<_>) =
        suites.into_iter().zip(images).partition(|(suite, _)| *suite == FULL);
    let in_turn = |guests: Vec<(Suite, Result<Image>)>| -> Vec<Step> {
        guests.into_iter().map(|(suite, image)| one(suite, image, &payload, args)).collect()
    };
    // A guest waits for timers most of its time, so two share a machine of two CPUs well; three do not.
    std::thread::scope(|scope| {
        let full = scope.spawn(|| in_turn(full));
        let brief = in_turn(brief);
        let full = full.join().map_err(|_| anyhow!("the thread that watched {} died", FULL.name()))?;
        Ok(full.into_iter().chain(brief).collect())
    })
}

fn one(suite: Suite, image: Result<Image>, payload: &Payload, args: &VmTestArgs) -> Step {
    say::step(&format!("booting {} (Linux {}x, emulated)", suite.name(), suite.kernel()));
    let begin = Instant::now();
    let step = image.and_then(|image| boot(suite, &image, payload, args)).unwrap_or_else(|error| {
        Step::new(suite.name(), false, Counts::default(), begin.elapsed()).because(format!("{error:#}"))
    });
    step.say();
    step
}

/// All images at once: mmdebstrap spends much of its time waiting.
fn images(suites: &[Suite]) -> Result<Vec<Result<Image>>> {
    let host = apt::host()?;
    let ensure = |suite: Suite| {
        let recipe = Recipe { suite, mirror: host.mirror.clone(), apt_options: host.options.clone() };
        rootfs::ensure(&recipe)
    };
    Ok(std::thread::scope(|scope| {
        let threads: Vec<_> = suites.iter().map(|&suite| scope.spawn(move || ensure(suite))).collect();
        let died = || Err(anyhow!("the thread making this image died"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect()
    }))
}

fn boot(suite: Suite, image: &Image, payload: &Payload, args: &VmTestArgs) -> Result<Step> {
    let dir = paths::vm().join(suite.name()).join("run");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut payload = payload.clone();
    if suite != FULL {
        payload.env.push(("T3_ONLY_KERNEL".to_owned(), "true".to_owned()));
    }
    let whole = args.exec.is_none() && args.only.is_empty() && !payload.programs.is_empty();
    if suite != FULL && whole {
        payload.commands.extend(OTHER_HOOKS.map(str::to_owned));
    }
    let disk = payload.write(suite, &dir)?;
    let limit = Duration::from_secs(args.timeout);
    let boot = Boot { name: suite.name(), image, disk: &disk, dir: &dir, limit, show_console: args.console };
    let answer = boot.run()?;
    let step = Step::new(suite.name(), answer.exit == Ok(0), answer.counts, answer.time);
    let expected = u32::try_from(1 + payload.commands.len())?;
    Ok(match answer.exit {
        // The check of the guest counts, and so must the project's tests; somebody's own program need not.
        Ok(0) if answer.counts.lines < if args.exec.is_some() { 1 } else { expected } => {
            let step = Step::new(suite.name(), false, answer.counts, answer.time);
            step.because("a program in the guest ended well without having counted its tests")
        }
        Ok(0) => step,
        Ok(code) => step.because(format!("exit code {code}; files in {}", paths::short(&dir))),
        Err(trouble) => step.because(format!("{trouble}; files in {}", paths::short(&dir))),
    })
}

fn payload(args: &VmTestArgs) -> Result<Payload> {
    let mut payload = Payload::default();
    for (name, value) in [("CI", "true"), ("T3_BIN_DIR", "/opt/t3/bin"), ("T3_PATIENCE", PATIENCE)] {
        payload.env.push((name.to_owned(), value.to_owned()));
    }
    for name in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Ok(value) = std::env::var(name) {
            payload.env.push((name.to_owned(), value));
        }
    }
    if args.check_guest {
        return Ok(payload);
    }
    if let Some(path) = &args.exec {
        payload.programs.push(("vm-tests".to_owned(), path.clone()));
        payload.commands.push("vm-tests".to_owned());
        return Ok(payload);
    }
    let programs = programs()?;
    if programs.iter().any(|(name, _)| name == VM_TESTS.1) {
        let only = args.only.iter().map(|name| format!(" --only {name}"));
        let line = only.fold(VM_TESTS.2.to_owned(), |line, only| line + &only);
        payload.commands.extend(std::iter::repeat_n(line, usize::from(args.times)));
    } else {
        say::note(&format!(
            "{} has no program `{}` yet: only the guests themselves are checked",
            VM_TESTS.0, VM_TESTS.1
        ));
    }
    payload.programs = programs;
    Ok(payload)
}

/// The project's programs, static.
fn programs() -> Result<Vec<(String, PathBuf)>> {
    ebpf::build()?;
    toolchain::ensure_musl()?;
    say::step("compiling the programs for the guests (static)");
    let mut command = cargo::cargo();
    command.args(["build", "--bins", "--target", toolchain::MUSL]);
    // With a folder of its own nobody waits for anybody: this build takes minutes when it is the first.
    command.env("CARGO_TARGET_DIR", paths::target().join("guest-build"));
    for name in PROGRAMS_OF {
        command.args(["-p", name]);
    }
    // Emulation makes everything about ten times slower: some optimisation, and nothing to carry that only debuggers read.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    let made = cargo::artifacts("programs for the guests", command)?;
    Ok(made
        .into_iter()
        .filter(|made| made.kind == "bin")
        .map(|made| (made.target, made.executable))
        .collect())
}
