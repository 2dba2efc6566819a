//! `t3-trace explain`: one page about one close.
//!
//! Conclusion, confidence, timeline, checks and next steps. The conclusion is that of the record;
//! a page that contradicts its verdict is a bug. Only this file and [`journal`] do IO; the other
//! modules are pure.

pub mod args;
pub mod changes;
pub mod checked;
pub mod direct;
pub mod facts;
pub mod find;
pub mod journal;
pub mod next;
mod outgoing;
pub mod page;
pub mod pattern;
pub mod timeline;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use t3_trace_host::journal_trust::{DISPATCH_USER, Trust};

use crate::{
    closes::changes::dpkg,
    journal::{Completeness, access, warnings::Warnings},
    layers,
    present::{
        json,
        text::{self, safe},
        units,
    },
    store::{self, Store},
    time::local,
};
use args::ExplainArgs;
pub use facts::ExplainInput;
use find::{Choice, Selector};
use journal::{Candidates, FoundDirect, Journal};
pub use page::Page;

/// Shortest time before the close for which the layers are queried, in milliseconds.
const BEFORE: i64 = 60_000;

/// Time before the close for which package changes are read, in milliseconds: a service may be
/// restarted some time after its libraries have changed.
const PACKAGES: i64 = 3_600_000;

/// Explains the close that the options select.
///
/// # Errors
/// The close is not found in a journal that was read completely, the journal cannot be read, or
/// writing fails, except with EPIPE.
pub fn run(args: &ExplainArgs) -> anyhow::Result<Completeness> {
    let store = store::open(&args.store, &args.place, &args.layers.server)?;
    let mut stdout = io::stdout().lock();
    explain(args, &*store, Trust::in_user(DISPATCH_USER), &mut stdout)
}

/// As [`run`], with the entries of a store.
///
/// # Errors
/// As [`run`].
pub fn explain(
    args: &ExplainArgs,
    store: &dyn Store,
    trust: Trust,
    out: &mut dyn Write,
) -> anyhow::Result<Completeness> {
    let selector = args.selector();
    let journal = Journal::new(args, store, trust);
    let searched = || format!("cannot search {}", store.name());
    let mut found = journal.find(&selector).with_context(searched)?;
    let closes = std::mem::take(&mut found.closes);
    let choice = find::choose(&selector, closes);
    // An id that was found is the only close with it.
    let is_unique = choice.is_some() && matches!(selector, Selector::Conn(_));
    let silent =
        if is_unique { Warnings::default() } else { journal.silent(&selector).with_context(searched)? };
    let Some(Choice { close, near }) = choice else {
        if let Selector::Conn(conn) = &selector
            && let Some(found) = journal.find_direct(conn).with_context(searched)?
        {
            let written = show_direct(args, &found, out);
            let warnings = journal.warnings();
            warnings.print("the record may not be the last");
            return match written {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(error).context("cannot write to stdout")
                }
                _ => Ok(Completeness::of(&warnings)),
            };
        }
        let own = store.is_here();
        let mut error = not_found(&selector, &found, own.then(access::closed).flatten().as_deref());
        if store.needs_start() {
            error.push_str("; a record arrives in Loki some seconds after the close");
            if args.since.is_none() {
                error.push_str("; only the last 30 days were searched: --since for more");
            }
        }
        let mut warnings = journal.warnings();
        warnings.merge(silent);
        if warnings.is_empty() {
            anyhow::bail!("{error}");
        }
        warnings.print("the close may be missing");
        let _ = writeln!(io::stderr(), "t3-trace: {error}");
        return Ok(Completeness::Incomplete);
    };
    silent.print("another close may be the one that you mean");
    let mut facts = journal
        .around(close, now_ms())
        .with_context(|| format!("cannot read {} around the close", store.name()))?;
    let mut warnings = journal.warnings();
    warnings.print("facts may be missing");
    if let Some(around) = &mut facts.around {
        around.incomplete = !warnings.is_empty();
    }
    warnings.merge(silent);
    if store.is_here() {
        let range = (facts.zero_ms().saturating_sub(PACKAGES), facts.at_ms.saturating_add(BEFORE));
        match dpkg::read(Path::new(dpkg::LOG), range, |_| true) {
            Ok(packages) => {
                let timed = packages.into_iter().map(|(at_ms, what)| facts::Timed { at_ms, what });
                facts.packages = timed.collect();
            }
            Err(error) => {
                let log = dpkg::LOG;
                let _ = writeln!(
                    io::stderr(),
                    "t3-trace: cannot read {log}: {error}; package changes are not shown"
                );
            }
        }
    }
    let ended = facts.ended();
    let mut window = layers::Window::around(&ended);
    // The record is written after the close, up to a minute later when a client waits for the
    // reply to its Close frame.
    window.from_ms = window.from_ms.min(facts.zero_ms().saturating_sub(BEFORE));
    let gathered =
        layers::gather_blocking(&args.layers, &ended, window).context("cannot start the tokio runtime")?;
    facts.gathered = gathered;
    facts.has_own_zone = local::is_chosen();
    facts.here = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    if let Some(around) = &facts.around {
        let neighbours = around.closes.iter().map(|close| (close.what.clone(), close.at_ms));
        facts.gathered.layers.neighbours = neighbours.collect();
    }
    let page = Page::of(&facts, &near, wall);
    match show(args, &page, out) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(Completeness::of(&warnings)),
    }
}

