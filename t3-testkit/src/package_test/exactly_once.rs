//! One record per session on an installed host: a full disk, rotation and vacuum of the journal,
//! steps of the clock, and hard resets by the hypervisor.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::Path,
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde::{Deserialize, Serialize};
use t3_record::wire::{JournalState, SOCKET_PATH};
use tokio::runtime::Runtime;

use super::{
    Options,
    fixture::{DISPATCH, USERS},
    install,
    shell::{active, shell},
    steps::{KEPT, Steps, after_reboot, must},
};
use crate::{
    error::{Attempt, Result, TestError},
    harness::{forget_template, trace_reconcile, trace_status},
    journald::{Journal, Stored, StoredRecord},
    kill_matrix::sessions::{self, Session},
    outside, wait,
};

/// Sessions that a hard reset ends: half of them of each user, whose limit is 256.
const RESET: usize = 300;
/// Sessions of the other steps, per user.
const FEW: usize = 4;
/// Duration above which a record has used a stepped clock, in milliseconds.
const STEPPED: u64 = 1_800_000;
/// A pass of t3-trace each minute, on an emulated host.
const TIMEOUT: Duration = Duration::from_secs(100);
/// Before a reset that must find the sessions in the spool, which t3-trace syncs each second.
/// Scaled: the guest is emulated.
const SPOOLED: Duration = Duration::from_secs(5);
/// Only what a program syncs is written to the disk (proc_sys_vm(5)).
const NO_WRITEBACK: &str = "echo 0 >/proc/sys/vm/dirty_writeback_centisecs";
const DISPATCH_UNIT: &str = "t3-dispatch.service";
const TRACE_UNIT: &str = "t3-trace.service";

/// What the next boot has to find.
#[derive(Debug, Serialize, Deserialize)]
struct Reset {
    /// The journal was on the disk before the reset.
    synced: bool,
    /// `Cf-Ray` and session id.
    sessions: Vec<(String, String)>,
}

/// Runs up to the next reset; true if all steps so far have passed.
pub(super) fn run(options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let test = Test { runtime: runtime.attempt(|| "start a runtime".to_owned())? };
    let Some(mut steps) = after_reboot()? else {
        forget_template()?;
        let mut steps = Steps::default();
        install::run(&mut steps, options);
        shell("systemctl enable t3-serve@alice t3-serve@bob 2>&1")?;
        without_store()?;
        test.full_disk(&mut steps);
        test.vacuum(&mut steps);
        test.clock(&mut steps, "forward", "1 hour", "1 hour ago");
        test.clock(&mut steps, "back", "1 hour ago", "1 hour");
        return test.reset(steps, true);
    };
    let reset = Reset::read()?;
    test.after_reset(&mut steps, &reset);
    if reset.synced { test.reset(steps, false) } else { Ok(steps.close()) }
}

struct Test {
    runtime: Runtime,
}

impl Test {
    /// Opens sessions of each user; the rays begin with `kind`.
    fn open(&self, kind: &str, per_user: usize) -> Result<Vec<Session>> {
        let mut all = Vec::new();
        for (user, _) in USERS {
            let rays: Vec<_> = (0..per_user).map(|n| format!("{kind}-{user}-{n}")).collect();
            all.extend(sessions::open(self.runtime.handle(), DISPATCH, user, &rays)?);
        }
        Ok(all)
    }

    fn close(&self, sessions: &mut [Session]) -> Result<()> {
        sessions.iter_mut().for_each(Session::close);
        sessions.iter_mut().try_for_each(|session| session.wait_end(self.runtime.handle()).map(drop))
    }

    fn full_disk(&self, steps: &mut Steps) {
        steps.step("full disk: no record is lost, and none is written twice", || {
            serves()?;
            let mut closing = self.open("full-close", FEW)?;
            identities("full-close", closing.len())?;
            let _keeps_old_files = KeepsOldFiles::configure()?;
            let mut filler = Filler::new("/var/log/journal/t3-filler")?;
            // Some versions continue in /run; that is right as well, if each record is there once.
            let drops = Journal::system()?.use_up(|| filler.fill())?;
            self.close(&mut closing)?;
            let mut opened = self.open("full-open", FEW)?;
            if drops {
                let missing = u64::try_from(closing.len()).unwrap_or(u64::MAX);
                let state = until_state("closes that the journal lacks", |state| state.missing >= missing)?;
                must(count("full-close")? == 0, "no close on the full disk", format!("{state:?}"))?;
            }
            drop(filler);
            self.close(&mut opened)?;
            let closed = exactly_once("full-close", closing.len(), None)?;
            let opened = exactly_once("full-open", opened.len(), None)?;
            let verdicts = closed.iter().chain(&opened).all(|close| close.key("verdict") == "client_closed");
            must(verdicts, "client_closed in each", format!("{closed:?} {opened:?}"))?;
            let state = until_state("nothing more to verify", |state| state.waiting == 0)?;
            let found = format!("journald dropped entries: {drops}, {state:?}");
            must(state.lost == 0, "nothing lost", found.clone()).map(|()| found)
        });
    }

