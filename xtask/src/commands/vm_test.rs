//! `cargo xtask vm-test`: Debian's kernels with systemd as PID 1 and kprobes, in software emulation
//! (no /dev/kvm needed), each running the project's own programs, statically linked so that one
//! build fits every release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::cli::VmTestArgs;
use crate::packaging;
use crate::tools::apt_packages::User;
use crate::tools::report::{Counts, Report, Step, TierReport};
use crate::tools::{apt_packages, cargo, ebpf, paths, progress, toolchain};
use crate::vm::apt;
use crate::vm::boot::Boot;
use crate::vm::payload::Payload;
use crate::vm::recipe::Recipe;
use crate::vm::rootfs::{self, Image};
use crate::vm::suite::Suite;

/// The catalogue of faults, in a guest.
const FAULTS: &str = "t3-faults --tier vm --kernel kprobe --json /out/results.json";
/// The same, with each way to hook functions that the best one hides: fentry is there in all
/// guests.
const OTHER_HOOKS: [&str; 2] = [
    "t3-faults --tier vm --first --hooks kprobe --kernel kprobe",
    "t3-faults --tier vm --first --hooks tracepoint --kernel tracepoint",
];
/// Runs the whole catalogue; the others leave out what dispatch decides without the kernel, to save
/// a quarter of an hour.
const FULL: Suite = Suite::Bookworm;
/// The life of the Debian packages, from install to purge: all of it with a reboot in a guest of
/// its own of [`FULL`], briefly in this one.
const PACKAGES: &str = "t3-package-test --packages /opt/t3/packages";
const BRIEFLY: Suite = Suite::Trixie;
/// Emulation is about ten times slower than the machine; what waits there does so for longer.
const PATIENCE: &str = "4";
/// The crates whose programs a guest gets.
const PROGRAMS_OF: [&str; 3] = ["t3-trace", "t3-dispatch", "t3-testkit"];

