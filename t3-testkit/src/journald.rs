//! A real journald for a test: private in its own mount namespace, or the host's under systemd.
//!
//! The private one has a new `/run`, bind-mounted from a temporary directory so that its files are
//! readable from outside. Only processes that [`Journal::lend`] moved into its namespace reach it.
//! Records are followed with `journalctl -f -o json`, as an operator reads them, or read from its
//! files at the end ([`Stored`]).

mod small_disk;
mod stored;

pub use small_disk::Filler;
pub use stored::{Stored, StoredRecord};

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    io::{BufRead, BufReader},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use small_disk::SmallDisk;
use t3_record::{
    BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord,
    journal::{BURST_ID, CLOSE_ID, OPEN_ID, TCP_CLOSE_ID},
};
use tempfile::TempDir;

use crate::{
    error::{Attempt, Result, TestError},
    prerequisite, sys, wait,
};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// No rate limits, no other sources, nothing on disk.
const CONFIG: &str = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nRateLimitBurst=0\nReadKMsg=no\nAudit=no\n\
    ForwardToSyslog=no\nForwardToKMsg=no\nForwardToConsole=no\nForwardToWall=no\nRuntimeMaxUse=8G\nRuntimeKeepFree=64M\n";

/// Added for a journal on its own disk: it uses all of the disk, in several files.
fn disk_config(bytes: u64) -> String {
    let file = (bytes / 3).clamp(8 << 20, 128 << 20);
    format!("RuntimeKeepFree=0\nRuntimeMaxFiles=10000\nRuntimeMaxFileSize={file}\n")
}

/// The fields of one entry.
pub type Entry = BTreeMap<String, String>;

/// A journald and its entries.
#[derive(Debug)]
pub struct Journal {
    entries: Arc<Entries>,
    follower: Option<Child>,
    private: Option<Private>,
    /// `--log` of the programs: where they write their records.
    pub log_target: &'static str,
}

#[derive(Debug, Default)]
struct Entries {
    list: Mutex<Vec<Entry>>,
    grew: Condvar,
}

#[derive(Debug)]
struct Private {
    /// Mounted in `dir`, so unmounted before `dir` is removed.
    disk: Option<SmallDisk>,
    dir: TempDir,
    daemon: Mutex<Child>,
    /// journald's socket, if the test holds it ([`Journal::hold_socket`]).
    socket: Mutex<Option<OwnedFd>>,
    /// Mount namespace of journald; outlives a killed journald.
    namespace: fs::File,
}

impl Journal {
    /// The host's journald when systemd runs here, otherwise a private one.
    pub fn open() -> Result<Self> {
        if Path::new("/run/systemd/system").is_dir() { Self::system() } else { Self::private() }
    }

    /// The host's journald; entries from now on.
    pub fn system() -> Result<Self> {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut journalctl = Command::new("journalctl");
        // To the microsecond, to exclude entries of an earlier run in the same second.
        journalctl.arg(format!("--since=@{}.{:06}", now.as_secs(), now.subsec_micros()));
        Self::follow(journalctl, None)
    }

    /// A private journald.
    ///
    /// # Errors
    /// [`TestError::Missing`] without root or without systemd-journald; otherwise what the start
    /// met.
    pub fn private() -> Result<Self> {
        let private = Private::start(None)?;
        let mut journalctl = Command::new("journalctl");
        journalctl.arg(format!("--directory={}", private.dir.path().join("run/log/journal").display()));
        Self::follow(journalctl, Some(private))
    }

    /// A private journald without a follower: [`Journal::closes`] and the like return nothing and
    /// use no CPU. For tests with many records that read [`Journal::directory`] at the end.
    pub fn unfollowed() -> Result<Self> {
        let private = Some(Private::start(None)?);
        Ok(Self { entries: Arc::default(), follower: None, private, log_target: "journald" })
    }

    /// As [`Journal::unfollowed`], with its files on a separate disk of this size in bytes, which a
    /// test can fill ([`Journal::fill`]).
    pub fn on_disk_of(bytes: u64) -> Result<Self> {
        let private = Some(Private::start(Some(bytes))?);
        Ok(Self { entries: Arc::default(), follower: None, private, log_target: "journald" })
    }

