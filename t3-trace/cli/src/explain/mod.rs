//! `t3-trace explain`: one close on one page. What happened, how sure that is, everything known
//! around it, what was clean, what could not be looked at, what to do. Every answer is the
//! record's: nothing here judges anew, and a page that says something else than its verdict is a
//! bug. Only this file and [`journal`] do IO; the others are pure.

pub mod args;
pub mod checked;
pub mod facts;
pub mod find;
pub mod journal;
pub mod next;
pub mod page;
pub mod timeline;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use t3_trace_host::journal_trust::{DISPATCH_USER, Trust};

use crate::{
    journal::access,
    layers,
    present::{
        text::{self, Paint, safe},
        units,
    },
    time::local,
};
use args::ExplainArgs;
pub use facts::ExplainInput;
use find::{Choice, Selector};
use journal::{Found, Journal};
pub use page::Page;

/// The other layers are asked for this long before the close at least, in milliseconds.
const BEFORE: i64 = 60_000;

/// Explains the close that the options mean.
///
/// # Errors
/// There is no such close, the journal cannot be read, or the output fails for another reason than
/// a reader that has gone.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let ask = args.ask();
    let journal = Journal { args, trust: Trust::in_user(DISPATCH_USER) };
    let mut found = journal.find(&ask).context("look for the close")?;
    let closes = std::mem::take(&mut found.closes);
    let Some(Choice { close, near }) = find::choose(&ask, closes) else {
        let own = args.place.is_here();
        anyhow::bail!("{}", not_found(&ask, &found, own.then(access::closed).flatten().as_deref()));
    };
    let mut facts = journal.around(close, now_ms()).context("read what was around the close")?;
    let ended = facts.ended();
    let mut window = layers::Window::around(&ended);
    // The close lies before its record: a minute, where a browser waited for the answer to its
    // Close.
    window.from_ms = window.from_ms.min(facts.zero_ms().saturating_sub(BEFORE));
    let gathered =
        layers::gather_blocking(&args.layers, &ended, window).context("start asking the other layers")?;
    facts.gathered = gathered;
    if let Some(around) = &facts.around {
        let neighbours = around.closes.iter().map(|close| (close.what.clone(), close.at_ms));
        facts.gathered.layers.neighbours = neighbours.collect();
    }
    let page = Page::of(&facts, &near, wall);
    match show(args, &page) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write the page"),
    }
}

fn show(args: &ExplainArgs, page: &Page) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, page).map_err(io::Error::from)?;
        return writeln!(stdout);
    }
    let no_colour = args.plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let paint = Paint { colour: stdout.is_terminal() && !no_colour };
    stdout.write_all(page.text(paint, text::width().unwrap_or(page::WIDTH), wall).as_bytes())?;
    stdout.flush()
}

/// What was not found, and where to look instead. `closed` is a journal that this user may not
/// read.
fn not_found(ask: &Selector, found: &Found, closed: Option<&Path>) -> String {
    let mut said = match ask {
        Selector::Conn(conn) => format!(
            "no close of a session {:?} in this journal; `t3-trace closes --json` shows the ids behind conn, and a session that is still open \
             (`t3-trace live`) has no record yet",
            safe(conn)
        ),
        Selector::Nearby { user, at } => format!(
            "no close of {} within {} minutes of {}; `t3-trace closes --user {}` shows when there were some. A WebSocket that is still open has no \
             record yet, and one that never came this far has none at all: then look at Traefik and Cloudflare",
            safe(user),
            find::NEAR / 60,
            wall(at.secs),
            safe(user)
        ),
        Selector::Last { user: Some(user) } => {
            format!("no close of {} in this journal; `t3-trace closes` shows whose there are", safe(user))
        }
        Selector::Last { user: None } => {
            "no close in this journal; `journalctl --list-boots` shows how far it goes back".to_owned()
        }
    };
    if found.foreign > 0 {
        said.push_str(&format!(
            "; left out {} that others than t3-dispatch, t3-trace and root wrote into the journal",
            units::count(found.foreign, "such record")
        ));
    }
    if let Some(path) = closed {
        let path = safe(&path.display().to_string());
        said.push_str(&format!("; this user may not read {path}: join the group systemd-journal"));
    }
    if found.broken > 0 {
        said.push_str(&format!("; {} could not be read", units::count(found.broken, "record")));
    }
    said
}

fn wall(secs: u64) -> String {
    format!("{} {}", local::day(secs), local::clock(secs))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
