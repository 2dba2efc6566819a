//! Facts of the host: pressure files, cgroup mounts, clock discipline.

use std::{fs, io};

use t3_trace_host::cgroup;

use super::super::facts::{Cgroups, Clock, Host, Pressure};

pub(super) fn read() -> Host {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let file = |name| (name, pressure(fs::read_to_string(format!("/proc/pressure/{name}"))));
    Host {
        pressure: ["memory", "io", "cpu"].map(file).to_vec(),
        cgroups: Cgroups { v2: cgroup::mount_point(&mountinfo), v1: v1_controllers(&mountinfo) },
        clock: clock(),
    }
}

fn pressure(text: io::Result<String>) -> Pressure {
    match text {
        Ok(text) => average(&text)
            .map_or_else(|| Pressure::Unreadable("unexpected content".to_owned()), Pressure::Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Pressure::Missing,
        // With psi=0 the files exist and reject reads.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Pressure::Off,
        Err(error) => Pressure::Unreadable(error.to_string()),
    }
}

fn average(text: &str) -> Option<f32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
}

/// Mount options of version 1: controllers and names of hierarchies.
fn v1_controllers(mountinfo: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in mountinfo.lines() {
        let Some((_, after)) = line.split_once(" - ") else { continue };
        let mut fields = after.split(' ');
        if fields.next() != Some("cgroup") {
            continue;
        }
        let options = fields.nth(1).unwrap_or_default().split(',');
        found.extend(options.filter(|option| !matches!(*option, "rw" | "ro" | "xattr")).map(str::to_owned));
    }
    found
}

#[expect(unsafe_code, reason = "adjtimex is a libc call; with no mode set it only reads")]
fn clock() -> Clock {
    // SAFETY: all zeros are valid for this struct of integers.
    let mut state = unsafe { std::mem::zeroed::<libc::timex>() };
    // SAFETY: the pointer is valid for the call; modes is 0, so nothing is set.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    if result < 0 {
        return Clock::default();
    }
    let synchronised = result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0;
    // maxerror counts microseconds.
    Clock { synchronised: Some(synchronised), error_ms: u64::try_from(state.maxerror / 1000).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_missing_pressure_are_distinguished() {
        let text = "some avg10=12.50 avg60=0.41 avg300=0.39 total=17079420\n";
        assert_eq!(pressure(Ok(text.to_owned())), Pressure::Some(12.5));
        assert_eq!(pressure(Err(io::ErrorKind::NotFound.into())), Pressure::Missing);
        assert_eq!(pressure(Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))), Pressure::Off);
        assert!(matches!(pressure(Ok(String::new())), Pressure::Unreadable(_)));
    }

    #[test]
    fn controllers_of_version_1_are_read_from_its_mounts() {
        let text = "31 30 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                    32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(v1_controllers(text), ["memory", "name=systemd"]);
        assert_eq!(v1_controllers("garbage"), Vec::<String>::new());
    }

    #[test]
    fn the_clock_is_readable_without_privilege() {
        assert!(clock().synchronised.is_some());
    }
}
