//! The demo from its command line: as root with everything this machine has, and as nobody with
//! nothing. Needs root.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use t3_testkit::{harness::find, sys};

/// Root is what this tier is given; without it nothing here can be tested.
fn need_root() {
    assert!(sys::is_root(), "needs root: run `cargo xtask test --tier host`");
}

fn run(command: &mut Command) -> io::Result<(Output, String)> {
    let output = command.args(["--pause", "0"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output, text))
}

fn sum(text: &str) -> &str {
    text.lines().find(|line| line.contains(" explained correctly")).unwrap_or("no sum")
}

/// What a demo may not leave behind: its cgroups, links and folders all carry its process id or
/// prefix.
fn leftovers() -> Vec<String> {
    let names = |dir: &str, prefix: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.path().display().to_string());
        names.filter(|path| path.contains(prefix)).collect::<Vec<_>>()
    };
    let mut found = names("/sys/class/net", "/t3t");
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
        found.extend(names(root, "/t3-test-"));
    }
    found.extend(names(&std::env::temp_dir().display().to_string(), "/t3-stack-"));
    found.sort();
    found
}

#[test]
fn as_root_every_ending_is_explained_and_nothing_stays_behind() {
    need_root();
    let before = leftovers();
    let (output, text) = run(&mut Command::new(env!("CARGO_BIN_EXE_t3-demo"))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{stderr}");
    // What a machine lacks is named in the table; at least six endings need nothing but the kernel.
    let not_shown = text.lines().filter(|line| line.contains("not shown: ")).count();
    let shown = 8 - not_shown;
    assert!(shown >= 6, "{text}");
    assert!(sum(&text).starts_with(&format!("{shown} of {shown} explained correctly")), "{text}");
    assert!(text.contains("kernel=tracepoint") || text.contains("kernel=kprobe"), "{text}");
    if not_shown > 0 {
        eprintln!("this machine cannot show {not_shown} of the eight endings:\n{text}");
    }
    let after: Vec<_> = leftovers().into_iter().filter(|name| !before.contains(name)).collect();
    assert!(after.is_empty(), "left behind: {after:?}");
}

#[test]
fn as_nobody_it_runs_says_what_is_missing_and_claims_no_kernel_evidence() {
    need_root();
    let found = Command::new("setpriv").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "setpriv is missing; install util-linux");
        eprintln!("not tested: setpriv is missing (package util-linux)");
        return;
    }
    // The build may be in a folder that only its owner can enter.
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(dir.path());
    for name in ["t3-demo", "t3-dispatch", "t3-trace", "t3-serve-standin"] {
        let to = dir.path().join(name);
        fs::copy(find(name).unwrap(), &to).unwrap();
        open(&to);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(dir.path().join("t3-demo"));
    let (output, text) = run(command.env("T3_BIN_DIR", dir.path()).current_dir("/")).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{stderr}");
    assert!(text.lines().any(|line| line.contains("not root: ")), "{text}");
    assert_eq!(sum(&text), "6 of 6 explained correctly (kernel=off), 2 not shown", "{text}");
    assert!(!text.contains("kernel=tracepoint") && !text.contains("kernel=kprobe"), "{text}");
    assert!(text.lines().filter(|line| line.ends_with("kernel=off")).count() >= 6, "{text}");
}

#[test]
fn ctrl_c_ends_it_and_all_it_started() {
    need_root();
    let before = leftovers();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_t3-demo"));
    let mut demo =
        demo.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Its folder is there as soon as it has begun to start the programs.
    let started = t3_testkit::wait::until("the demo's start", std::time::Duration::from_secs(30), || {
        (leftovers().len() > before.len()).then_some(())
    });
    started.unwrap();
    sys::signal(demo.id(), libc::SIGINT).unwrap();
    let status = t3_testkit::wait::until("the demo's end", std::time::Duration::from_secs(90), || {
        demo.try_wait().unwrap()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    let after: Vec<_> = leftovers().into_iter().filter(|name| !before.contains(name)).collect();
    assert!(after.is_empty(), "left behind: {after:?}");
}