    fn vacuum(&self, steps: &mut Steps) {
        steps.step("ws open removed by rotation and vacuum, then both programs killed", || {
            let mut sessions = self.open("vacuum", FEW)?;
            identities("vacuum", sessions.len())?;
            shell("journalctl --sync && journalctl --rotate && sleep 2 && journalctl --vacuum-time=1s 2>&1")?;
            let left = stored()?.opens.iter().filter(|open| open.ray.starts_with("vacuum-")).count();
            must(left == 0, "no ws open left", left.to_string())?;
            kill_both()?;
            let closes = exactly_once("vacuum", sessions.len(), None)?;
            self.close(&mut sessions)?;
            died(&closes)
        });
    }

    /// The clock is stepped between opening, closing and the death of dispatch.
    fn clock(&self, steps: &mut Steps, name: &str, step: &str, back: &str) {
        steps.step(&format!("clock stepped {name}, then both programs killed"), || {
            let (closing, dying) = (format!("clock-{name}-close"), format!("clock-{name}-die"));
            let (mut sessions, mut others) = (self.open(&closing, FEW)?, self.open(&dying, FEW)?);
            identities(&dying, others.len())?;
            shell(&format!("date -s '{step}'"))?;
            let outcome = self.close(&mut sessions).and_then(|()| {
                kill_both()?;
                let closed = exactly_once(&closing, sessions.len(), None)?;
                let dead = exactly_once(&dying, others.len(), None)?;
                let long = |close: &&StoredRecord| {
                    close.key("dur_ms").parse::<u64>().map_or(true, |time| time > STEPPED)
                };
                let long: Vec<_> = closed.iter().chain(&dead).filter(long).collect();
                must(long.is_empty(), "durations without the step of the clock", format!("{long:?}"))?;
                died(&dead)
            });
            shell(&format!("date -s '{back}'"))?;
            self.close(&mut others)?;
            // Records that come late, in the journal with both times.
            until_state("nothing more to verify", |state| state.waiting == 0)?;
            exactly_once(&closing, sessions.len(), None)?;
            exactly_once(&dying, others.len(), None)?;
            outcome
        });
    }

    /// Opens sessions and asks the hypervisor for a reset. Returns only on an error.
    fn reset(&self, mut steps: Steps, synced: bool) -> Result<bool> {
        let kind = kind(synced);
        steps.step(&format!("{RESET} sessions opened before the reset"), || {
            serves()?;
            // Only what follows is not on the disk.
            fs::create_dir_all("/var/lib")
                .and_then(|()| fs::write("/var/lib/t3-vm.rebooted", ""))
                .attempt(|| "keep that the guest has been checked".to_owned())?;
            shell("journalctl --sync && sync")?;
            if !synced {
                shell(NO_WRITEBACK)?;
            }
            // They end with the guest.
            std::mem::forget(self.open(kind, RESET / USERS.len())?);
            let sessions = identities(kind, RESET)?;
            if synced {
                shell("journalctl --sync && sync")?;
            } else {
                registered(RESET)?;
                std::thread::sleep(wait::scaled(SPOOLED));
            }
            Reset { synced, sessions }.keep().map(|()| "")
        });
        steps.keep()?;
        if !steps.close() {
            return Ok(false);
        }
        outside::reset()
    }

