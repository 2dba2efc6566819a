//! Sessions over restarts, an upgrade, crashes and a stop of the installed t3-dispatch. Both ends
//! of each session are in this process and check every byte.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use t3_record::{CloseRecord, Verdict};

use super::{
    Commands, Options,
    fixture::{self, DISPATCH},
    install::apt,
    shell::{active, pid, property, shell},
    steps::{Steps, must},
    walk,
};
use crate::{
    error::{Attempt, Result, TestError},
    journald::Journal,
    restart::{Kind, Pace, SessionReport, StreamEnd, Traffic, findings},
    wait,
};

const UNIT: &str = "t3-dispatch.service";
const SOCKET: &str = "t3-dispatch.socket";
/// User of these sessions, and the port of the serve, which is this process.
const USER: &str = "carol";
const PORT: u16 = 3775;
/// Options for that many sessions of one user, for a client that does not read for minutes, and for
/// half-closed sessions whose messages are far apart.
const SETTINGS: &str =
    "max-sessions-per-user = 1000\nupgrade-rate = 0\nuser-timeout = \"0s\"\nclose-timeout = \"601s\"\n";
/// An emulated guest relays little, and its programs check what they relay.
const PACE: Pace = Pace { messages: 200, heartbeats: 10 };
/// Fixed: the guest is reproducible.
const SEED: u64 = 15;
/// SIGKILLs of t3-dispatch.
const KILLS: usize = 5;
/// A small store: two descriptors of each of so many sessions, and one for their state.
const FITS: usize = 10;
const DROP_IN: &str = "/etc/systemd/system/t3-dispatch.service.d/t3-small-store.conf";
const TIMEOUT: Duration = Duration::from_secs(30);

/// All steps. Leaves the later packages installed, with changed options.
pub(super) fn run(steps: &mut Steps, options: &Options) {
    let (sessions, restarts) = (usize::from(options.sessions), usize::from(options.restarts));
    let mut opened = None;
    steps.step(&format!("{sessions} sessions with traffic are in the descriptor store"), || {
        configure()?;
        opened = Some(Sessions::open(&Kind::mixed(sessions))?);
        Ok("")
    });
    let Some(mut sessions) = opened else { return };
    steps.step(&format!("{restarts} times systemctl restart: all sessions continue"), || {
        let log = Log::from_now()?;
        for _ in 0..restarts {
            shell(&format!("systemctl restart {UNIT}"))?;
            sessions.are_open("after a restart")?;
        }
        log.restarts(restarts, sessions.count, &mut sessions)
    });
    steps.step("upgrade to a rebuilt package: all sessions continue, the socket is not restarted", || {
        let log = Log::from_now()?;
        let (dispatch, trace) = (pid(UNIT)?, pid("t3-trace.service")?);
        let socket = property(SOCKET, "ActiveEnterTimestampMonotonic")?;
        let later = options.packages.join("later");
        let output = match options.commands {
            Commands::Page => walk::section(walk::UPGRADE, &later)?,
            Commands::Apt | Commands::Migration => shell(&apt(&later))?,
        };
        active(UNIT)?;
        active("t3-trace.service")?;
        must(pid(UNIT)? != dispatch, "a new dispatch process", output.as_str())?;
        must(pid("t3-trace.service")? != trace, "a new t3-trace process", output.as_str())?;
        must(!output.contains("systemctl restart t3-dispatch"), "nothing left to do", output.as_str())?;
        let same = property(SOCKET, "ActiveEnterTimestampMonotonic")? == socket;
        must(same, "the same socket", output.as_str())?;
        sessions.are_open("after the upgrade")?;
        log.restarts(1, sessions.count, &mut sessions)
    });
    steps.step("every byte of these sessions is right, and each has one record", || {
        sessions.finish(restarts + 1)
    });
    steps.step(&format!("{KILLS} times SIGKILL and a restart of the socket: all sessions continue"), || {
        let mut sessions = Sessions::open(&Kind::mixed(usize::from(options.sessions).min(100)))?;
        let log = Log::from_now()?;
        for _ in 0..KILLS {
            kill()?;
            sessions.are_open("after a SIGKILL")?;
        }
        shell(&format!("systemctl restart {SOCKET}"))?;
        active(UNIT)?;
        sessions.are_open("after a restart of the socket")?;
        let gaps = log.restarts(KILLS + 1, sessions.count, &mut sessions)?;
        sessions.finish(KILLS + 1).map(|records| format!("{gaps}; {records}"))
    });
    steps.step("systemctl stop: both peers of each session get Close 1001", stop);
    steps.step("a store that is too small: a warning, and the sessions above are ended", small_store);
}

