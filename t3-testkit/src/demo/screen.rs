//! What the operator sees: dim lines say what is done, plain ones are what the programs print. A
//! closed pipe is not an error.

use std::{
    io::{IsTerminal, Write, stdout},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Standard output, shared by the threads that hear the programs.
#[derive(Debug, Clone)]
pub struct Screen {
    colours: bool,
    shown: Arc<AtomicUsize>,
    /// What programs printed before the curtain rose.
    held: Arc<Mutex<Option<Vec<String>>>>,
}

impl Screen {
    /// Colours when standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn new() -> Self {
        let colours =
            stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours, shown: Arc::default(), held: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    /// Whether there are colours.
    #[must_use]
    pub fn colours(&self) -> bool {
        self.colours
    }

    /// Says what is being done.
    pub fn dim(&self, text: &str) {
        if self.colours { print(&format!("\x1b[2m· {text}\x1b[0m")) } else { print(&format!("· {text}")) }
    }

    /// A line as it is.
    pub fn line(&self, text: &str) {
        print(text);
    }

    /// A line that one of the programs printed.
    pub fn program(&self, text: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(lines) => lines.push(text.to_owned()),
            None => print(text),
        }
        self.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// Shows what programs print from now on, and what they have printed.
    pub fn print_held_lines(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().into_iter().flatten().for_each(|line| print(&line));
    }

    /// How many such lines there were.
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
