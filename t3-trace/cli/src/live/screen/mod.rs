//! `t3-trace live` on the whole screen of a terminal. [`model`] is the state, [`keys`] what keys
//! mean, [`view`] what is drawn of it, all pure; [`Screen`] puts them together, and only [`run`]
//! touches the terminal and the clock.

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
use frame_limiter::Pace;
use model::{Effect, Model};
use view::{View, text::Look};

/// The state, and when it is drawn.
pub struct Screen {
    /// The state.
    pub model: Model,
    /// How it looks on this terminal.
    pub look: Look,
    /// The time of day of a moment, as text.
    pub clock: fn(u64) -> String,
    /// Its day.
    pub day: fn(u64) -> String,
    pace: Pace,
}

impl Screen {
    /// A screen that has not been drawn.
    #[must_use]
    pub fn new(model: Model, look: Look, clock: fn(u64) -> String, day: fn(u64) -> String) -> Self {
        let mut pace = Pace::default();
        pace.changed();
        Self { model, look, clock, day, pace }
    }

    /// Takes what was heard; draws nothing.
    pub fn hear(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            self.model.hear(item);
            self.pace.changed();
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64) {
        if self.model.tick(now) {
            self.pace.changed();
        }
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Effect {
        let Some(action) = keys::action(key, &self.model.over) else { return Effect::Nothing };
        self.pace.changed();
        self.model.act(action)
    }

    /// It has to be drawn for another reason.
    pub const fn changed(&mut self) {
        self.pace.changed();
    }

    /// How long until it is to be drawn; `None` while nothing has changed.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.pace.wait(now)
    }

    const fn view(&self) -> View<'_> {
        View { model: &self.model, look: self.look, clock: self.clock, day: self.day }
    }

    /// Draws it if it is time. True when it was drawn.
    ///
    /// # Errors
    /// Of the terminal.
    pub fn draw<B: Backend>(&mut self, terminal: &mut Terminal<B>, now: Duration) -> Result<bool, B::Error> {
        if !self.pace.due(now) {
            return Ok(false);
        }
        terminal.draw(|frame| {
            let area = frame.area();
            let places = view::places(&self.view(), area);
            let pages = view::pages(&places);
            self.model.board.set_page(pages.sessions);
            self.model.closes.set_page(pages.closes);
            let lines = view::over::page(&self.view(), area.width).map_or(0, |(_, lines)| lines.len());
            self.model.set_scroll(pages.over, lines);
            if let Some(cursor) = view::draw(&self.view(), &places, frame.buffer_mut()) {
                frame.set_cursor_position(cursor);
            }
        })?;
        Ok(true)
    }
}
