//! Attribution: the segment that failed, from the states of all probe legs over a window of time.
//!
//! One table, used by `t3-probe once`, its overview page and `t3-trace explain`. A leg without data
//! never supports a conclusion.

use super::Way;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// State of a probe leg over the window.
    State {
        /// Up throughout, every echo in time.
        Clean = "clean",
        /// Disconnected, not established, or (a serve) answered with a status other than 200.
        Down = "down",
        /// Answered, but slower than a responsive event loop.
        Slow = "slow",
        /// Not configured, or observed for too short a time.
        Unseen = "unseen",
    }
}

/// A probe leg over the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Value of the label `leg`.
    pub name: String,
    /// Its path.
    pub way: Way,
    /// The worst state of the window.
    pub state: State,
}

vocabulary! {
    /// The segment that failed, as far as the legs can tell.
    Place {
        /// Every leg is clean: the cause is between the user and Cloudflare.
        LastMile = "last_mile",
        /// Cloudflare, the tunnel, or the WAN.
        Cloudflare = "cloudflare",
        /// Traefik, t3-dispatch, or the network between them and the host.
        Edge = "edge",
        /// A serve.
        Serve = "serve",
        /// The host or its network: everything on it failed at the same time.
        Devvm = "devvm",
        /// Several segments at the same time.
        Several = "several",
        /// Only the internal path, which users do not take.
        InternalOnly = "internal_only",
        /// A required leg was not observed.
        Unknown = "unknown",
    }
}

/// Result of the attribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// The segment.
    pub place: Place,
    /// A sentence with the states of the legs.
    pub sentence: String,
}

