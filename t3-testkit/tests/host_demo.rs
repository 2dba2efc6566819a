//! Command line of the demo: as root with all of the host's features, and as another user with
//! none.
//! Needs root.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use t3_record::Verdict;
use t3_testkit::{harness::find, sys};
use t3_trace_cli::present::verdict_text::label;

fn need_root() {
    assert!(sys::is_root(), "needs root: run `cargo xtask test --tier host`");
}

fn run(command: &mut Command) -> io::Result<(Output, String)> {
    let output = command.args(["--pause", "0"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output, text))
}

fn score(text: &str) -> &str {
    text.lines().find(|line| line.contains(" explained correctly")).unwrap_or("no score")
}

/// Cgroups and links of a demo, found by their prefix, and its folders in `temporary`: another test
/// may have some in the common one.
fn leftovers(temporary: &Path) -> Vec<String> {
    let names = |dir: &str, prefix: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        names.filter(|path| path.contains(prefix)).collect::<Vec<_>>()
    };
    let mut found = names("/sys/class/net", "/t3t");
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
        found.extend(names(root, "/t3-test-"));
    }
    found.extend(names(&temporary.display().to_string(), "/t3-stack-"));
    found.sort();
    found
}

#[test]
fn as_root_every_fault_is_explained_and_nothing_is_left_behind() {
    need_root();
    let temporary = tempfile::tempdir().unwrap();
    let before = leftovers(temporary.path());
    let mut demo = Command::new(env!("CARGO_BIN_EXE_t3-demo"));
    let (output, text) = run(demo.env("TMPDIR", temporary.path())).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{stderr}");
    // The table names what the host lacks; at least six faults need only the kernel.
    let not_shown = text.lines().filter(|line| line.contains("not shown: ")).count();
    for verdict in [Verdict::ClientClosed, Verdict::ClientReset, Verdict::ServeKilled, Verdict::ServeExited] {
        let label = label(verdict);
        assert!(
            text.lines().any(|line| line.ends_with(" correct") && line.contains(label)),
            "{label}\n{text}"
        );
    }
    let shown = 8 - not_shown;
    assert!(shown >= 6, "{text}");
    assert!(score(&text).starts_with(&format!("{shown} of {shown} explained correctly")), "{text}");
    assert!(text.contains("kernel=tracepoint") || text.contains("kernel=kprobe"), "{text}");
    if not_shown > 0 {
        eprintln!("this host cannot show {not_shown} of the eight faults:\n{text}");
    }
    let after = leftovers(temporary.path());
    let after: Vec<_> = after.into_iter().filter(|name| !before.contains(name)).collect();
    assert!(after.is_empty(), "left behind: {after:?}");
}

#[test]
fn as_another_user_it_reports_missing_root_and_claims_no_kernel_evidence() {
    need_root();
    let found = Command::new("setpriv").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "setpriv is missing; install util-linux");
        eprintln!("not tested: setpriv is missing (package util-linux)");
        return;
    }
    // The target folder may be accessible only to its owner.
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(dir.path());
    for name in ["t3-demo", "t3-dispatch", "t3-trace", "t3-serve-standin"] {
        let to = dir.path().join(name);
        fs::copy(find(name).unwrap(), &to).unwrap();
        open(&to);
    }
    let mut command = Command::new("setpriv");
    // Not nobody: its number also stands for users that a user namespace does not have, so that
    // t3-dispatch does not trust it.
    command.args(["--reuid=61183", "--regid=61183", "--clear-groups", "--"]).arg(dir.path().join("t3-demo"));
    let (output, text) = run(command.env("T3_BIN_DIR", dir.path()).current_dir("/")).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{stderr}");
    assert!(text.lines().any(|line| line.contains("not root: ")), "{text}");
    assert_eq!(score(&text), "6 of 6 explained correctly (kernel=off), 2 not shown", "{text}");
    assert!(!text.contains("kernel=tracepoint") && !text.contains("kernel=kprobe"), "{text}");
    assert!(text.lines().filter(|line| line.ends_with("kernel=off")).count() >= 6, "{text}");
}

#[test]
fn ctrl_c_stops_the_demo_and_all_its_children() {
    need_root();
    let temporary = tempfile::tempdir().unwrap();
    let leftovers = || leftovers(temporary.path());
    let before = leftovers();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_t3-demo"));
    demo.env("TMPDIR", temporary.path());
    let mut demo =
        demo.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Its folder appears when it begins to start the programs.
    let started =
        t3_testkit::wait::until("the start of the demo", std::time::Duration::from_secs(30), || {
            (leftovers().len() > before.len()).then_some(())
        });
    started.unwrap();
    sys::signal(demo.id(), libc::SIGINT).unwrap();
    let status = t3_testkit::wait::until("the end of the demo", std::time::Duration::from_secs(90), || {
        demo.try_wait().unwrap()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    let after: Vec<_> = leftovers().into_iter().filter(|name| !before.contains(name)).collect();
    assert!(after.is_empty(), "left behind: {after:?}");
}