    /// No journald, for users that cannot have their own: the programs write to stderr, and
    /// `collector` finds the records of closes there.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self { entries: Arc::default(), follower: None, private: None, log_target: "stderr" }
    }

    /// Collects the records of closes among the lines that a program writes.
    pub(crate) fn collector(&self) -> impl Fn(&str) + Clone + Send + 'static {
        let entries = Arc::clone(&self.entries);
        move |line| {
            let fields = match (CloseRecord::from_line(line), TcpCloseRecord::from_line(line)) {
                (Ok(record), _) => record.to_fields(),
                (_, Ok(record)) => record.to_fields(),
                _ => return,
            };
            entries.push(fields.into_iter().map(|(name, value)| (name.into_owned(), value)).collect());
        }
    }

    fn follow(mut journalctl: Command, private: Option<Private>) -> Result<Self> {
        let ids = [CLOSE_ID, OPEN_ID, BURST_ID, TCP_CLOSE_ID].map(|id| format!("MESSAGE_ID={id}"));
        journalctl.args(["--follow", "--no-tail", "--all", "--quiet", "--output=json"]).args(ids);
        journalctl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        sys::dies_with_us(&mut journalctl);
        let mut follower = journalctl.spawn().attempt(|| "start journalctl --follow".to_owned())?;
        let entries = Arc::<Entries>::default();
        if let Some(stdout) = follower.stdout.take() {
            let entries = Arc::clone(&entries);
            std::thread::spawn(move || entries.collect(stdout));
        }
        Ok(Self { entries, follower: Some(follower), private, log_target: "journald" })
    }

    /// Makes a command, once started, log to this journald.
    pub fn lend(&self, command: &mut Command) -> Result<()> {
        if let Some(private) = &self.private {
            let namespace = private.namespace.try_clone().attempt(|| "duplicate a descriptor".to_owned())?;
            sys::in_namespace(command, OwnedFd::from(namespace));
        }
        Ok(())
    }

    /// Every `ws close` so far that satisfies `keep`, with its entry.
    pub fn closes(&self, keep: impl Fn(&CloseRecord) -> bool) -> Result<Vec<(CloseRecord, Entry)>> {
        self.read(CLOSE_ID, CloseRecord::from_fields, keep)
    }

    /// Every `tcp close` so far that satisfies `keep`.
    pub fn tcp_closes(&self, keep: impl Fn(&TcpCloseRecord) -> bool) -> Result<Vec<TcpCloseRecord>> {
        let found = self.read(TCP_CLOSE_ID, TcpCloseRecord::from_fields, keep)?;
        Ok(found.into_iter().map(|(record, _)| record).collect())
    }

    /// Every `ws open` so far.
    pub fn opens(&self) -> Result<Vec<(OpenRecord, Entry)>> {
        self.read(OPEN_ID, OpenRecord::from_fields, |_| true)
    }

    /// Every `ws burst` so far.
    pub fn bursts(&self) -> Result<Vec<(BurstRecord, Entry)>> {
        self.read(BURST_ID, BurstRecord::from_fields, |_| true)
    }

    /// Every entry of a private journald whose message starts with `begin`, of any program.
    pub fn messages(&self, begin: &str) -> Result<Vec<Entry>> {
        let directory = self.own()?.dir.path().join("run/log/journal");
        let mut journalctl = Command::new("journalctl");
        journalctl.arg(format!("--directory={}", directory.display()));
        journalctl.args(["--all", "--quiet", "--output=json"]).stdin(Stdio::null());
        let output = journalctl.output().attempt(|| "read the journal".to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let begins = |entry: &Entry| entry.get("MESSAGE").is_some_and(|message| message.starts_with(begin));
        Ok(text.lines().filter_map(entry).filter(begins).collect())
    }

    fn read<R, E: std::fmt::Display>(
        &self,
        id: &str,
        decode: impl Fn(&Entry) -> Result<R, E>,
        keep: impl Fn(&R) -> bool,
    ) -> Result<Vec<(R, Entry)>> {
        let list = self.entries.list.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for entry in list.iter().filter(|entry| entry.get("MESSAGE_ID").is_some_and(|have| have == id)) {
            let record = decode(entry).map_err(|error| TestError::Unexpected {
                what: format!("a record in the entry {entry:?}"),
                got: error.to_string(),
            })?;
            if keep(&record) {
                found.push((record, entry.clone()));
            }
        }
        Ok(found)
    }

    /// Waits until at least `n` `ws close` records satisfy `keep`, and returns them; the caller
    /// checks for more than `n`.
    pub fn wait_closes(
        &self,
        n: usize,
        limit: Duration,
        keep: impl Fn(&CloseRecord) -> bool,
    ) -> Result<Vec<(CloseRecord, Entry)>> {
        let limit = wait::scaled(limit);
        let deadline = Instant::now() + limit;
        loop {
            let found = self.closes(&keep)?;
            if found.len() >= n {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what =
                    format!("{n} matching `ws close` records in the journal (there are {})", found.len());
                return Err(TestError::Timeout { what, after: limit });
            }
            let list = self.entries.list.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.entries.grew.wait_timeout(list, left.min(Duration::from_millis(100))));
        }
    }

    /// Process id of the private journald; `None` for the host's.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.private.as_ref().map(|private| private.lock().id())
    }

    /// Kills the private journald; its socket remains without a listener, as after a crash.
    pub fn kill(&self) -> Result<()> {
        let mut daemon = self.own()?.lock();
        daemon.kill().attempt(|| "kill journald".to_owned())?;
        daemon.wait().attempt(|| "wait for journald's end".to_owned()).map(drop)
    }

    /// Ends the private journald by SIGTERM, as `systemctl stop`.
    pub fn stop(&self) -> Result<()> {
        let mut daemon = self.own()?.lock();
        sys::signal(daemon.id(), libc::SIGTERM).attempt(|| "stop journald".to_owned())?;
        daemon.wait().attempt(|| "wait for journald's end".to_owned()).map(drop)
    }

    /// Keeps journald's socket open from now on, as systemd does: entries sent while journald does
    /// not run wait in it. Restarts journald.
    pub fn hold_socket(&self) -> Result<()> {
        const SOCKET: &str = "/run/systemd/journal/socket";
        self.stop()?;
        let private = self.own()?;
        let namespace = private.namespace.try_clone().attempt(|| "duplicate a descriptor".to_owned())?;
        let bound = std::thread::spawn(move || {
            sys::enter_mounts(&OwnedFd::from(namespace))?;
            fs::remove_file(SOCKET)?;
            UnixDatagram::bind(SOCKET).map(OwnedFd::from)
        });
        let bound = bound.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
        let bound = bound.attempt(|| format!("bind {SOCKET}"))?;
        *private.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(bound);
        self.start_again()
    }

    /// Whether the private journald runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.own().is_ok_and(|private| matches!(private.lock().try_wait(), Ok(None)))
    }

    /// Starts journald again after [`Journal::kill`] or [`Journal::stop`].
    pub fn start_again(&self) -> Result<()> {
        let private = self.own()?;
        let held = private.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = match &*held {
            Some(socket) => activated_journald(socket)?,
            None => journald(JOURNALD),
        };
        drop(held);
        self.lend(&mut command)?;
        *private.lock() = command.spawn().attempt(|| format!("start {JOURNALD}"))?;
        Ok(())
    }

    fn own(&self) -> Result<&Private> {
        self.private.as_ref().ok_or_else(|| TestError::Missing {
            what: "a private journald".to_owned(),
            remedy: "use Journal::private".to_owned(),
        })
    }

    /// Folder of the private journald's files; `None` for the host's.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        self.private.as_ref().map(|private| private.dir.path().join("run/log/journal"))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let daemon = self
            .private
            .as_mut()
            .map(|private| private.daemon.get_mut().unwrap_or_else(PoisonError::into_inner));
        for child in self.follower.iter_mut().chain(daemon) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Private {
    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(disk: Option<u64>) -> Result<Self> {
        prerequisite::root()?;
        if !Path::new(JOURNALD).exists() {
            return Err(TestError::Missing {
                what: JOURNALD.to_owned(),
                remedy: "install the package systemd (it need not run)".to_owned(),
            });
        }
        let dir = tempfile::Builder::new()
            .prefix("t3-journal-")
            .tempdir()
            .attempt(|| "make a temporary directory".to_owned())?;
        let run = dir.path().join("run");
        for part in ["systemd/journald.conf.d", "log/journal"] {
            fs::create_dir_all(run.join(part)).attempt(|| format!("create {part}"))?;
        }
        let config = disk.map_or_else(|| CONFIG.to_owned(), |bytes| CONFIG.to_owned() + &disk_config(bytes));
        fs::write(run.join("systemd/journald.conf.d/test.conf"), config)
            .attempt(|| "write journald.conf".to_owned())?;
        let disk = disk.map(|bytes| SmallDisk::mount(&run.join("log/journal"), bytes)).transpose()?;
        let daemon = start_journald(&run, disk.is_some())?;
        let path = format!("/proc/{}/ns/mnt", daemon.id());
        let namespace = fs::File::open(&path).attempt(|| format!("open {path}: has journald exited?"))?;
        let private = Private { disk, dir, daemon: Mutex::new(daemon), socket: Mutex::default(), namespace };
        let socket = run.join("systemd/journal/socket");
        wait::until("the start of journald", Duration::from_secs(20), || {
            (socket.exists() && has_entries(&run)).then_some(())
        })?;
        Ok(private)
    }
}

