//! Boots the guests of a [`GuestPlan`], two at a time, and reports one step per guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::tools::report::{Counts, Step};
use crate::tools::{paths, progress};
use crate::vm::apt;
use crate::vm::boot::Boot;
use crate::vm::console::STALE_BREAKPOINT;
use crate::vm::payload::Payload;
use crate::vm::recipe::Recipe;
use crate::vm::rootfs::{self, Image};
use crate::vm::suite::Suite;

/// Console of the first run of a guest that started again, in its folder.
const STALE_CONSOLE: &str = "console.first";
/// The fault catalogue.
const FAULTS: &str = "t3-faults --tier vm --kernel kprobe --json /out/results.json";
/// The first faults again, with each kind of function hook that fentry hides: all guests have
/// fentry.
const OTHER_HOOKS: [&str; 2] = [
    "t3-faults --tier vm --first --hooks kprobe --kernel kprobe",
    "t3-faults --tier vm --first --hooks tracepoint --kernel tracepoint",
];
/// Close frames of WebSockets, read by hooks that the host of the other tests may not have.
const WEBSOCKETS: &str = "websocket_host --test-threads=1";
/// The same by kprobes, cut at every place, and what cannot be followed; in one guest, the one with
/// the oldest verifier: loading the programs takes long in emulation.
const FRAMES: &str = "guest_websockets --ignored --test-threads=1 kprobes_read_the_same \
                      frames_are_found_however_they_are_cut what_cannot_be_followed";
/// Runs the complete catalogue. The other releases leave out the faults that dispatch decides
/// without kernel events, and compressed sessions, which saves a quarter of an hour.
const FULL: Suite = Suite::Bookworm;
/// The Debian packages from install to purge, with sessions over restarts: completely and with a
/// reboot in a separate guest of [`FULL`], briefly in the others.
const PACKAGES: &str = "t3-package-test --packages /opt/t3/packages";
/// With the commands of docs/INSTALL.md.
const PAGE: &str = "--commands page";
/// With those of its migration, in the slowest guest; its systemd (247) is the oldest that works.
const MIGRATION: &str = "--commands migration --sessions 40 --restarts 2";
/// Records across a full disk, a vacuum of the journal, steps of the clock and hard resets, in a
/// separate guest of [`FULL`].
const EXACTLY_ONCE: &str = "t3-package-test --packages /opt/t3/packages --exactly-once";
/// Runs on the host: the browser outside a guest.
const OUTSIDE: &str = "t3-outside";
/// Emulation is about ten times slower than the host; timeouts of the tests are longer.
const TIMEOUT_FACTOR: &str = "4";

/// Which guests boot, and what they run.
#[derive(Clone, Debug)]
pub struct GuestPlan {
    /// Releases to boot.
    pub suites: Vec<Suite>,
    pub workload: Workload,
    /// Static programs of the project: (name, file).
    pub programs: Vec<(String, PathBuf)>,
    /// Folders with the Debian packages in a first and a later revision.
    pub packages: Option<[PathBuf; 2]>,
    /// Timeout for one guest, from power-on to power-off.
    pub limit: Duration,
    /// Prints the consoles of the guests.
    pub show_console: bool,
}

/// What runs in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Only the check of the guest, which precedes every other workload too.
    CheckGuest,
    /// One program instead of the project's tests.
    Program(PathBuf),
    /// Selected faults.
    Faults { only: Vec<String>, times: u8 },
    /// The tests of the Debian packages.
    Packages,
    /// One record per session, with hard resets.
    ExactlyOnce,
    /// All faults, the packages and [`Workload::ExactlyOnce`].
    All { times: u8 },
}

impl Default for GuestPlan {
    fn default() -> Self {
        Self {
            suites: Suite::ALL.to_vec(),
            workload: Workload::All { times: 1 },
            programs: Vec::new(),
            packages: None,
            limit: Duration::from_secs(2_100),
            show_console: false,
        }
    }
}

