//! Output of the demo: dim lines are its own, plain lines are the output of the programs. A closed
//! pipe is not an error.

use std::{
    io::{IsTerminal, Write, stdout},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Standard output, shared by the threads that read the output of the programs.
#[derive(Debug, Clone)]
pub struct Screen {
    colours: bool,
    shown: Arc<AtomicUsize>,
    /// Output of the programs before [`Self::print_held_lines`].
    held: Arc<Mutex<Option<Vec<String>>>>,
}

impl Screen {
    /// Uses colours when standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn new() -> Self {
        let colours =
            stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours, shown: Arc::default(), held: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    #[must_use]
    pub fn colours(&self) -> bool {
        self.colours
    }

    /// Prints an announcement.
    pub fn dim(&self, text: &str) {
        if self.colours { print(&format!("\x1b[2m· {text}\x1b[0m")) } else { print(&format!("· {text}")) }
    }

    /// Prints a line unchanged.
    pub fn line(&self, text: &str) {
        print(text);
    }

    /// Prints a line of a program, or holds it until [`Self::print_held_lines`].
    pub fn program(&self, text: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(lines) => lines.push(text.to_owned()),
            None => print(text),
        }
        self.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// Prints the held lines; later lines are printed immediately.
    pub fn print_held_lines(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().into_iter().flatten().for_each(|line| print(&line));
    }

    /// Number of lines of the programs so far, including held ones.
    #[must_use]
    pub fn shown(&self) -> usize {
        self.shown.load(Ordering::Relaxed)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
