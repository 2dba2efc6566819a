//! Key bindings per overlay, and their table for the help and docs/LIVE.md. Pure.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::overlay::Overlay;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Quit,
    Suspend,
    Redraw,
    Pause,
    Help,
    Messages,
    Back,
    Focus,
    Step(isize),
    Turn(isize),
    First,
    Last,
    Open,
    Neighbour(isize),
    Prompt,
    Type(char),
    Erase,
    EraseWord,
    EraseAll,
    Accept,
    OnlyUser,
    OnlyVerdict,
    OnlySegment,
    ClearFilter,
}

/// Keys and their descriptions, for help and docs.
pub const TABLE: &[(&str, &str)] = &[
    ("Up Down k j", "select a close; scroll"),
    ("PgUp PgDn", "page up, page down"),
    ("Home g", "go to the oldest close"),
    ("End G", "follow the newest"),
    ("Enter", "show evidence of the selected close; filter by the selected session's user"),
    ("Left Right", "in the evidence: previous and next close"),
    ("Esc", "back; clear the selection"),
    ("Tab", "switch between closes and open sessions"),
    ("Space p", "pause the list; counting continues"),
    (
        "/",
        "filter: user:ann verdict:serve_oom segment:serve via:direct port:8080 short:2m TEXT, !TERM negates",
    ),
    ("u v s", "filter by user, verdict or segment of the selection"),
    ("x", "clear filter"),
    ("m", "messages with their times"),
    ("? h", "this help"),
    ("Ctrl-L", "redraw"),
    ("q Ctrl-C", "quit"),
];

/// Returns the action of a key; `None` if it has no function here.
#[must_use]
pub fn action(key: KeyEvent, overlay: &Overlay) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match (control, key.code) {
        (true, KeyCode::Char('c')) => return Some(Action::Quit),
        (true, KeyCode::Char('z')) => return Some(Action::Suspend),
        (true, KeyCode::Char('l')) => return Some(Action::Redraw),
        _ => {}
    }
    if matches!(overlay, Overlay::Prompt { .. }) {
        return typed(key.code, control);
    }
    if control || key.modifiers.contains(KeyModifiers::ALT) {
        return match key.code {
            KeyCode::Char('b') if control => Some(Action::Turn(-1)),
            KeyCode::Char('f') if control => Some(Action::Turn(1)),
            _ => None,
        };
    }
    let in_detail = matches!(overlay, Overlay::Detail(_));
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('m') => Action::Messages,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('/') => Action::Prompt,
        KeyCode::Char('u') => Action::OnlyUser,
        KeyCode::Char('v') => Action::OnlyVerdict,
        KeyCode::Char('s') => Action::OnlySegment,
        KeyCode::Char('x') => Action::ClearFilter,
        KeyCode::Up | KeyCode::Char('k') => Action::Step(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Step(1),
        KeyCode::PageUp => Action::Turn(-1),
        KeyCode::PageDown => Action::Turn(1),
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        KeyCode::Left if in_detail => Action::Neighbour(-1),
        KeyCode::Right if in_detail => Action::Neighbour(1),
        KeyCode::Enter if in_detail => Action::Back,
        KeyCode::Enter if matches!(overlay, Overlay::Nothing) => Action::Open,
        KeyCode::Tab | KeyCode::BackTab if matches!(overlay, Overlay::Nothing) => Action::Focus,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        _ => return None,
    })
}

