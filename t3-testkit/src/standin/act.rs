//! What an order does to the whole process: leaving, dying, taking memory, holding the event loop.

use std::{
    hint::black_box,
    io,
    process::{Command, Stdio},
    time::Instant,
};

use super::Order;
use crate::sys;

/// Marks the process as a mere eater of memory; see [`eat_if_asked`].
const HOG: &str = "T3_STANDIN_HOG";

/// Carries out an order that concerns the process.
pub(super) fn at_process(order: &Order) -> io::Result<()> {
    match order {
        Order::Exit(status) => std::process::exit(*status),
        Order::Signal(signal) => sys::die_of(*signal),
        Order::Busy(time) => {
            let end = Instant::now() + *time;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        Order::Alloc(bytes) => {
            // In a thread, as a heap grows under a program that otherwise goes on.
            let bytes = *bytes;
            std::thread::spawn(move || eat(bytes));
        }
        Order::Hog(bytes) => {
            let mut hog = Command::new(std::env::current_exe()?);
            hog.env(HOG, bytes.to_string()).stdin(Stdio::null()).args(["--port", "0"]);
            sys::dies_with_us(&mut hog);
            let mut hog = hog.spawn()?;
            std::thread::spawn(move || hog.wait());
        }
        _ => {}
    }
    Ok(())
}

/// A hog's whole life; returns at once in a process that is none.
pub fn eat_if_asked() {
    if let Some(bytes) = std::env::var(HOG).ok().and_then(|bytes| bytes.parse().ok()) {
        // The kernel should prefer this process to the serve beside it.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        eat(bytes);
    }
}

/// Takes memory, touches every page and keeps it.
fn eat(bytes: usize) {
    const CHUNK: usize = 4 << 20;
    let mut taken = Vec::new();
    while taken.len() * CHUNK < bytes {
        taken.push(vec![1_u8; CHUNK]);
        black_box(&taken);
    }
    loop {
        std::thread::park();
        black_box(&taken);
    }
}
