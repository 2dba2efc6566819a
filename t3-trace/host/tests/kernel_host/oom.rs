//! OOM kill in a separate small memory cgroup (version 2, or version 1 if that has the controller).

use std::{
    fs,
    path::{Path, PathBuf},
};

use t3_record::evidence::Fate;
use t3_trace_host::kernel::EventKind;

use crate::{
    fixture::{Leg, kernel, wait_for},
    serve::Serve,
};

/// A cgroup with a memory limit; removed on drop.
struct Small(PathBuf);

impl Small {
    fn new() -> Option<Self> {
        let version_2 = Path::new("/sys/fs/cgroup");
        // Under systemd it is already enabled.
        let _ = fs::write(version_2.join("cgroup.subtree_control"), "+memory");
        for (root, limit) in [(version_2, "memory.max"), (&version_2.join("memory"), "memory.limit_in_bytes")]
        {
            let group = root.join(format!("t3-kernel-test-{}", std::process::id()));
            if root.join("cgroup.procs").exists() && fs::create_dir_all(&group).is_ok() {
                let small = Self(group);
                if fs::write(small.0.join(limit), "50331648").is_ok() {
                    return Some(small);
                }
            }
        }
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        wait_for("the cgroup is empty again", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn an_oom_kill_is_distinguished_from_a_kill() {
    let Some(mut kernel) = kernel() else { return };
    let Some(small) = Small::new() else {
        assert!(std::env::var_os("CI").is_none(), "cannot create a memory cgroup");
        eprintln!("skipped: cannot create a memory cgroup");
        return;
    };
    let mut events = kernel.take_events().unwrap();
    let mut serve = Serve::listening("127.0.0.1");
    kernel.watch(&[], &[serve.address.port()], &[]).unwrap();
    let leg = Leg::open(&kernel, &mut serve);
    fs::write(small.0.join("cgroup.procs"), serve.pid().to_string()).unwrap();
    let status = serve.end_by("allocate");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    wait_for("FIN came in", || leg.dispatch_end(&kernel).fin_in.is_some());
    assert_eq!(leg.serve_end(&kernel).closer.map(|task| task.pid), Some(serve.pid()));
    let process = kernel.process(serve.pid()).unwrap();
    assert_eq!((process.fate, process.killer), (Fate::Oom, None));
    assert!(process.oom_at.is_some() && process.oom_at <= process.ended_at, "{:?}", process.oom_at);
    let mut victims = std::iter::from_fn(|| events.next_event())
        .filter_map(|event| if let EventKind::Oom { tgid } = event.kind { Some(tgid) } else { None });
    assert!(victims.any(|tgid| tgid == serve.pid()), "the kill is an event, too");
}
