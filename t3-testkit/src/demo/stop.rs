//! Ctrl-C as a flag, so that the demo stops its programs before it exits. A second Ctrl-C exits
//! immediately; the children have a parent-death signal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Attempt, Result, TestError};

/// Exit status after a second signal: 128 and SIGINT, as in a shell.
const FORCED: i32 = 130;

/// Whether a stop signal was received.
#[derive(Debug, Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Installs handlers for SIGINT, SIGTERM and SIGHUP.
    pub fn on_signals() -> Result<Self> {
        let flag = Arc::<AtomicBool>::default();
        let (installed, outcome) = mpsc::channel();
        let shared = Arc::clone(&flag);
        thread::spawn(move || listen(&shared, &installed));
        outcome.recv().unwrap_or_else(|_| {
            Err(TestError::Unexpected {
                what: "a thread that waits for signals".into(),
                got: "it ended".into(),
            })
        })?;
        Ok(Self(flag))
    }

    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Blocks until a signal is received.
    pub fn wait(&self) {
        while !self.requested() {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn listen(flag: &AtomicBool, installed: &mpsc::Sender<Result<()>>) {
    let what = || "wait for signals".to_owned();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build().attempt(what) {
        Ok(runtime) => runtime,
        Err(error) => return drop(installed.send(Err(error))),
    };
    runtime.block_on(async {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
                .map(|kind| signal(kind).attempt(what));
        let (mut interrupt, mut terminate, mut hangup) = match (interrupt, terminate, hangup) {
            (Ok(interrupt), Ok(terminate), Ok(hangup)) => (interrupt, terminate, hangup),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                return drop(installed.send(Err(error)));
            }
        };
        let _ = installed.send(Ok(()));
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(FORCED);
            }
        }
    });
}
