//! Reload of a routing table on a file system that does not answer: requests, SIGHUP and the stop
//! continue, and a table elsewhere is loaded. Needs root, `/dev/fuse`, and `unshare`, `nsenter` and
//! `mount` of util-linux.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod program;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use program::{GOOD, Running, dispatch, wait_for};
use t3_testkit::prerequisite;

const BOB: &str = r#"{"bob": {"os_user": "bob", "port": 1}}"#;
/// Limit of one read, and time for the rest.
const READ: Duration = Duration::from_secs(5);
const SPARE: Duration = Duration::from_secs(10);

/// A FUSE file system that answers nothing, in a mount namespace of its own: open blocks.
struct Stalled {
    holder: Child,
    output: BufReader<ChildStdout>,
}

impl Stalled {
    fn mount(place: &Path) -> Self {
        let script = "exec 9<>/dev/fuse
            mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 t3 \"$1\" && echo mounted
            read line; exec 9>&-; echo closed; exec sleep 300";
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", script, "bash"]).arg(place);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(holder.stdout.take().unwrap());
        let mut stalled = Self { holder, output };
        stalled.wait_for("mounted");
        stalled
    }

    fn wait_for(&mut self, what: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), what);
    }

    /// Starts t3-dispatch where the file system is mounted.
    fn start(&self, table: &Path) -> Running {
        let program = dispatch(table, &["--listen", "127.0.0.1:0", "--drain-time", "1s"]);
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Running::of(&mut command)
    }

    /// Ends the file system: blocked calls fail.
    fn end(&mut self) {
        self.holder.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.wait_for("closed");
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn replace(path: &Path, write: impl Fn(&Path)) {
    let new = path.with_extension("new");
    write(&new);
    std::fs::rename(&new, path).unwrap();
}

fn is_served(running: &Running, user: &str) -> bool {
    let started = Instant::now();
    let answer = running.get(user);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // In the table, and no serve runs.
    answer.starts_with("HTTP/1.1 502")
}

/// Runs t3-dispatch with a table that was moved to a file system that does not answer.
fn stalled(test: impl FnOnce(&mut Running, &mut Stalled, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (path, place) = (dir.path().join("table.json"), dir.path().join("stalled"));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(&path, GOOD).unwrap();
    let mut stalled = Stalled::mount(&place);
    let mut running = stalled.start(&path);
    assert!(is_served(&running, "ann"));
    // Control: a normal file.
    replace(&path, |new| std::fs::write(new, BOB).unwrap());
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "1 logins");
    assert!(is_served(&running, "bob") && !is_served(&running, "ann"));

    let started = Instant::now();
    replace(&path, |new| std::os::unix::fs::symlink(place.join("table.json"), new).unwrap());
    running.signal(libc::SIGHUP);
    wait_for(&mut running.log, "timed out reading routing table");
    assert!(started.elapsed() < 2 * READ + SPARE, "{:?}", started.elapsed());
    assert!(is_served(&running, "bob"), "the previous table is in use");
    test(&mut running, &mut stalled, &path);
}

fn skipped(test: &str) -> bool {
    prerequisite::or_skip(test, prerequisite::root()).is_none()
}

#[test]
fn a_table_elsewhere_is_loaded_while_the_old_file_system_does_not_answer() {
    if skipped("a_table_elsewhere_is_loaded_while_the_old_file_system_does_not_answer") {
        return;
    }
    stalled(|running, _, path| {
        let started = Instant::now();
        replace(path, |new| std::fs::write(new, GOOD).unwrap());
        running.signal(libc::SIGHUP);
        wait_for(&mut running.log, "1 logins");
        assert!(started.elapsed() < 2 * READ + SPARE, "{:?}", started.elapsed());
        assert!(is_served(running, "ann") && !is_served(running, "bob"));
    });
}

#[test]
fn reload_continues_when_the_file_system_answers_again() {
    if skipped("reload_continues_when_the_file_system_answers_again") {
        return;
    }
    stalled(|running, stalled, path| {
        // Many requests leave no more than a few blocked threads.
        for _ in 0..20 {
            running.signal(libc::SIGHUP);
        }
        stalled.end();
        wait_for(&mut running.log, "cannot read routing table");
        replace(path, |new| std::fs::write(new, GOOD).unwrap());
        wait_for(&mut running.log, "1 logins");
        assert!(is_served(running, "ann"));
    });
}

#[test]
fn a_stop_does_not_wait_for_the_file_system() {
    if skipped("a_stop_does_not_wait_for_the_file_system") {
        return;
    }
    stalled(|running, stalled, _| {
        let started = Instant::now();
        running.signal(libc::SIGTERM);
        let until = started + SPARE;
        // A thread in the kernel's queue ends with the process.
        while running.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "not stopped");
            std::thread::sleep(Duration::from_millis(50));
        }
        stalled.end();
    });
}
