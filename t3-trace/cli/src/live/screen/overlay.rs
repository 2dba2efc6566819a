//! What lies over the lists of the screen.

use super::closes::Close;

/// What lies over the lists.
#[derive(Debug, Clone, Default)]
pub enum Overlay {
    /// Nothing.
    #[default]
    Nothing,
    /// One close; a copy, so that it stays while others come.
    Detail(Close),
    /// The keys.
    Help,
    /// What was said.
    Messages,
    /// A filter is being typed.
    Prompt {
        /// So far.
        text: String,
        /// What is wrong with it.
        error: Option<String>,
    },
}
