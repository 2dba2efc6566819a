//! Full-screen mode of `t3-trace live`.
//!
//! [`model`] (state), [`keys`] (actions) and [`view`] (drawing) are pure; [`Screen`] combines them.
//! Only [`run`] uses the terminal and the clock.

pub mod close;
pub mod closes;
pub mod evidence;
pub mod filter;
pub mod frame_limiter;
pub mod keys;
pub mod link;
pub mod model;
pub mod overlay;
pub(super) mod run;
pub mod sessions;
mod terminal;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod view;

use std::time::Duration;

use crossterm::event::KeyEvent;
use ratatui::{Terminal, backend::Backend};

use super::source::Item;
use frame_limiter::FrameLimiter;
use model::{Effect, Model};
use view::{View, text::Theme};

/// The state and its drawing schedule.
pub struct Screen {
    pub model: Model,
    pub theme: Theme,
    /// Formats the time of day of a moment.
    pub clock: fn(u64) -> String,
    /// Formats its date.
    pub day: fn(u64) -> String,
    limiter: FrameLimiter,
}

impl Screen {
    #[must_use]
    pub fn new(model: Model, theme: Theme, clock: fn(u64) -> String, day: fn(u64) -> String) -> Self {
        let mut limiter = FrameLimiter::default();
        limiter.changed();
        Self { model, theme, clock, day, limiter }
    }

    /// Updates the state; draws nothing.
    pub fn receive(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            self.model.receive(item);
            self.limiter.changed();
        }
    }

    pub fn tick(&mut self, now: u64) {
        if self.model.tick(now) {
            self.limiter.changed();
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> Effect {
        let Some(action) = keys::action(key, &self.model.overlay) else { return Effect::Nothing };
        self.limiter.changed();
        self.model.act(action)
    }

    /// Schedules a redraw.
    pub const fn changed(&mut self) {
        self.limiter.changed();
    }

    /// Time until the next frame; `None` while nothing has changed.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.limiter.wait(now)
    }

    const fn view(&self) -> View<'_> {
        View { model: &self.model, theme: self.theme, clock: self.clock, day: self.day }
    }

    /// Draws a frame if one is due; returns whether it did.
    ///
    /// # Errors
    /// The terminal fails.
    pub fn draw<B: Backend>(&mut self, terminal: &mut Terminal<B>, now: Duration) -> Result<bool, B::Error> {
        if !self.limiter.due(now) {
            return Ok(false);
        }
        terminal.draw(|frame| {
            let area = frame.area();
            let places = view::places(&self.view(), area);
            let pages = view::pages(&places);
            self.model.sessions.set_page(pages.sessions);
            self.model.closes.set_page(pages.closes);
            let lines = view::overlay::page(&self.view(), area.width).map_or(0, |(_, lines)| lines.len());
            self.model.set_scroll(pages.overlay, lines);
            if let Some(cursor) = view::draw(&self.view(), &places, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(true)
    }
}
