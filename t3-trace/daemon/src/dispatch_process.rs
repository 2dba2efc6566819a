//! Process of a connected t3-dispatch.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sessions::ConnectionId;

/// A dispatch process with its pidfd, which detects the exit even if the pid is reused.
#[derive(Debug)]
pub(crate) struct DispatchProcess {
    pub(crate) id: ConnectionId,
    /// Its pid, if it is in a visible pid namespace.
    pub(crate) pid: Option<u32>,
    pub(crate) process: Option<OwnedFd>,
}

impl DispatchProcess {
    pub(crate) fn new(id: ConnectionId, pid: Option<u32>) -> Self {
        let raw = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Self { id, pid, process: raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll;

    #[tokio::test]
    async fn the_exit_of_a_process_is_detected() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let dispatch = DispatchProcess::new(ConnectionId(1), Some(child.id()));
        let process = poll::readable(dispatch.process.unwrap()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), process.readable()).await.is_err());
        child.kill().unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(10), process.readable()).await.is_ok());
        child.wait().unwrap();
    }
}