fn start_journald(run: &Path, has_disk: bool) -> Result<Child> {
    let path = |path: &Path| {
        let bad = |_| TestError::Unexpected { what: "a path".to_owned(), got: format!("{path:?}") };
        CString::new(path.as_os_str().as_bytes()).map_err(bad)
    };
    let mut binds = vec![(path(run)?, path(Path::new("/run"))?)];
    if has_disk {
        // A bind mount does not contain the mounts below its source.
        binds.push((path(&run.join("log/journal"))?, path(Path::new("/run/log/journal"))?));
    }
    let mut command = journald(JOURNALD);
    sys::with_private_mounts(&mut command, binds);
    command.spawn().attempt(|| format!("start {JOURNALD}"))
}

/// A journald that gets its socket from its parent (sd_listen_fds(3)).
fn activated_journald(socket: &OwnedFd) -> Result<Command> {
    let mut command = journald("sh");
    command.args(["-c", &format!("LISTEN_FDS=1 LISTEN_PID=$$ exec {JOURNALD}")]);
    sys::passes_first(&mut command, socket.try_clone().attempt(|| "duplicate a descriptor".to_owned())?);
    Ok(command)
}

fn journald(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("WATCHDOG_USEC");
    sys::dies_with_us(&mut command);
    command
}

/// Whether journald has written its first entry; before that, journalctl may fail on a file without
/// a header.
fn has_entries(run: &Path) -> bool {
    let mut journalctl = Command::new("journalctl");
    journalctl.arg(format!("--directory={}", run.join("log/journal").display()));
    journalctl.args(["--quiet", "--lines=1", "--output=cat"]).stdin(Stdio::null());
    journalctl.output().is_ok_and(|output| !output.stdout.is_empty())
}

