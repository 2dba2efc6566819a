//! Colours and weights by meaning; without colours the weights suffice.

use ratatui::style::{Color, Modifier, Style};

use super::text::Theme;
use crate::present::verdict_text::Tone;

impl Theme {
    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }

    /// Style of a severity.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Fine => self.coloured(Style::new(), Color::Green),
            Tone::Warning => self.coloured(Style::new(), Color::Yellow),
            Tone::Bad => self.coloured(Style::new().add_modifier(Modifier::BOLD), Color::Red),
        }
    }

    /// Less important text.
    #[must_use]
    pub const fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Headings.
    #[must_use]
    pub const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Selected rows and the first line.
    #[must_use]
    pub const fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