    fn after_reset(&self, steps: &mut Steps, reset: &Reset) {
        let kind = kind(reset.synced);
        steps.step(&format!("each of the {RESET} sessions has one record ({kind})"), || {
            active(TRACE_UNIT)?;
            let opens = stored()?.opens.iter().filter(|open| open.ray.starts_with(kind)).count();
            let sessions: BTreeMap<_, _> = reset.sessions.iter().cloned().collect();
            let closes = exactly_once(kind, sessions.len(), Some(&sessions))?;
            let right = |close: &&StoredRecord| {
                let origins: &[&str] = if reset.synced { &["journal"] } else { &["journal", "spool"] };
                close.key("verdict") == "unknown"
                    && close.key("how") == "power_loss"
                    && origins.contains(&close.key("reconciled"))
            };
            let wrong: Vec<_> = closes.iter().filter(|close| !right(close)).take(3).collect();
            must(wrong.is_empty(), "unknown, power_loss, reconciled", format!("{wrong:?}"))?;
            let spool = closes.iter().filter(|close| close.key("reconciled") == "spool").count();
            Ok(format!("{opens} ws open survived, {spool} records from the spool"))
        });
        steps.step("a session after the reset has one record", || {
            serves()?;
            let kind = format!("after-{kind}");
            let mut sessions = self.open(&kind, 1)?;
            self.close(&mut sessions)?;
            exactly_once(&kind, sessions.len(), None).map(|_| "")
        });
    }
}

fn kind(synced: bool) -> &'static str {
    if synced { "reset-synced" } else { "reset-unsynced" }
}

impl Reset {
    fn keep(&self) -> Result<()> {
        let what = || "keep the sessions for the next boot".to_owned();
        let text = serde_json::to_vec(self).map_err(std::io::Error::other).attempt(what)?;
        let mut file = File::create(Path::new(KEPT).join("reset.json")).attempt(what)?;
        file.write_all(&text).and_then(|()| file.sync_all()).attempt(what)?;
        File::open(KEPT).and_then(|folder| folder.sync_all()).attempt(what)
    }

    fn read() -> Result<Self> {
        let what = || "read the sessions of the last boot".to_owned();
        let text = fs::read(Path::new(KEPT).join("reset.json")).attempt(what)?;
        serde_json::from_slice(&text).map_err(std::io::Error::other).attempt(what)
    }
}

/// A journald that deletes no old file to make room, and so drops entries on a full disk; until it
/// is dropped.
struct KeepsOldFiles;

impl KeepsOldFiles {
    const PATH: &str = "/etc/systemd/journald.conf.d/t3-keeps-old-files.conf";

    fn configure() -> Result<Self> {
        let config = "[Journal]\nSystemKeepFree=0\nSystemMaxUse=100G\nSystemMaxFiles=10000\n";
        fs::create_dir_all("/etc/systemd/journald.conf.d")
            .and_then(|()| fs::write(Self::PATH, config))
            .attempt(|| format!("write {}", Self::PATH))?;
        let configured = Self;
        shell("systemctl restart systemd-journald").map(|_| configured)
    }
}

impl Drop for KeepsOldFiles {
    fn drop(&mut self) {
        let _ = fs::remove_file(Self::PATH);
        let _ = shell("systemctl restart systemd-journald");
    }
}

/// Occupies all free space of a file system; removed on drop.
struct Filler {
    path: &'static str,
    file: File,
    length: u64,
}

impl Filler {
    fn new(path: &'static str) -> Result<Self> {
        let file = File::create(path).attempt(|| format!("create {path}"))?;
        Ok(Self { path, file, length: 0 })
    }

    /// Occupies the blocks that are free now, also those that are reserved for root.
    fn fill(&mut self) -> Result<()> {
        let mut piece = u64::MAX;
        while piece > 0 {
            let space = statvfs(self.path).attempt(|| format!("measure {}", self.path))?;
            // Some of the free blocks are needed for the file's own metadata.
            piece = piece.min(space.f_bfree * space.f_frsize);
            match fallocate(&self.file, FallocateFlags::empty(), self.length, piece) {
                _ if piece == 0 => {}
                Ok(()) => self.length += piece,
                Err(_) => piece /= 2,
            }
        }
        Ok(())
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path);
    }
}

/// No descriptor store, so that sessions end with dispatch.
fn without_store() -> Result<()> {
    let folder = "/etc/systemd/system/t3-dispatch.service.d";
    let config = "[Service]\nFileDescriptorStoreMax=0\nEnvironment=FDSTORE_MAX=0\n";
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(format!("{folder}/t3-no-store.conf"), config))
        .attempt(|| format!("write a drop-in into {folder}"))?;
    shell(&format!("systemctl daemon-reload && systemctl restart {DISPATCH_UNIT}")).map(drop)
}

/// Both serves and dispatch run.
fn serves() -> Result<()> {
    [DISPATCH_UNIT, TRACE_UNIT, "t3-serve@alice", "t3-serve@bob"].into_iter().try_for_each(active)?;
    wait::until("serve to listen", TIMEOUT, || {
        let listens = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        USERS.iter().all(|(_, port)| listens(*port)).then_some(())
    })
}