impl Entries {
    fn collect(&self, stdout: impl std::io::Read) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(entry) = entry(&line) {
                self.push(entry);
            }
        }
    }

    fn push(&self, entry: Entry) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.grew.notify_all();
    }
}

/// One line of `journalctl -o json`. A value is a text, an array of bytes (not valid text), or an
/// array of values (a repeated field, `man journalctl`); then the last one counts, and the name
/// gets a `+`, which no expectation matches.
fn entry(line: &str) -> Option<Entry> {
    use serde_json::Value;
    fn text(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Array(bytes) => {
                let bytes: Option<Vec<u8>> =
                    bytes.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
                bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        }
    }
    let Value::Object(fields) = serde_json::from_str(line).ok()? else { return None };
    let mut entry = Entry::new();
    for (name, value) in &fields {
        match (text(value), value) {
            (Some(text), _) => drop(entry.insert(name.clone(), text)),
            (None, Value::Array(values)) => {
                drop(entry.insert(format!("{name}+"), value.to_string()));
                values.last().and_then(text).map(|text| entry.insert(name.clone(), text));
            }
            (None, _) => {}
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_on_stderr_become_entries_and_other_lines_do_not() {
        let journal = Journal::on_stderr();
        let line = "ws close user=alice ip=203.0.113.7 dur_ms=5 cause=graceful verdict=client_closed segment=downstream conn=c1 \
                    kernel=off ray=demo-a";
        let collect = journal.collector();
        for line in [line, "2026 INFO t3_dispatch: listening", "ws open user=alice ip=203.0.113.7 conn=c1"] {
            collect(line);
        }
        let records = journal.closes(|_| true).unwrap();
        assert!(matches!(records.as_slice(), [(record, _)] if record.to_line() == line), "{records:?}");
    }

    #[test]
    fn journalctl_json_in_all_its_forms() {
        let line = r#"{"MESSAGE":"a","BYTES":[104,105,10],"TWICE":["x","y"],"NULL":null}"#;
        let entry = entry(line).unwrap();
        assert_eq!(entry["MESSAGE"], "a");
        assert_eq!(entry["BYTES"], "hi\n");
        assert_eq!(entry["TWICE"], "y");
        assert!(entry.contains_key("TWICE+"));
        assert!(!entry.contains_key("NULL"));
    }
}
