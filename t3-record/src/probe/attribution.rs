//! What the legs together say about where the path broke, over a window of time. One table, used by
//! `t3-probe once`, by its metrics page and by `t3-trace explain`. It never says more than the legs
//! can know: a leg without data takes its conclusion away.

use super::Way;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// The state of one leg over the window.
    State {
        /// Up all the time, every echo in time.
        Clean = "clean",
        /// It died, could not be established, or (a serve) answered with something else than 200.
        Down = "down",
        /// Answered, but slower than an event loop that turns would.
        Slow = "slow",
        /// Not configured, not observed, or observed for too short a time.
        Unseen = "unseen",
    }
}

/// One leg over the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Its name, as in the label `leg`.
    pub name: String,
    /// Its way.
    pub way: Way,
    /// Its state: the worst of the window.
    pub state: State,
}

vocabulary! {
    /// Where the path broke, as far as the legs can tell.
    Place {
        /// Every leg is clean: what a person lost was lost between them and Cloudflare.
        LastMile = "last_mile",
        /// Cloudflare, its tunnel, or the line to it.
        Cloudflare = "cloudflare",
        /// Traefik, t3-dispatch, or the network between them and the devvm.
        Edge = "edge",
        /// A serve.
        Serve = "serve",
        /// The devvm or its network: everything on it is gone at once.
        Devvm = "devvm",
        /// More than one thing at once.
        Several = "several",
        /// The internal way alone: it is not the one that people use.
        InternalOnly = "internal_only",
        /// The legs that would decide were not observed.
        Unknown = "unknown",
    }
}

/// What the legs say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// Where.
    pub place: Place,
    /// In a sentence, with the legs that say so.
    pub sentence: String,
}

/// A row: states of the ways (`None`: any), and what follows.
type Row = (Option<State>, Option<State>, Option<State>, Place, &'static str);

const CLEAN: Option<State> = Some(State::Clean);
const DOWN: Option<State> = Some(State::Down);
const SLOW: Option<State> = Some(State::Slow);
const UNSEEN: Option<State> = Some(State::Unseen);
const ANY: Option<State> = None;

/// The first row that fits decides. Columns: cloudflare, internal, t3serve. Slow counts as down for
/// a WebSocket leg, because its echo is dispatch's own and takes no time.
const TABLE: &[Row] = &[
    (CLEAN, CLEAN, CLEAN, Place::LastMile, "the last mile: between the person and Cloudflare"),
    (DOWN, CLEAN, CLEAN, Place::Cloudflare, "Cloudflare or WAN"),
    (DOWN, CLEAN, UNSEEN, Place::Cloudflare, "Cloudflare or WAN"),
    (DOWN, CLEAN, ANY, Place::Several, "Cloudflare or WAN, and a serve besides"),
    (DOWN, DOWN, CLEAN, Place::Edge, "Traefik, dispatch or the devvm's network"),
    (DOWN, DOWN, SLOW, Place::Devvm, "the devvm: it starves, or its network does"),
    (DOWN, DOWN, DOWN, Place::Devvm, "the devvm or its network"),
    (DOWN, DOWN, UNSEEN, Place::Edge, "Traefik, dispatch, or the devvm and its network"),
    (CLEAN, CLEAN, SLOW, Place::Serve, "serve: its event loop stalls"),
    (CLEAN, CLEAN, DOWN, Place::Serve, "serve: it does not answer"),
    (CLEAN, UNSEEN, CLEAN, Place::LastMile, "the last mile: between the person and Cloudflare"),
    (CLEAN, UNSEEN, SLOW, Place::Serve, "serve: its event loop stalls"),
    (CLEAN, UNSEEN, DOWN, Place::Serve, "serve: it does not answer"),
    (CLEAN, DOWN, CLEAN, Place::InternalOnly, "the internal address of Traefik, which people do not use"),
    (CLEAN, DOWN, UNSEEN, Place::InternalOnly, "the internal address of Traefik, which people do not use"),
    (CLEAN, DOWN, ANY, Place::Several, "a serve, and the internal address of Traefik besides"),
    (CLEAN, CLEAN, UNSEEN, Place::Unknown, "not in front of dispatch; serve was not observed"),
    (ANY, ANY, ANY, Place::Unknown, "not known: a leg that would decide was not observed"),
];

/// What `legs` say together. Total: any set of legs has an answer.
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
    let (place, what) = TABLE.iter().find(fits).map_or((Place::Unknown, "not known"), |row| (row.3, row.4));
    let states = legs.iter().map(|leg| format!("{} {}", leg.name, leg.state)).collect::<Vec<_>>().join(", ");
    let states = if states.is_empty() { "no leg was observed".to_owned() } else { states };
    Attribution { place, sentence: format!("{states}: {what}") }
}

/// The worst state of several legs of one way: a serve that is down counts more than one that is
/// slow, and a leg that was seen more than one that was not.
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
    fn what_the_three_legs_say() {
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
    fn nothing_unseen_ever_exonerates_and_every_set_has_an_answer() {
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
                            "without the internal leg nobody can tell the two apart"
                        );
                    }
                }
            }
        }
        assert_eq!(attribute(&[]).place, Place::Unknown);
    }

    #[test]
    fn one_serve_of_several_is_enough() {
        let mut all = legs([Clean, Clean, Clean]);
        all.push(Leg { name: "t3serve:bob".to_owned(), way: Way::Serve, state: Slow });
        let found = attribute(&all);
        assert_eq!(found.place, Place::Serve);
        assert!(found.sentence.contains("t3serve:bob slow"), "{}", found.sentence);
    }
}