/// A row: states of the paths (`None`: any), and the result.
type Row = (Option<State>, Option<State>, Option<State>, Place, &'static str);

const CLEAN: Option<State> = Some(State::Clean);
const DOWN: Option<State> = Some(State::Down);
const SLOW: Option<State> = Some(State::Slow);
const UNSEEN: Option<State> = Some(State::Unseen);
const ANY: Option<State> = None;

/// The first matching row decides. Columns: cloudflare, internal, t3serve. Slow counts as down for
/// a WebSocket leg, because dispatch itself sends the echo, without delay.
const TABLE: &[Row] = &[
    (CLEAN, CLEAN, CLEAN, Place::LastMile, "the last mile: between the user and Cloudflare"),
    (DOWN, CLEAN, CLEAN, Place::Cloudflare, "Cloudflare or WAN"),
    (DOWN, CLEAN, UNSEEN, Place::Cloudflare, "Cloudflare or WAN"),
    (DOWN, CLEAN, ANY, Place::Several, "Cloudflare or WAN, and a serve"),
    (DOWN, DOWN, CLEAN, Place::Edge, "Traefik, dispatch or the host's network"),
    (DOWN, DOWN, SLOW, Place::Devvm, "the host: under pressure, or its network is"),
    (DOWN, DOWN, DOWN, Place::Devvm, "the host or its network"),
    (DOWN, DOWN, UNSEEN, Place::Edge, "Traefik, dispatch, or the host and its network"),
    (CLEAN, CLEAN, SLOW, Place::Serve, "serve: event loop stalled"),
    (CLEAN, CLEAN, DOWN, Place::Serve, "serve: no response"),
    (CLEAN, UNSEEN, CLEAN, Place::LastMile, "the last mile: between the user and Cloudflare"),
    (CLEAN, UNSEEN, SLOW, Place::Serve, "serve: event loop stalled"),
    (CLEAN, UNSEEN, DOWN, Place::Serve, "serve: no response"),
    (CLEAN, DOWN, CLEAN, Place::InternalOnly, "only the internal address of Traefik, which users do not use"),
    (
        CLEAN,
        DOWN,
        UNSEEN,
        Place::InternalOnly,
        "only the internal address of Traefik, which users do not use",
    ),
    (CLEAN, DOWN, ANY, Place::Several, "a serve, and the internal address of Traefik"),
    (CLEAN, CLEAN, UNSEEN, Place::Unknown, "not between the client and dispatch; no probe leg to serve"),
    (ANY, ANY, ANY, Place::Unknown, "inconclusive: a required probe leg is not configured"),
];

/// Attributes a failure from the states of `legs`. Total: any set of legs has a result.
#[must_use]
pub fn attribute(legs: &[Leg]) -> Attribution {
    let of = |way| worst(legs.iter().filter(|leg| leg.way == way).map(|leg| leg.state));
    let socket = |way| if of(way) == State::Slow { State::Down } else { of(way) };
    let states = [socket(Way::Cloudflare), socket(Way::Internal), of(Way::Serve)];
    let fits = |row: &&Row| {
        [row.0, row.1, row.2]
            .iter()
            .zip(states)
            .all(|(wanted, have)| wanted.is_none_or(|state| state == have))
    };
    let (place, what) =
        TABLE.iter().find(fits).map_or((Place::Unknown, "inconclusive"), |row| (row.3, row.4));
    let states = legs.iter().map(|leg| format!("{} {}", leg.name, leg.state)).collect::<Vec<_>>().join(", ");
    let states = if states.is_empty() { "no probe leg".to_owned() } else { states };
    Attribution { place, sentence: format!("{states}: {what}") }
}

/// The worst state of several legs of one path; down is worse than slow, and an observed leg counts
/// more than an unseen one.
fn worst(states: impl Iterator<Item = State>) -> State {
    let rank = |state: &State| match state {
        State::Unseen => 0,
        State::Clean => 1,
        State::Slow => 2,
        State::Down => 3,
    };
    states.max_by_key(rank).unwrap_or(State::Unseen)
}

#[cfg(test)]
mod tests {
    use super::{
        State::{Clean, Down, Slow, Unseen},
        *,
    };

    fn legs(states: [State; 3]) -> Vec<Leg> {
        let ways = [Way::Cloudflare, Way::Internal, Way::Serve];
        ways.into_iter().zip(states).map(|(way, state)| Leg { name: way.to_string(), way, state }).collect()
    }

    #[test]
    fn the_states_of_three_legs_give_the_segment() {
        for (states, place) in [
            ([Clean, Clean, Clean], Place::LastMile),
            ([Down, Clean, Clean], Place::Cloudflare),
            ([Slow, Clean, Clean], Place::Cloudflare),
            ([Down, Down, Clean], Place::Edge),
            ([Down, Down, Down], Place::Devvm),
            ([Down, Down, Slow], Place::Devvm),
            ([Clean, Clean, Slow], Place::Serve),
            ([Clean, Clean, Down], Place::Serve),
            ([Down, Clean, Down], Place::Several),
            ([Clean, Down, Clean], Place::InternalOnly),
            ([Unseen, Unseen, Unseen], Place::Unknown),
            ([Unseen, Clean, Clean], Place::Unknown),
            ([Down, Unseen, Clean], Place::Unknown),
            ([Clean, Clean, Unseen], Place::Unknown),
        ] {
            let found = attribute(&legs(states));
            assert_eq!(found.place, place, "{states:?}: {}", found.sentence);
        }
    }

    #[test]
    fn an_unseen_leg_never_clears_a_segment_and_every_set_has_a_result() {
        for cloudflare in State::ALL {
            for internal in State::ALL {
                for serve in State::ALL {
                    let found = attribute(&legs([*cloudflare, *internal, *serve]));
                    assert!(!found.sentence.is_empty());
                    if found.place == Place::LastMile {
                        assert_eq!((*cloudflare, *serve), (Clean, Clean));
                        assert!(matches!(internal, Clean | Unseen));
                    }
                    if found.place == Place::Cloudflare {
                        assert_eq!(
                            *internal, Clean,
                            "without the internal leg the two cannot be distinguished"
                        );
                    }
                }
            }
        }
        assert_eq!(attribute(&[]).place, Place::Unknown);
    }

    #[test]
    fn one_slow_serve_of_several_is_enough() {
        let mut all = legs([Clean, Clean, Clean]);
        all.push(Leg { name: "t3serve:bob".to_owned(), way: Way::Serve, state: Slow });
        let found = attribute(&all);
        assert_eq!(found.place, Place::Serve);
        assert!(found.sentence.contains("t3serve:bob slow"), "{}", found.sentence);
    }
}
