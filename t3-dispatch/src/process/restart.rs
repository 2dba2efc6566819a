//! Restart without the end of a session: opens the store of the process before, continues its
//! sessions, and leaves them to the next process.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use t3_record::evidence::{Nanos, Shutdown, Span};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};

use crate::{
    fd_store::{
        Store,
        descriptors::{DescriptorStore, STATE, ServiceManager},
        slot::Slot,
        state_file::StateFile,
    },
    proxy::resume::{self, Resumed},
    server::app::App,
    sys::clock,
};

/// Interval at which the process notes that it runs: the precision of the gap after a crash.
const ALIVE: Duration = Duration::from_millis(100);
/// Interval at which the sessions that end are counted.
const POLL: Duration = Duration::from_millis(5);
/// Limit of the wait for sessions to write their state.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the process before left.
#[derive(Debug, Default)]
pub struct Predecessor {
    slots: Vec<Slot>,
    sockets: Vec<(String, OwnedFd)>,
    /// Last time at which it is known to have run.
    alive: Option<Nanos>,
    /// Last time at which it is known to have existed: later, if its runtime was blocked.
    existed: Option<Nanos>,
}

/// Opens the descriptor store. `state` and `sockets`: what it had from the process before.
/// `capacity`: most descriptors that the service manager keeps.
///
/// # Errors
/// As [`DescriptorStore::start`] and [`StateFile::create`].
pub fn open(
    state: Option<OwnedFd>,
    sockets: Vec<(String, OwnedFd)>,
    capacity: Option<usize>,
    max_sessions: NonZeroUsize,
) -> io::Result<(Option<Store>, Predecessor)> {
    let Some(capacity) = capacity else {
        tracing::info!("no descriptor store (FileDescriptorStoreMax=): a restart ends all sessions");
        return Ok((None, Predecessor::default()));
    };
    // Two per session, and the memory of all sessions.
    let keepable = capacity.saturating_sub(1) / 2;
    let wanted = u32::try_from(keepable.min(max_sessions.get())).unwrap_or(u32::MAX);
    if keepable < max_sessions.get() {
        tracing::warn!(
            "the descriptor store keeps {keepable} sessions and --max-sessions allows {max_sessions}: a restart \
             ends the sessions above; raise FileDescriptorStoreMax= to {}",
            2 * max_sessions.get() + 1
        );
    }
    if wanted == 0 {
        return Ok((None, Predecessor::default()));
    }
    let descriptors = DescriptorStore::start(ServiceManager)?;
    let mut predecessor = Predecessor { sockets, ..Predecessor::default() };
    let has_state = state.is_some();
    let opened = state.and_then(|state| match StateFile::open(state) {
        Ok(file) => {
            predecessor.slots = Slot::live(&file);
            (predecessor.alive, predecessor.existed) = (file.alive(), file.existed());
            // A change of the limit takes effect when no session depends on the memory.
            (file.slots() == wanted || !predecessor.slots.is_empty()).then_some(file)
        }
        Err(error) => {
            tracing::error!(
                "cannot continue the sessions before the restart: their state is unusable: {error}"
            );
            None
        }
    });
    let file = match opened {
        Some(file) => file,
        None => {
            if has_state {
                drop(descriptors.remove(STATE.to_owned()));
            }
            let file = StateFile::create(wanted)?;
            descriptors.add(STATE.to_owned(), vec![file.fd().as_fd().try_clone_to_owned()?]);
            file
        }
    };
    Ok((Some(Store { file, descriptors }), predecessor))
}

/// Continues the sessions of the process before. To be called before the first accept.
pub fn pick_up(app: &Arc<App>, predecessor: Predecessor) {
    let Predecessor { slots, sockets, alive, existed } = predecessor;
    if slots.is_empty() && sockets.is_empty() {
        app.evidence.picked_up();
        return;
    }
    let now = clock::now();
    let from = alive.filter(|alive| *alive <= now).unwrap_or(now);
    app.recorder.lag.add_restart(Span { from, until: now });
    let existed = existed.filter(|existed| *existed <= now).map_or(from, |existed| existed.max(from));
    let Resumed { resumed, not_resumed } = resume::all(&app.websocket, slots, sockets, [from, existed]);
    app.evidence.picked_up();
    let gap = clock::now().saturating_sub(from) / 1_000_000;
    tracing::info!(
        resumed,
        not_resumed,
        gap_ms = gap,
        "dispatch restarted: {resumed} sessions resumed, {not_resumed} not, gap {gap} ms"
    );
}

/// Notes regularly that this process runs.
pub async fn note_alive(store: Store) {
    let mut ticks = interval(ALIVE);
    loop {
        ticks.tick().await;
        store.file.set_alive(clock::now());
    }
}

/// Notes regularly that this process exists, on a thread of its own: the runtime may be blocked
/// until the watchdog of the service manager ends the process, and t3-trace waits for the next one
/// only from then on.
///
/// # Errors
/// As [`std::thread::Builder::spawn`].
pub fn note_exists(store: &Store) -> io::Result<()> {
    let file = Arc::downgrade(&store.file);
    std::thread::Builder::new().name("exists".to_owned()).spawn(move || {
        while let Some(file) = file.upgrade() {
            file.set_exists(clock::now());
            drop(file);
            std::thread::sleep(ALIVE);
        }
    })?;
    Ok(())
}

/// Answers the requests in flight and closes the sessions that the next process cannot continue
/// (Close 1001), until `deadline`, while the others go on. Then leaves these to the next process.
pub async fn hand_over(app: &Arc<App>, store: &Store, shutdown: Shutdown, deadline: Instant) {
    let sessions = app.recorder.in_flight.count();
    tracing::info!(sessions, "restarting: sessions continue in the next process");
    app.shutdown.trigger_restart(shutdown);
    let ended = async {
        app.connections.none().await;
        while app.recorder.in_flight.count() > store.file.taken() {
            sleep(POLL).await;
        }
    };
    let _ = timeout_at(deadline, ended).await;
    app.shutdown.hand_over();
    store.file.set_handed_over(clock::now());
    let left = timeout(LEAVE_TIMEOUT, app.recorder.in_flight.none()).await;
    if left.is_err() {
        tracing::warn!(sessions = app.recorder.in_flight.count(), "sessions did not end in time");
    }
    // From now on nothing that ends with this process ends a session.
    store.file.leave();
    let _ = timeout(LEAVE_TIMEOUT, store.descriptors.flush()).await;
}
