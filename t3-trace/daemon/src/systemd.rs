//! Reports daemon state to systemd (sd_notify(3)): ready, status line, watchdog, stopping. Has no
//! effect without systemd.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::net::{AddressFamily, getsockname, netlink, sockopt};

use sd_notify::NotifyState;

use crate::state::Shared;

const STATUS_EVERY: Duration = Duration::from_secs(10);

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// Netlink sockets passed by systemd (sd_listen_fds(3), t3-trace-netlink.socket), if any.
#[derive(Debug, Default)]
pub(crate) struct PassedNetlink {
    /// rtnetlink(7).
    pub(crate) route: Option<OwnedFd>,
    /// sock_diag(7).
    pub(crate) diag: Option<OwnedFd>,
}

/// Netlink sockets passed by systemd. To be called once, at the start.
#[expect(unsafe_code, reason = "systemd passes descriptors by number")]
pub(crate) fn passed_netlink() -> PassedNetlink {
    let mut found = PassedNetlink::default();
    for fd in sd_notify::listen_fds().into_iter().flatten() {
        // SAFETY: LISTEN_PID names this process, so the descriptors are open, and nothing else in
        // this process owns them.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if getsockname(&fd).is_ok_and(|address| address.address_family() == AddressFamily::NETLINK) {
            let is_diag = sockopt::socket_protocol(&fd).is_ok_and(|of| of == Some(netlink::SOCK_DIAG));
            *(if is_diag { &mut found.diag } else { &mut found.route }) = Some(fd);
        }
    }
    found
}

/// Reports that the socket is open.
pub(crate) fn ready(shared: &Shared) {
    notify(&[NotifyState::Ready, NotifyState::Status(&shared.summary())]);
}

/// Reports that the daemon is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Sends watchdog keep-alives and the status line, from the event loop that they monitor.
pub(crate) async fn run(shared: Arc<Shared>) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |watchdog| (watchdog / 3).min(STATUS_EVERY));
    let mut reported = String::new();
    let mut tick = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        // A regular sample; queries add more.
        let _ = shared.sample_losses();
        let summary = shared.summary();
        if summary != reported {
            notify(&[NotifyState::Status(&summary)]);
            reported = summary;
        }
    }
}