fn show_direct(args: &ExplainArgs, found: &FoundDirect, out: &mut dyn Write) -> io::Result<()> {
    if args.json {
        let line = json::direct_line(&found.record, found.host.as_deref(), found.micros)?;
        return writeln!(out, "{line}");
    }
    let (paint, at) = (args.common.paint(args.plain), wall(found.micros / 1_000_000));
    let width = text::width().unwrap_or(page::WIDTH);
    out.write_all(direct::page(&found.record, found.host.as_deref(), &at, paint, width).as_bytes())?;
    out.flush()
}

fn show(args: &ExplainArgs, page: &Page, mut out: &mut dyn Write) -> io::Result<()> {
    if args.json {
        serde_json::to_writer(&mut out, page).map_err(io::Error::from)?;
        return writeln!(out);
    }
    let paint = args.common.paint(args.plain);
    out.write_all(page.text(paint, text::width().unwrap_or(page::WIDTH), wall).as_bytes())?;
    out.flush()
}

/// Returns the error text for a missing close, with hints. `closed` is a journal that this user
/// may not read.
fn not_found(selector: &Selector, found: &Candidates, closed: Option<&Path>) -> String {
    let mut text = match selector {
        Selector::Conn(conn) => format!(
            "no close of session {:?} in this journal; `t3-trace closes --json` lists the ids (key conn); an open session (`t3-trace live`) has \
             no record yet",
            safe(conn)
        ),
        Selector::Nearby { user, at } => format!(
            "no close of {} within {} minutes of {}; `t3-trace closes --user {}` lists the user's closes. An open session has no record yet; a \
             WebSocket that did not reach this host has none: check Traefik and Cloudflare",
            safe(user),
            find::NEAR / 60,
            wall(at.secs),
            safe(user)
        ),
        Selector::Last { user: Some(user) } => {
            format!("no close of {} in this journal; `t3-trace closes` lists all users' closes", safe(user))
        }
        Selector::Last { user: None } => {
            "no close in this journal; `journalctl --list-boots` shows its range".to_owned()
        }
    };
    if found.foreign > 0 {
        text.push_str(&format!(
            "; ignored {} not written by t3-dispatch, t3-trace or root",
            units::count(found.foreign, "such record")
        ));
    }
    if let Some(path) = closed {
        let path = safe(&path.display().to_string());
        text.push_str(&format!("; no permission to read {path}: join the group systemd-journal"));
    }
    if found.broken > 0 {
        text.push_str(&format!("; {} cannot be read", units::count(found.broken, "record")));
    }
    text
}

fn wall(secs: u64) -> String {
    format!("{} {}", local::day(secs), local::clock(secs))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