/// Action of a key while a filter is typed.
const fn typed(code: KeyCode, control: bool) -> Option<Action> {
    Some(match (control, code) {
        (true, KeyCode::Char('u')) => Action::EraseAll,
        (true, KeyCode::Char('w')) => Action::EraseWord,
        (true, KeyCode::Char('h')) | (_, KeyCode::Backspace) => Action::Erase,
        (false, KeyCode::Char(c)) => Action::Type(c),
        (_, KeyCode::Enter) => Action::Accept,
        (_, KeyCode::Esc) => Action::Back,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::screen::{close::Close, testing};

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn control(c: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)
    }

    fn prompt() -> Overlay {
        Overlay::Prompt { text: String::new(), error: None }
    }

    fn detail() -> Overlay {
        Overlay::Detail(Close { seq: 0, at: 0, record: Box::new(testing::killed()), direct: None })
    }

    #[test]
    fn keys_depend_on_the_overlay() {
        let nothing = || Overlay::Nothing;
        for (key, overlay, wanted) in [
            (key(KeyCode::Char('q')), nothing(), Some(Action::Quit)),
            (key(KeyCode::Char('q')), prompt(), Some(Action::Type('q'))),
            (key(KeyCode::Char('q')), Overlay::Help, Some(Action::Quit)),
            (control('c'), nothing(), Some(Action::Quit)),
            (control('c'), prompt(), Some(Action::Quit)),
            (control('z'), nothing(), Some(Action::Suspend)),
            (control('l'), prompt(), Some(Action::Redraw)),
            (key(KeyCode::Up), nothing(), Some(Action::Step(-1))),
            (key(KeyCode::Char('j')), Overlay::Messages, Some(Action::Step(1))),
            (key(KeyCode::PageDown), nothing(), Some(Action::Turn(1))),
            (control('b'), nothing(), Some(Action::Turn(-1))),
            (key(KeyCode::Char('b')), nothing(), None),
            (key(KeyCode::Enter), nothing(), Some(Action::Open)),
            (key(KeyCode::Enter), detail(), Some(Action::Back)),
            (key(KeyCode::Enter), Overlay::Help, None),
            (key(KeyCode::Enter), prompt(), Some(Action::Accept)),
            (key(KeyCode::Left), nothing(), None),
            (key(KeyCode::Left), detail(), Some(Action::Neighbour(-1))),
            (key(KeyCode::Tab), nothing(), Some(Action::Focus)),
            (key(KeyCode::Tab), Overlay::Help, None),
            (key(KeyCode::Esc), prompt(), Some(Action::Back)),
            (key(KeyCode::Backspace), prompt(), Some(Action::Erase)),
            (control('w'), prompt(), Some(Action::EraseWord)),
            (control('u'), prompt(), Some(Action::EraseAll)),
            (control('u'), nothing(), None),
            (key(KeyCode::Char('\u{754c}')), prompt(), Some(Action::Type('\u{754c}'))),
            (key(KeyCode::Char(' ')), nothing(), Some(Action::Pause)),
            (key(KeyCode::F(5)), nothing(), None),
        ] {
            assert_eq!(action(key, &overlay), wanted, "{key:?} {overlay:?}");
        }
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(action(released, &Overlay::Nothing), None);
    }

    #[test]
    fn every_key_of_the_table_is_bound() {
        for (keys, _) in TABLE {
            for name in keys.split(' ') {
                let pressed = match name {
                    "Up" => key(KeyCode::Up),
                    "Down" => key(KeyCode::Down),
                    "PgUp" => key(KeyCode::PageUp),
                    "PgDn" => key(KeyCode::PageDown),
                    "Home" => key(KeyCode::Home),
                    "End" => key(KeyCode::End),
                    "Enter" => key(KeyCode::Enter),
                    "Left" => key(KeyCode::Left),
                    "Right" => key(KeyCode::Right),
                    "Esc" => key(KeyCode::Esc),
                    "Tab" => key(KeyCode::Tab),
                    "Space" => key(KeyCode::Char(' ')),
                    "Ctrl-L" => control('l'),
                    "Ctrl-C" => control('c'),
                    one => key(KeyCode::Char(one.chars().next().unwrap())),
                };
                assert!(
                    action(pressed, &Overlay::Nothing).or(action(pressed, &detail())).is_some(),
                    "{name}"
                );
            }
        }
    }
}
