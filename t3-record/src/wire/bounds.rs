//! Bounds of the texts and lists in messages to t3-trace, which keeps them per session: a
//! dispatch that was taken over must not fill its memory.

use super::{ToTrace, live};
use crate::evidence::{MAX_SPANS, RelayFacts};

/// Longest session id, address and `Cf-Ray`, in bytes.
pub const MOST_ID: usize = 64;
/// Longest user name, in bytes (`LOGIN_NAME_MAX`).
const USER: usize = 256;
/// Longest reason of a Close frame: 123 bytes, each replaced by up to three (RFC 6455 section 5.5).
const REASON: usize = 369;
/// Longest list of extensions, in bytes.
const EXTENSIONS: usize = 4096;
/// Most samples of a socket.
const SAMPLES: usize = 16;
/// Most ports in a list.
const PORTS: usize = 65_536;

/// A session id is too long. It cannot be cut: another session may begin with the same text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("conn: expected up to {MOST_ID} bytes, got {0}")]
pub struct TooLong(pub usize);

impl ToTrace {
    /// Cuts all texts and lists that t3-trace keeps. Some come from clients and serves, so that a
    /// long one must not end the connection of dispatch.
    ///
    /// # Errors
    /// [`TooLong`] for a session id, which dispatch makes itself.
    pub fn bound(&mut self) -> Result<(), TooLong> {
        match self {
            Self::Watch { listen, serve, users } => {
                listen.truncate(PORTS);
                serve.truncate(PORTS);
                users.truncate(PORTS);
                // Not cut: it would be another user.
                users.retain(|of| of.user.len() <= USER);
                Ok(())
            }
            Self::Register(session) => {
                cut(&mut session.user, USER);
                cut(&mut session.ip, MOST_ID);
                session.ray.iter_mut().for_each(|ray| cut(ray, MOST_ID));
                id(&session.conn)
            }
            Self::Ending { conn, facts } => {
                relay(facts);
                id(conn)
            }
            // Not cut: a session that is left out would get a second record.
            Self::PickedUp { ended } => ended.iter().try_for_each(|conn| id(conn)),
            Self::Ask { conn } | Self::Done { conn, .. } => id(conn),
            Self::Pulses { pulses } => {
                pulses.truncate(live::MOST_PULSES);
                pulses.iter().try_for_each(|pulse| id(&pulse.conn))
            }
            Self::Hello { .. } | Self::Opened { .. } | Self::Status | Self::Sessions | Self::Reconcile => {
                Ok(())
            }
        }
    }
}

fn id(conn: &str) -> Result<(), TooLong> {
    if conn.len() > MOST_ID { Err(TooLong(conn.len())) } else { Ok(()) }
}

fn relay(facts: &mut RelayFacts) {
    facts.samples.truncate(SAMPLES);
    facts.delays.truncate(MAX_SPANS);
    facts.pauses.truncate(MAX_SPANS);
    if let Some(names) = &mut facts.extensions
        && names.len() > EXTENSIONS
    {
        *names = names[..names.floor_char_boundary(EXTENSIONS)].into();
    }
    for leg in [&mut facts.down, &mut facts.up] {
        leg.close_frame.iter_mut().for_each(|frame| cut(&mut frame.reason, REASON));
    }
}

/// Cuts a text, and gives its memory back.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{CloseFrame, Span},
        wire::{MAX_MESSAGE, MOST_ENDED, Session},
    };

    #[test]
    fn a_full_list_of_ended_sessions_fits_and_is_not_cut() {
        let mut picked_up = ToTrace::PickedUp { ended: vec!["x".repeat(MOST_ID); MOST_ENDED] };
        assert!(serde_json::to_vec(&picked_up).unwrap().len() <= MAX_MESSAGE);
        assert_eq!(picked_up.bound(), Ok(()));
        let ToTrace::PickedUp { mut ended } = picked_up else { unreachable!() };
        assert_eq!(ended.len(), MOST_ENDED);
        ended.push("x".repeat(MOST_ID + 1));
        assert_eq!(ToTrace::PickedUp { ended }.bound(), Err(TooLong(MOST_ID + 1)));
    }

    #[test]
    fn each_kept_text_and_list_has_a_limit() {
        let long = "x".repeat(300);
        let mut register = ToTrace::Register(Box::new(Session {
            conn: "a".to_owned(),
            user: long.clone(),
            ip: long.clone(),
            ray: Some(long.clone()),
            opened_at: None,
            down: None,
            up: None,
            serve_port: 3773,
            kept: false,
            resumed: 0,
        }));
        assert_eq!(register.bound(), Ok(()));
        let ToTrace::Register(session) = register else { unreachable!() };
        let lengths = (session.user.len(), session.ip.len(), session.ray.map_or(0, |ray| ray.len()));
        assert_eq!(lengths, (USER, MOST_ID, MOST_ID));
        assert_eq!(ToTrace::Ask { conn: long }.bound(), Err(TooLong(300)));
        let mut facts = RelayFacts { delays: vec![Span::default(); 1_000], ..RelayFacts::default() };
        let reason = "\u{fffd}".repeat(123);
        facts.up.close_frame = Some(CloseFrame { code: None, reason: reason.clone(), at: 1 });
        facts.down.close_frame = Some(CloseFrame { code: None, reason: format!("{reason}x"), at: 1 });
        facts.extensions = Some("\u{5d0}".repeat(5_000).into());
        let mut ending = ToTrace::Ending { conn: "a".to_owned(), facts: Box::new(facts) };
        assert_eq!(ending.bound(), Ok(()));
        let ToTrace::Ending { facts, .. } = ending else { unreachable!() };
        assert_eq!(facts.delays.len(), MAX_SPANS);
        let reasons = [&facts.up, &facts.down].map(|leg| leg.close_frame.as_ref().map(|frame| &frame.reason));
        assert_eq!(reasons, [Some(&reason); 2]);
        assert_eq!(facts.extensions.map(|names| names.len()), Some(EXTENSIONS));
    }
}