/// Adds the user, and the options for their sessions.
fn configure() -> Result<()> {
    let file = "/etc/t3-dispatch.toml";
    let old = fs::read_to_string(file).attempt(|| format!("read {file}"))?;
    fs::write(file, old + SETTINGS).attempt(|| format!("write {file}"))?;
    // The serve is this process, of root.
    let entry = format!(r#""{USER}": {{"os_user": "{USER}", "port": {PORT}, "uid": 0}}"#);
    fixture::configure_with(&[entry])?;
    shell(&format!("systemctl restart {UNIT}"))?;
    active(UNIT)
}

/// Open sessions, and the journal since their opening.
struct Sessions {
    traffic: Option<Traffic>,
    journal: Journal,
    count: usize,
}

impl Sessions {
    /// Opens sessions and waits until systemd has their descriptors.
    fn open(kinds: &[Kind]) -> Result<Self> {
        let sessions = Self::open_any(kinds)?;
        until_stored(kinds.len())?;
        Ok(sessions)
    }

    fn open_any(kinds: &[Kind]) -> Result<Self> {
        let journal = Journal::system()?;
        let mut traffic = Traffic::listen(&[PORT], SEED)?;
        traffic.pace = PACE;
        traffic.open(DISPATCH, &[USER], kinds)?;
        Ok(Self { traffic: Some(traffic), journal, count: kinds.len() })
    }

    fn number_open(&self) -> usize {
        self.traffic.as_ref().map_or(0, Traffic::open_sessions)
    }

    fn are_open(&self, when: &str) -> Result<()> {
        let open = self.number_open();
        must(open == self.count, &format!("{} open sessions {when}", self.count), open.to_string())
    }

    /// Ends all sessions; checks both streams of each, and the records.
    fn finish(&mut self, resumed: usize) -> Result<String> {
        let reports = self.traffic.take().map(Traffic::finish).unwrap_or_default();
        let found = findings(&reports);
        must(reports.len() == self.count && found.is_empty(), "streams as sent", found.join("\n"))?;
        let resumed = u32::try_from(resumed).unwrap_or(u32::MAX);
        for record in self.records()?.values() {
            let of_a_peer = !matches!(record.verdict, Verdict::DispatchDied | Verdict::DispatchShutdown);
            let is_right = of_a_peer && record.resumed == Some(resumed);
            must(is_right, &format!("an end by a peer, and resumed={resumed}"), record.to_line())?;
        }
        let ends = || reports.iter().flat_map(|report| [&report.client, &report.serve]).flatten();
        let frames: u64 = ends().map(|end| end.sent.frames).sum();
        let bytes: u64 = ends().map(|end| end.sent.bytes).sum();
        Ok(format!("{frames} frames, {} MiB, resumed={resumed}", bytes >> 20))
    }

    /// The record of each session, of which there is exactly one.
    fn records(&self) -> Result<BTreeMap<String, CloseRecord>> {
        let is_ours = |record: &CloseRecord| ray(record).is_some();
        let found = self.journal.wait_closes(self.count, Duration::from_secs(60), is_ours)?;
        let count = found.len();
        let by_ray: BTreeMap<_, _> =
            found.into_iter().filter_map(|(record, _)| Some((ray(&record)?, record))).collect();
        let got = format!("{count} records of {} sessions", by_ray.len());
        must(by_ray.len() == self.count && count == self.count, "one record of each session", got)?;
        Ok(by_ray)
    }
}

/// `Cf-Ray` of a session of [`Traffic`].
fn ray(record: &CloseRecord) -> Option<String> {
    record.ray.clone().filter(|ray| ray.starts_with("restart-"))
}

/// Waits until systemd keeps the descriptors of so many sessions, and one for their state.
fn until_stored(sessions: usize) -> Result<()> {
    let wanted = (1 + 2 * sessions).to_string();
    let mut last = String::new();
    let reached = wait::until("the descriptors in the store", TIMEOUT, || {
        last = property(UNIT, "NFileDescriptorStore").unwrap_or_default();
        if last != wanted {
            std::thread::sleep(Duration::from_millis(100));
        }
        (last == wanted).then_some(())
    });
    reached
        .map_err(|_| TestError::Unexpected { what: format!("{wanted} descriptors in the store"), got: last })
}

/// SIGKILL, and the next process.
fn kill() -> Result<()> {
    let old = pid(UNIT)?;
    shell(&format!("kill -9 {old}"))?;
    wait::until("the next process", TIMEOUT, || pid(UNIT).ok().filter(|new| *new != 0 && *new != old))?;
    active(UNIT)
}

/// Log of t3-dispatch from a time on.
struct Log {
    since: String,
}

impl Log {
    fn from_now() -> Result<Self> {
        Ok(Self { since: shell("date +%s.%6N")? })
    }

    /// Lines with this text.
    fn lines(&self, text: &str) -> Result<Vec<String>> {
        let log = shell(&format!(
            "journalctl --sync; journalctl -q --no-pager -o cat -u {UNIT} --since=@{}",
            self.since
        ))?;
        Ok(log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
    }

    /// Checks that each restart has continued all sessions; returns how long nothing was relayed.
    fn restarts(&self, restarts: usize, count: usize, sessions: &mut Sessions) -> Result<String> {
        let lines = self.lines("dispatch restarted: ")?;
        let wanted = format!("dispatch restarted: {count} sessions resumed, 0 not, gap ");
        let gap = |line: &String| line.strip_prefix(&wanted)?.split(' ').next()?.parse::<u64>().ok();
        let mut gaps: Vec<u64> = lines.iter().filter_map(gap).collect();
        must(gaps.len() == restarts && lines.len() == restarts, &wanted, lines.join("\n"))?;
        gaps.sort_unstable();
        // From frame to frame of a client.
        let silence = sessions.traffic.as_ref().map(|traffic| traffic.silence.take()).unwrap_or_default();
        let at = |index: usize| gaps.get(index).copied().unwrap_or_default();
        Ok(format!(
            "gaps {} to {} ms, median {} ms; a client saw at most {} ms",
            at(0),
            at(gaps.len().saturating_sub(1)),
            at(gaps.len() / 2),
            silence.as_millis()
        ))
    }
}

/// Both ends got Close 1001 from dispatch, then FIN.
fn got_close_1001(report: &SessionReport) -> bool {
    [&report.client, &report.serve].into_iter().all(|end| {
        end.as_ref().is_some_and(|end| {
            end.inserted_close == Some(Some(1001)) && end.end == Some(StreamEnd::Fin) && end.wrong.is_none()
        })
    })
}

fn stop() -> Result<String> {
    let mut sessions = Sessions::open(&[Kind::Idle; FITS])?;
    shell(&format!("systemctl stop {UNIT}"))?;
    let reports = sessions.traffic.take().map(Traffic::wait_ends).unwrap_or_default();
    let right = reports.len() == FITS && reports.iter().all(got_close_1001);
    must(right, "Close 1001 and FIN at both ends", format!("{reports:?}"))?;
    for record in sessions.records()?.values() {
        must(record.verdict == Verdict::DispatchShutdown, "dispatch_shutdown", record.to_line())?;
    }
    let left = property(UNIT, "NFileDescriptorStore")?;
    must(left == "0", "an empty store", left)?;
    shell(&format!("systemctl start {UNIT}"))?;
    active(UNIT).map(|()| String::new())
}

fn small_store() -> Result<String> {
    const SESSIONS: usize = FITS + 5;
    let most = 1 + 2 * FITS;
    let folder = Path::new(DROP_IN).parent().unwrap_or(Path::new("/"));
    let text = format!("[Service]\nFileDescriptorStoreMax={most}\nEnvironment=FDSTORE_MAX={most}\n");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(DROP_IN, text))
        .attempt(|| format!("write {DROP_IN}"))?;
    let log = Log::from_now()?;
    let reload = || shell(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    reload()?;
    let warned = log.lines(&format!("the descriptor store keeps {FITS} sessions"))?;
    must(warned.len() == 1, "one warning at the start", warned.join("\n"))?;
    let mut sessions = Sessions::open_any(&[Kind::Idle; SESSIONS])?;
    until_stored(FITS)?;
    let says = format!("{} of {SESSIONS} open sessions would be ended", SESSIONS - FITS);
    let mut doctor = String::new();
    let warned = wait::until("the warning of t3-trace doctor", TIMEOUT, || {
        doctor = shell("t3-trace doctor || true").unwrap_or_default();
        doctor.contains(&says).then_some(())
    });
    must(warned.is_ok(), &says, doctor)?;
    shell(&format!("systemctl restart {UNIT}"))?;
    let ended = wait::until("the end of the sessions above", TIMEOUT, || {
        (sessions.number_open() == FITS).then_some(())
    });
    ended?;
    let reports = sessions.traffic.take().map(Traffic::finish).unwrap_or_default();
    let (kept, others): (Vec<_>, Vec<_>) = reports.iter().partition(|report| report.is_kept());
    let right = kept.len() == FITS && others.iter().all(|report| got_close_1001(report));
    must(right, &format!("{FITS} kept, Close 1001 to the others"), format!("{reports:?}"))?;
    let records = sessions.records()?;
    let resumed = records.values().filter(|record| record.resumed == Some(1)).count();
    let shut_down = records.values().filter(|record| record.verdict == Verdict::DispatchShutdown).count();
    must((resumed, shut_down) == (FITS, SESSIONS - FITS), "their records", format!("{records:?}"))?;
    fs::remove_file(DROP_IN).and_then(|()| fs::remove_dir(folder)).attempt(|| format!("remove {DROP_IN}"))?;
    fixture::configure()?;
    reload()?;
    active(UNIT).map(|()| String::new())
}
