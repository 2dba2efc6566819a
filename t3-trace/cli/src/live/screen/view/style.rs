//! What colours and weights mean. Without colours the weights alone must do.

use ratatui::style::{Color, Modifier, Style};

use super::text::Theme;
use crate::present::verdict_text::Tone;

impl Theme {
    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }

    /// How good or bad something is.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Fine => self.coloured(Style::new(), Color::Green),
            Tone::Warning => self.coloured(Style::new(), Color::Yellow),
            Tone::Bad => self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Red),
        }
    }

    /// Not worth the eye.
    #[must_use]
    pub const fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A heading.
    #[must_use]
    pub const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What the reader has chosen.
    #[must_use]
    pub const fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