/// Runs the command.
pub fn run(args: &VmTestArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    apt_packages::ensure(User::Vm)?;
    let steps = steps(args)?;
    let report =
        Report { tiers: vec![TierReport { name: "vm", steps, time: begin.elapsed(), not_run: None }] };
    report.closing(true).iter().for_each(|line| println!("{line}"));
    Ok(if report.counts(true).failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One guest to boot.
struct Guest {
    /// Its name in the report, and of its folder.
    name: &'static str,
    suite: Suite,
    payload: Payload,
    /// It reboots in the middle.
    reboots: bool,
}

/// Boots every release asked for; a failed one does not keep the others from running.
pub fn steps(args: &VmTestArgs) -> Result<Vec<Step>> {
    let suites = if args.suites.is_empty() { Suite::ALL.to_vec() } else { args.suites.clone() };
    let guests = guests(args, &suites)?;
    progress::step("making the guests' file systems");
    let suites: Vec<Suite> =
        suites.into_iter().filter(|suite| guests.iter().any(|guest| guest.suite == *suite)).collect();
    let images: Vec<(Suite, Result<Image, String>)> = suites
        .iter()
        .copied()
        .zip(images(&suites)?.into_iter().map(|image| image.map_err(|e| format!("{e:#}"))))
        .collect();
    let (queue, done) = (Mutex::new(guests.into_iter()), Mutex::new(Vec::new()));
    // A guest waits for timers most of its time, so two share a machine of two CPUs well; three do
    // not.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(guest) = next else { return };
                    let step = one(&guest, &images, args);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(step);
                }
            });
        }
    });
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn one(guest: &Guest, images: &[(Suite, Result<Image, String>)], args: &VmTestArgs) -> Step {
    progress::step(&format!("booting {} (Linux {}x, emulated)", guest.name, guest.suite.kernel()));
    let begin = Instant::now();
    let image = images.iter().find(|(suite, _)| *suite == guest.suite);
    let image = match image {
        Some((_, Ok(image))) => Ok(image),
        Some((_, Err(why))) => Err(anyhow!("{why}")),
        None => Err(anyhow!("no file system was made")),
    };
    let step = image.and_then(|image| boot(guest, image, args)).unwrap_or_else(|error| {
        Step::new(guest.name, false, Counts::default(), begin.elapsed()).because(format!("{error:#}"))
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

fn boot(guest: &Guest, image: &Image, args: &VmTestArgs) -> Result<Step> {
    let Guest { name, suite, payload, reboots } = guest;
    let dir = paths::vm().join(name).join("run");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let disk = payload.write(*suite, &dir)?;
    let limit = Duration::from_secs(args.timeout);
    let (reboots, show_console) = (*reboots, args.console);
    let answer = Boot { name, image, disk: &disk, dir: &dir, limit, show_console, reboots }.run()?;
    let step = Step::new(*name, answer.exit == Ok(0), answer.counts, answer.time);
    let expected = u32::try_from(1 + payload.commands.len())?;
    Ok(match answer.exit {
        // The check of the guest counts, and so must the project's tests; somebody's own program
        // need not.
        Ok(0) if answer.counts.lines < if args.exec.is_some() { 1 } else { expected } => {
            let step = Step::new(*name, false, answer.counts, answer.time);
            step.because("a program in the guest ended well without having counted its tests")
        }
        Ok(0) => step,
        Ok(code) => step.because(format!("exit code {code}; files in {}", paths::short(&dir))),
        Err(trouble) => step.because(format!("{trouble}; files in {}", paths::short(&dir))),
    })
}

/// Who boots, the longest first.
fn guests(args: &VmTestArgs, suites: &[Suite]) -> Result<Vec<Guest>> {
    let mut bare = Payload::default();
    for (name, value) in [("CI", "true"), ("T3_BIN_DIR", "/opt/t3/bin"), ("T3_PATIENCE", PATIENCE)] {
        bare.env.push((name.to_owned(), value.to_owned()));
    }
    for name in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Ok(value) = std::env::var(name) {
            bare.env.push((name.to_owned(), value));
        }
    }
    let all_alike = |payload: Payload| {
        let guest =
            |&suite: &Suite| Guest { name: suite.name(), suite, payload: payload.clone(), reboots: false };
        suites.iter().map(guest).collect()
    };
    if args.check_guest {
        return Ok(all_alike(bare));
    }
    if let Some(path) = &args.exec {
        bare.programs.push(("vm-tests".to_owned(), path.clone()));
        bare.commands.push("vm-tests".to_owned());
        return Ok(all_alike(bare));
    }
    bare.programs = programs()?;
    let only = args.only.iter().map(|name| format!(" --only {name}"));
    let line = only.fold(FAULTS.to_owned(), |line, only| line + &only);
    let mut with_packages = bare.clone();
    if args.only.is_empty() {
        let [first, later] = packaging::for_guests(&bare.programs)?;
        for (place, dir) in [("packages/first", first), ("packages/later", later)] {
            with_packages.files.extend(files_in(&dir, place)?);
        }
    }
    let mut guests = Vec::new();
    for &suite in suites {
        let mut payload = if suite == BRIEFLY { with_packages.clone() } else { bare.clone() };
        if suite != FULL {
            payload.env.push(("T3_ONLY_KERNEL".to_owned(), "true".to_owned()));
        }
        if !args.packages {
            payload.commands.extend(std::iter::repeat_n(line.clone(), usize::from(args.times)));
        }
        if args.only.is_empty() {
            if suite != FULL && !args.packages {
                payload.commands.extend(OTHER_HOOKS.map(str::to_owned));
            }
            if suite == BRIEFLY {
                // Last: the units of the packages would watch the faults, too.
                payload.commands.push(format!("{PACKAGES} --brief"));
            }
        }
        if !payload.commands.is_empty() {
            guests.push(Guest { name: suite.name(), suite, payload, reboots: false });
        }
        if args.only.is_empty() && suite == FULL {
            let mut payload = with_packages.clone();
            payload.commands.push(PACKAGES.to_owned());
            guests.push(Guest { name: "bookworm-packages", suite, payload, reboots: true });
        }
    }
    Ok(guests)
}

/// Every file of a folder, and where it goes in the payload.
fn files_in(dir: &Path, place: &str) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries
        .flatten()
        .map(|entry| (format!("{place}/{}", entry.file_name().to_string_lossy()), entry.path()))
        .collect())
}

/// The project's programs, static.
pub fn programs() -> Result<Vec<(String, PathBuf)>> {
    ebpf::build()?;
    // t3-trace has parts in C (TLS).
    apt_packages::ensure(User::Release)?;
    toolchain::ensure_musl()?;
    progress::step("compiling the programs for the guests (static)");
    let mut command = cargo::cargo();
    command.args(["build", "--bins", "--target", toolchain::MUSL]);
    // With a folder of its own nobody waits for anybody: this build takes minutes when it is the
    // first.
    command.env("CARGO_TARGET_DIR", paths::target().join("guest-build"));
    for name in PROGRAMS_OF {
        command.args(["-p", name]);
    }
    // Emulation makes everything about ten times slower: some optimisation, and nothing to carry
    // that only debuggers read.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    let made = cargo::artifacts("programs for the guests", command)?;
    Ok(made
        .into_iter()
        .filter(|made| made.kind == "bin")
        .map(|made| (made.target, made.executable))
        .collect())
}
