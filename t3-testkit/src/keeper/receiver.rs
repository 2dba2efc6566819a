//! Socket of sd_notify(3): receives messages with descriptors, on a separate thread.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt::set_socket_passcred,
};

use super::{
    message::{self, Change, FLUSH},
    store::Store,
};
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

/// Longest message that systemd reads (`NOTIFY_BUFFER_MAX`).
const LONGEST: usize = 4096;
/// Most descriptors of one message (`SCM_MAX_FD` of the kernel).
const MOST: usize = 253;

/// The service, as its messages describe it.
#[derive(Debug)]
pub(super) struct State {
    pub store: Store,
    /// Process whose messages count (`NotifyAccess=main`); 0 for none.
    pub pid: u32,
    /// Time of READY=1 of this process.
    pub ready_at: Option<Instant>,
    pub is_stopping: bool,
    pub status: String,
    flushed: u64,
    is_over: bool,
}

#[derive(Debug)]
pub(super) struct Receiver {
    shared: Arc<(Mutex<State>, Condvar)>,
    pub path: PathBuf,
    flushes: u64,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub(super) fn start(folder: &Path, store: Store) -> Result<Self> {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).attempt(|| format!("bind {}", path.display()))?;
        set_socket_passcred(&socket, true).attempt(|| "request the sender of messages".to_owned())?;
        let state = State {
            store,
            pid: 0,
            ready_at: None,
            is_stopping: false,
            status: String::new(),
            flushed: 0,
            is_over: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || receive(&socket, &own));
        Ok(Self { shared, path, flushes: 0, thread: Some(thread) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a message makes this true, or for `limit`; returns whether it is.
    pub(super) fn wait(&self, limit: Duration, mut is_done: impl FnMut(&State) -> bool) -> bool {
        let (_, changed) = &*self.shared;
        let state = self.lock();
        let waited = changed.wait_timeout_while(state, limit, |state| !is_done(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits until all messages that were sent before are read.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.flushes += 1;
        let (number, limit) = (self.flushes, wait::scaled(Duration::from_secs(60)));
        self.send(&format!("{FLUSH}{number}")).attempt(|| "send a message to the keeper".to_owned())?;
        if self.wait(limit, |state| state.flushed >= number) {
            return Ok(());
        }
        Err(TestError::Timeout { what: "reading all messages".to_owned(), after: limit })
    }

    fn send(&self, text: &str) -> io::Result<()> {
        UnixDatagram::unbound()?.send_to(text.as_bytes(), &self.path).map(drop)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.lock().is_over = true;
        // Wakes the thread.
        if self.send("").is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn receive(socket: &UnixDatagram, shared: &(Mutex<State>, Condvar)) {
    let (state, changed) = shared;
    let mut bytes = vec![0; LONGEST];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST), ScmCredentials(1))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        let (mut fds, mut sender) = (Vec::new(), 0);
        for part in control.drain() {
            match part {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(who) => {
                    sender = u32::try_from(who.pid.as_raw_nonzero().get()).unwrap_or(0);
                }
                _ => {}
            }
        }
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return;
        }
        let is_whole = !received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        let text = bytes.get(..received.bytes).unwrap_or_default();
        state.read(is_whole.then_some(text), sender, fds);
        drop(state);
        changed.notify_all();
    }
}

impl State {
    /// `None`: the message is truncated.
    fn read(&mut self, text: Option<&[u8]>, sender: u32, fds: Vec<OwnedFd>) {
        let message = text.map(message::parse).unwrap_or_default();
        if sender == std::process::id() {
            self.flushed = message.flush.unwrap_or(self.flushed);
            return;
        }
        if sender != self.pid || text.is_none() {
            self.store.counts.refused += 1;
            return;
        }
        if message.is_ready {
            self.ready_at = Some(Instant::now());
        }
        self.is_stopping |= message.is_stopping;
        if let Some(status) = message.status {
            self.status = status;
        }
        match message.change {
            Some(Change::Add { name, is_polled }) => self.store.add(&name, is_polled, fds),
            Some(Change::Remove { name }) => self.store.remove(&name),
            None => {}
        }
    }
}
