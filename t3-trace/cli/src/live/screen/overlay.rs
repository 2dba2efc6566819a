//! Overlay over the lists of the screen.

use super::close::Close;

#[derive(Debug, Clone, Default)]
pub enum Overlay {
    #[default]
    Nothing,
    /// Evidence of one close; a copy, so that it stays when the list drops it.
    Detail(Close),
    Help,
    Messages,
    /// Filter input.
    Prompt {
        text: String,
        error: Option<String>,
    },
}
