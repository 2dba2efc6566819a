//! Between the terminal and the screen: keys and signals in, frames out. What is pending is taken
//! before anything is drawn, so that the screen is never behind, however much comes.

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
        source::{self, Item, Subscription},
    },
    time::local,
};

/// At most so many are taken at once, so that keys get their turn.
const BATCH: usize = 256;

/// Shows closes until the person or a signal ends it.
pub(in crate::live) async fn show(args: &LiveArgs, colour: bool) -> io::Result<()> {
    let mut ends = Ends::new()?;
    let mut items = source::start(&args.socket, Subscription::Everything);
    let filter = Filter::of(args.user.as_deref(), args.short);
    let theme = Theme { colour, unicode: unicode() };
    let model = Model::new(realtime_secs(), filter);
    let mut screen = Screen::new(model, theme, local::clock, local::day);
    let mut taken = TerminalGuard::take()?;
    let mut keys = EventStream::new();
    let mut heard: Vec<Item> = Vec::with_capacity(BATCH);
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let began = Instant::now();
    loop {
        screen.tick(realtime_secs());
        screen.draw(&mut taken.terminal, began.elapsed())?;
        let frame = screen.wait(began.elapsed());
        let effect = tokio::select! {
            biased;
            () = ends.received() => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) => screen.key(key),
                // Among others a new size, which drawing finds out by itself.
                Some(Ok(_)) => {
                    screen.changed();
                    Effect::Nothing
                }
                Some(Err(error)) => return Err(error),
                // Without a keyboard nobody is there.
                None => return Ok(()),
            },
            count = items.recv_many(&mut heard, BATCH) => {
                if count == 0 {
                    return Ok(());
                }
                screen.receive(heard.drain(..));
                Effect::Nothing
            }
            () = tokio::time::sleep(frame.unwrap_or_default()), if frame.is_some() => Effect::Nothing,
            _ = seconds.tick() => Effect::Nothing,
        };
        match effect {
            Effect::Nothing => {}
            Effect::Quit => return Ok(()),
            Effect::Redraw => {
                taken.terminal.clear()?;
                screen.changed();
            }
            Effect::Suspend => {
                taken.suspend()?;
                screen.changed();
            }
        }
    }
}

/// Signals that end it.
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Ends {
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

/// Whether the locale is one of UTF-8.
fn unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