fn kill_both() -> Result<()> {
    shell(&format!("systemctl kill --signal=KILL {DISPATCH_UNIT} {TRACE_UNIT}"))?;
    // systemd notices the end a moment later.
    std::thread::sleep(wait::scaled(Duration::from_secs(1)));
    [DISPATCH_UNIT, TRACE_UNIT].into_iter().try_for_each(active)
}

fn died(closes: &[StoredRecord]) -> Result<String> {
    let wrong: Vec<_> = closes.iter().filter(|close| close.key("verdict") != "dispatch_died").collect();
    must(wrong.is_empty(), "dispatch_died in each", format!("{wrong:?}"))?;
    Ok(format!(
        "{} records, reconciled={}",
        closes.len(),
        closes.first().map_or("", |close| close.key("reconciled"))
    ))
}

fn stored() -> Result<Stored> {
    let mut stored = Stored::of_host();
    stored.read()?;
    Ok(stored)
}

/// Number of closes of sessions of this kind.
fn count(kind: &str) -> Result<usize> {
    Ok(stored()?.closes.iter().filter(|close| is_of(close, kind)).count())
}

fn is_of(record: &StoredRecord, kind: &str) -> bool {
    record.ray.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-'))
}

/// Waits until t3-trace has registered so many sessions. dispatch writes `ws open` without it.
fn registered(sessions: usize) -> Result<()> {
    let wanted = u64::try_from(sessions).unwrap_or(u64::MAX);
    let mut last = None;
    let found = wait::until(&format!("{sessions} sessions registered by t3-trace"), TIMEOUT, || {
        last = trace_status(Path::new(SOCKET_PATH)).ok().map(|status| status.sessions);
        last.filter(|&count| count >= wanted).map(drop)
    });
    found.map_err(|error| TestError::Unexpected { what: error.to_string(), got: format!("{last:?}") })
}

/// Waits until the journal has the `ws open` of so many sessions; their rays and ids.
fn identities(kind: &str, sessions: usize) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    wait::until(&format!("{sessions} ws open of {kind}"), TIMEOUT, || {
        let stored = stored().ok()?;
        let its = stored.opens.into_iter().filter(|open| is_of(open, kind));
        found = its.map(|open| (open.ray, open.conn)).collect();
        (found.len() >= sessions).then_some(())
    })?;
    Ok(found)
}

/// Waits until each session has a close, then checks for one each, with the id of its session.
fn exactly_once(
    kind: &str,
    sessions: usize,
    ids: Option<&BTreeMap<String, String>>,
) -> Result<Vec<StoredRecord>> {
    let mut closes: Vec<StoredRecord> = Vec::new();
    let rays = |closes: &[StoredRecord]| {
        let mut rays: Vec<_> = closes.iter().map(|close| close.ray.clone()).collect();
        rays.sort_unstable();
        rays.dedup();
        rays.len()
    };
    let waited = wait::until(&format!("{sessions} ws close of {kind}"), TIMEOUT, || {
        let _ = trace_reconcile(Path::new(SOCKET_PATH));
        closes = stored().ok()?.closes.into_iter().filter(|close| is_of(close, kind)).collect();
        if rays(&closes) >= sessions {
            Some(())
        } else {
            std::thread::sleep(Duration::from_secs(1));
            None
        }
    });
    let got = format!("{} closes of {} sessions", closes.len(), rays(&closes));
    waited.map_err(|error| TestError::Unexpected { what: error.to_string(), got: got.clone() })?;
    must(closes.len() == sessions, &format!("{sessions} ws close of {kind}"), got)?;
    if let Some(ids) = ids {
        let strange: Vec<_> =
            closes.iter().filter(|close| ids.get(&close.ray) != Some(&close.conn)).collect();
        must(strange.is_empty(), "the ids of the sessions", format!("{strange:?}"))?;
    }
    Ok(closes)
}

/// Waits for a state of the comparison with the journal.
fn until_state(what: &str, holds: impl Fn(&JournalState) -> bool) -> Result<JournalState> {
    let socket = Path::new(SOCKET_PATH);
    let mut last = None;
    let found = wait::until(what, TIMEOUT, || {
        let _ = trace_reconcile(socket);
        std::thread::sleep(Duration::from_secs(1));
        last = trace_status(socket).ok().and_then(|status| status.journal);
        last.filter(|state| holds(state))
    });
    found.map_err(|error| TestError::Unexpected { what: error.to_string(), got: format!("{last:?}") })
}
