//! Event loop of full-screen mode: keys, signals and items in, frames out.
//!
//! Reads all pending items before it draws, so that the screen is never behind.

use std::{io, time::Duration};

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use t3_trace_host::clock::realtime_secs;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Screen,
    filter::Filter,
    model::{Effect, Model},
    terminal::TerminalGuard,
    view::text::Theme,
};
use crate::{
    live::{
        args::LiveArgs,
        replay::Replay,
        source::{self, Item, Subscription},
    },
    time::local,
};

/// Items read at a time, so that keys are handled in between.
const BATCH: usize = 256;

/// Runs until the user or a signal ends it.
pub(in crate::live) async fn show(args: &LiveArgs, replay: Option<&Replay>, colour: bool) -> io::Result<()> {
    let mut ends = EndSignals::new()?;
    // Of a replay nothing comes later; its sender keeps the channel open.
    let (_silent, nothing) = tokio::sync::mpsc::channel(1);
    let mut items = match replay {
        None => source::start(&args.socket, Subscription::Everything, args.via.has_direct()),
        Some(_) => nothing,
    };
    let now = || replay.map_or_else(realtime_secs, |replay| replay.at);
    let filter = Filter::of(args.user.as_deref(), args.short);
    let theme = Theme { colour, unicode: unicode() };
    let mut model = Model::new(now(), filter);
    model.via = args.via;
    if let Some(replay) = replay {
        model.replay(replay);
    }
    let mut screen = Screen::new(model, theme, local::clock, local::day);
    let mut guard = TerminalGuard::enter()?;
    let mut keys = EventStream::new();
    let mut received: Vec<Item> = Vec::with_capacity(BATCH);
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let began = Instant::now();
    loop {
        screen.tick(now());
        screen.draw(&mut guard.terminal, began.elapsed())?;
        let frame = screen.wait(began.elapsed());
        let effect = tokio::select! {
            biased;
            () = ends.received() => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) => screen.key(key),
                // Among others a resize; drawing reads the new size.
                Some(Ok(_)) => {
                    screen.changed();
                    Effect::Nothing
                }
                Some(Err(error)) => return Err(error),
                // stdin was closed.
                None => return Ok(()),
            },
            count = items.recv_many(&mut received, BATCH) => {
                if count == 0 {
                    return Ok(());
                }
                screen.receive(received.drain(..));
                Effect::Nothing
            }
            () = tokio::time::sleep(frame.unwrap_or_default()), if frame.is_some() => Effect::Nothing,
            _ = seconds.tick() => Effect::Nothing,
        };
        match effect {
            Effect::Nothing => {}
            Effect::Quit => return Ok(()),
            Effect::Redraw => {
                guard.terminal.clear()?;
                screen.changed();
            }
            Effect::Suspend => {
                guard.suspend()?;
                screen.changed();
            }
        }
    }
}

/// Signals that end the program.
struct EndSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl EndSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Whether the locale uses UTF-8.
fn unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