/// One guest to boot.
#[derive(Debug)]
struct Guest {
    /// Its name in the report, and of its folder.
    name: &'static str,
    suite: Suite,
    payload: Payload,
    /// It reboots in the middle.
    reboots: bool,
}

/// Boots every guest of the plan; a failed one does not stop the others.
pub fn steps(plan: &GuestPlan) -> Result<Vec<Step>> {
    let guests = guests(plan)?;
    progress::step("making the file systems of the guests");
    let is_used = |suite: &Suite| guests.iter().any(|guest| guest.suite == *suite);
    let suites: Vec<Suite> = plan.suites.iter().copied().filter(is_used).collect();
    let images: Vec<(Suite, Result<Image, String>)> = suites
        .iter()
        .copied()
        .zip(images(&suites)?.into_iter().map(|image| image.map_err(|e| format!("{e:#}"))))
        .collect();
    let (queue, done) = (Mutex::new(guests.into_iter()), Mutex::new(Vec::new()));
    // A guest waits for timers most of its time: two share a host of two CPUs well, three do not.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(guest) = next else { return };
                    let step = one(&guest, &images, plan);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(step);
                }
            });
        }
    });
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn one(guest: &Guest, images: &[(Suite, Result<Image, String>)], plan: &GuestPlan) -> Step {
    progress::step(&format!("booting {} (Linux {}x, emulated)", guest.name, guest.suite.kernel()));
    let begin = Instant::now();
    let image = images.iter().find(|(suite, _)| *suite == guest.suite);
    let image = match image {
        Some((_, Ok(image))) => Ok(image),
        Some((_, Err(why))) => Err(anyhow!("{why}")),
        None => Err(anyhow!("no file system was made")),
    };
    let step = image.and_then(|image| boot(guest, image, plan)).unwrap_or_else(|error| {
        Step::new(guest.name, false, Counts::default(), begin.elapsed()).because(format!("{error:#}"))
    });
    step.say();
    step
}

/// All images at the same time: mmdebstrap waits for the network most of its time.
pub fn images(suites: &[Suite]) -> Result<Vec<Result<Image>>> {
    let host = apt::host()?;
    let ensure = |suite: Suite| {
        let recipe = Recipe { suite, mirror: host.mirror.clone(), apt_options: host.options.clone() };
        rootfs::ensure(&recipe)
    };
    Ok(std::thread::scope(|scope| {
        let threads: Vec<_> = suites.iter().map(|&suite| scope.spawn(move || ensure(suite))).collect();
        let panicked = || Err(anyhow!("the thread that made this image panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    }))
}

fn boot(guest: &Guest, image: &Image, plan: &GuestPlan) -> Result<Step> {
    let Guest { name, suite, payload, reboots } = guest;
    let dir = paths::vm().join(name).join("run");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let disk = payload.write(*suite, &dir)?;
    let (reboots, show_console, limit) = (*reboots, plan.show_console, plan.limit);
    let outside = payload.programs.iter().find(|(name, _)| name == OUTSIDE).map(|(_, file)| file.as_path());
    let boot = Boot { name, image, disk: &disk, dir: &dir, limit, show_console, outside, reboots };
    let mut result = boot.run()?;
    if result.exit.as_ref().is_err_and(|trouble| trouble == STALE_BREAKPOINT) {
        let kept = dir.join(STALE_CONSOLE);
        progress::note(&format!(
            "{name}: {STALE_BREAKPOINT}; its console is in {}; its tests start again, once",
            kept.display()
        ));
        fs::rename(dir.join("console"), kept)?;
        result = boot.run()?;
    }
    let step = Step::new(*name, result.exit == Ok(0), result.counts, result.time);
    let step = if result.exit == Ok(0) { step } else { step.with_reasons_of(&result.output) };
    // The check of the guest counts, and so must the project's tests; any other program need not.
    let counting_programs = match plan.workload {
        Workload::Program(_) => 1,
        _ => u32::try_from(1 + payload.commands.len())?,
    };
    Ok(match result.exit {
        Ok(0) if result.counts.lines < counting_programs => {
            let step = Step::new(*name, false, result.counts, result.time);
            step.because("a program in the guest exited with 0 without a line that counts its tests")
        }
        Ok(0) => step,
        Ok(code) => step.because(format!("exit code {code}; files in {}", paths::short(&dir))),
        Err(trouble) => step.because(format!("{trouble}; files in {}", paths::short(&dir))),
    })
}

/// The guests of a plan, the slowest first.
fn guests(plan: &GuestPlan) -> Result<Vec<Guest>> {
    let mut bare = Payload { programs: plan.programs.clone(), env: environment(), ..Payload::default() };
    let all_alike = |payload: Payload| {
        let guest =
            |&suite: &Suite| Guest { name: suite.name(), suite, payload: payload.clone(), reboots: false };
        Ok(plan.suites.iter().map(guest).collect())
    };
    let (faults, packages) = match &plan.workload {
        Workload::CheckGuest => return all_alike(bare),
        Workload::Program(path) => {
            bare.programs = vec![("vm-tests".to_owned(), path.clone())];
            bare.commands = vec!["vm-tests".to_owned()];
            return all_alike(bare);
        }
        Workload::Faults { only, times } => {
            let only: String = only.iter().map(|name| format!(" --only {name}")).collect();
            (vec![FAULTS.to_owned() + &only; usize::from(*times)], false)
        }
        Workload::Packages => (Vec::new(), true),
        Workload::ExactlyOnce => (Vec::new(), false),
        Workload::All { times } => (vec![FAULTS.to_owned(); usize::from(*times)], true),
    };
    let exactly_once = matches!(plan.workload, Workload::ExactlyOnce | Workload::All { .. });
    let mut with_packages = bare.clone();
    if let Some([first, later]) = &plan.packages {
        for (place, dir) in [("packages/first", first), ("packages/later", later)] {
            with_packages.files.extend(files_in(dir, place)?);
        }
    }
    let mut guests = Vec::new();
    for &suite in &plan.suites {
        let mut payload = if packages && suite != FULL { with_packages.clone() } else { bare.clone() };
        if suite != FULL {
            payload.env.push(("T3_ONLY_KERNEL".to_owned(), "true".to_owned()));
        }
        payload.commands.extend(faults.iter().cloned());
        if matches!(plan.workload, Workload::All { .. }) {
            payload.commands.push(WEBSOCKETS.to_owned());
            if suite == Suite::Bullseye {
                payload.commands.push(FRAMES.to_owned());
            }
        }
        if matches!(plan.workload, Workload::All { .. }) && suite != FULL {
            payload.commands.extend(OTHER_HOOKS.map(str::to_owned));
        }
        if packages && suite != FULL {
            // Last: the units of the packages would observe the faults as well.
            let variant = if suite == Suite::Bullseye { MIGRATION } else { PAGE };
            payload.commands.push(format!("{PACKAGES} --brief {variant}"));
        }
        if !payload.commands.is_empty() {
            guests.push(Guest { name: suite.name(), suite, payload, reboots: false });
        }
        if packages && suite == FULL {
            let mut payload = with_packages.clone();
            payload.commands.push(PACKAGES.to_owned());
            guests.push(Guest { name: "bookworm-packages", suite, payload, reboots: true });
        }
        if exactly_once && suite == FULL {
            let mut payload = with_packages.clone();
            payload.commands.push(EXACTLY_ONCE.to_owned());
            guests.push(Guest { name: "bookworm-resets", suite, payload, reboots: true });
        }
    }
    // The longest first, so that none runs alone at the end.
    guests.sort_by_key(|guest| (guest.reboots, guest.suite == Suite::Bullseye));
    Ok(guests)
}

/// Environment of all commands in a guest.
fn environment() -> Vec<(String, String)> {
    let fixed = [
        ("CI", "true"),
        ("T3_BIN_DIR", "/opt/t3/bin"),
        ("T3_TIMEOUT_FACTOR", TIMEOUT_FACTOR),
        // Tests that do less on a kernel without fentry and kprobes fail instead.
        ("T3_FUNCTION_HOOKS", "true"),
    ];
    let mut env: Vec<_> = fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for name in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Ok(value) = std::env::var(name) {
            env.push((name.to_owned(), value));
        }
    }
    env
}

/// Every file of a folder, with its place in the payload.
fn files_in(dir: &Path, place: &str) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries
        .flatten()
        .map(|entry| (format!("{place}/{}", entry.file_name().to_string_lossy()), entry.path()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::{
        EXACTLY_ONCE, FAULTS, FRAMES, GuestPlan, MIGRATION, OTHER_HOOKS, PACKAGES, PAGE, WEBSOCKETS,
        Workload, guests,
    };
    use crate::vm::suite::Suite;

    /// (name, commands, files, reboots) of each guest.
    fn planned(workload: Workload, suites: &[Suite]) -> Vec<(&'static str, Vec<String>, usize, bool)> {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in &dirs {
            std::fs::write(dir.path().join("a.deb"), "").unwrap();
        }
        let packages = Some(dirs.each_ref().map(|dir| dir.path().to_owned()));
        let plan = GuestPlan { workload, suites: suites.to_vec(), packages, ..GuestPlan::default() };
        let guests = guests(&plan).unwrap();
        guests.into_iter().map(|g| (g.name, g.payload.commands, g.payload.files.len(), g.reboots)).collect()
    }

    #[test]
    fn the_default_plan_runs_faults_and_packages_on_all_releases() {
        let found = planned(Workload::All { times: 1 }, &Suite::ALL);
        let [kprobe, tracepoint] = OTHER_HOOKS;
        let line = |commands: &[&str]| commands.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                ("bookworm", line(&[FAULTS, WEBSOCKETS]), 0, false),
                (
                    "trixie",
                    line(&[FAULTS, WEBSOCKETS, kprobe, tracepoint, &format!("{PACKAGES} --brief {PAGE}")]),
                    2,
                    false
                ),
                (
                    "bullseye",
                    line(&[
                        FAULTS,
                        WEBSOCKETS,
                        FRAMES,
                        kprobe,
                        tracepoint,
                        &format!("{PACKAGES} --brief {MIGRATION}")
                    ]),
                    2,
                    false
                ),
                ("bookworm-packages", line(&[PACKAGES]), 2, true),
                ("bookworm-resets", line(&[EXACTLY_ONCE]), 2, true),
            ]
        );
    }

    #[test]
    fn selected_faults_run_without_packages_and_other_hooks() {
        let only = vec!["a".to_owned(), "b".to_owned()];
        let found = planned(Workload::Faults { only, times: 2 }, &[Suite::Trixie]);
        let line = format!("{FAULTS} --only a --only b");
        assert_eq!(found[0].1, [line.clone(), line]);
        assert_eq!((found.len(), found[0].2), (1, 0));
    }

    #[test]
    fn packages_alone_are_one_command_per_release() {
        let found = planned(Workload::Packages, &Suite::ALL);
        let names: Vec<_> = found.iter().map(|(name, commands, ..)| (*name, commands.len())).collect();
        assert_eq!(names, [("trixie", 1), ("bullseye", 1), ("bookworm-packages", 1)]);
    }

    #[test]
    fn hard_resets_happen_in_one_guest_alone() {
        let found = planned(Workload::ExactlyOnce, &Suite::ALL);
        assert_eq!(found, [("bookworm-resets", vec![EXACTLY_ONCE.to_owned()], 2, true)]);
    }

    #[test]
    fn a_guest_check_runs_nothing_else() {
        let found = planned(Workload::CheckGuest, &Suite::ALL);
        assert!(found.len() == 3 && found.iter().all(|(_, commands, ..)| commands.is_empty()), "{found:?}");
    }
}
