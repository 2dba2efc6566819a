//! Attribution: the segment that failed, from the states of all probe legs over a window of time.
//!
//! One table, used by `t3-probe once`, its overview page and `t3-trace explain`. A leg without data
//! never supports a conclusion.

use std::{fmt, time::Duration};

use super::{Phase, Reason, Way};
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

/// Why a leg is not clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegFault {
    /// It disconnected or was not established.
    Failed {
        /// Cause.
        reason: Reason,
        /// Phase that it had reached.
        phase: Phase,
        /// Error text, one line; can be empty.
        detail: String,
    },
    /// It answered after this time.
    Slow(Duration),
}

impl fmt::Display for LegFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { reason, phase, detail } if detail.is_empty() => write!(f, "{reason} in {phase}"),
            Self::Failed { reason, phase, detail } => write!(f, "{reason} in {phase}: {detail}"),
            Self::Slow(answer) => write!(f, "answered after {:.1} s", answer.as_secs_f64()),
        }
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
    /// Cause of that state, if known.
    pub fault: Option<LegFault>,
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

/// Result of the attribution. Its text is the sentence and, on a second line, the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    /// The segment.
    pub place: Place,
    /// A sentence with the segment, and the states of the legs with their causes.
    pub sentence: String,
    /// Next step of the operator.
    pub next: String,
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nNext: {}", self.sentence, self.next)
    }
}

/// A row: states of the paths (`None`: any), the result, and its first words.
type Row = (Option<State>, Option<State>, Option<State>, Place, &'static str);

const CLEAN: Option<State> = Some(State::Clean);
const DOWN: Option<State> = Some(State::Down);
const SLOW: Option<State> = Some(State::Slow);
const UNSEEN: Option<State> = Some(State::Unseen);
const ANY: Option<State> = None;

const LAST_MILE: &str = "The last mile, between the user and Cloudflare, if a user was disconnected";
const INTERNAL_ONLY: &str = "Only the internal address of Traefik, which users do not use";

/// The first matching row decides. Columns: cloudflare, internal, t3serve. Slow counts as down for
/// a WebSocket leg, because dispatch itself sends the answers, without delay.
const TABLE: &[Row] = &[
    (CLEAN, CLEAN, CLEAN, Place::LastMile, LAST_MILE),
    (DOWN, CLEAN, CLEAN, Place::Cloudflare, "Cloudflare or WAN"),
    (DOWN, CLEAN, UNSEEN, Place::Cloudflare, "Cloudflare or WAN"),
    (DOWN, CLEAN, ANY, Place::Several, "Cloudflare or WAN, and a serve"),
    (DOWN, DOWN, CLEAN, Place::Edge, "Traefik, t3-dispatch or the network of the host"),
    (DOWN, DOWN, SLOW, Place::Devvm, "The host, under pressure or with a slow network"),
    (DOWN, DOWN, DOWN, Place::Devvm, "The host or its network"),
    (DOWN, DOWN, UNSEEN, Place::Edge, "Traefik, t3-dispatch, or the host and its network"),
    (CLEAN, CLEAN, SLOW, Place::Serve, "A serve with a slow event loop"),
    (CLEAN, CLEAN, DOWN, Place::Serve, "A serve"),
    (CLEAN, UNSEEN, CLEAN, Place::LastMile, LAST_MILE),
    (CLEAN, UNSEEN, SLOW, Place::Serve, "A serve with a slow event loop"),
    (CLEAN, UNSEEN, DOWN, Place::Serve, "A serve"),
    (CLEAN, DOWN, CLEAN, Place::InternalOnly, INTERNAL_ONLY),
    (CLEAN, DOWN, UNSEEN, Place::InternalOnly, INTERNAL_ONLY),
    (CLEAN, DOWN, ANY, Place::Several, "A serve, and the internal address of Traefik"),
    (CLEAN, CLEAN, UNSEEN, Place::Unknown, "Inconclusive, but the path up to t3-dispatch is clean"),
    (ANY, ANY, ANY, Place::Unknown, "Inconclusive"),
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
    let (place, segment) =
        TABLE.iter().find(fits).map_or((Place::Unknown, "Inconclusive"), |row| (row.3, row.4));
    let has = |way: &Way| legs.iter().any(|leg| leg.way == *way);
    let missing: Vec<Way> = Way::ALL.iter().filter(|way| !has(way)).copied().collect();
    let mut clauses = clauses(legs);
    if place == Place::Unknown && !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
        clauses.push(format!("no leg {} is observed", list(&names, "or")));
    }
    let sentence = format!("{segment}: {}.", clauses.join(", "));
    Attribution { place, sentence, next: next_step(place, legs, &missing) }
}

/// States of the legs, the worst first, as clauses of a sentence.
fn clauses(legs: &[Leg]) -> Vec<String> {
    let clause = |state: State, adjective: &str| {
        let found: Vec<&Leg> = legs.iter().filter(|leg| leg.state == state).collect();
        let named = |leg: &&Leg| match &leg.fault {
            Some(fault) if found.len() > 1 => format!("{} ({fault})", leg.name),
            _ => leg.name.clone(),
        };
        let names = list(&found.iter().map(named).collect::<Vec<_>>(), "and");
        let verb = if found.len() == 1 { "is" } else { "are" };
        match found.as_slice() {
            [] => None,
            _ if state == State::Clean => Some(format!("{names} {verb} {adjective}")),
            [Leg { fault: Some(fault), .. }] => Some(format!("the leg {names} is {adjective} ({fault})")),
            [_] => Some(format!("the leg {names} is {adjective}")),
            _ => Some(format!("the legs {names} are {adjective}")),
        }
    };
    [
        clause(State::Down, "down"),
        clause(State::Slow, "slow"),
        clause(State::Unseen, "not observed"),
        clause(State::Clean, "clean"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `a, b and c`.
fn list(items: &[String], conjunction: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

/// Next step of the operator.
fn next_step(place: Place, legs: &[Leg], missing: &[Way]) -> String {
    let failures = |ways: &'static [Way]| {
        legs.iter().filter(|leg| ways.contains(&leg.way)).filter_map(|leg| match &leg.fault {
            Some(LegFault::Failed { reason, phase, .. }) => Some((*reason, *phase)),
            _ => None,
        })
    };
    let is_answer = |status: u16| {
        failures(&[Way::Cloudflare, Way::Internal]).any(|(reason, _)| reason == Reason::Http(status))
    };
    let is_name_lookup = || failures(&[Way::Cloudflare]).all(|(_, phase)| phase == Phase::Dns);
    if is_answer(401) {
        return "give t3-probe the token that t3-dispatch requires (--token-file, --probe-token-file)."
            .to_owned();
    }
    if is_answer(429) {
        return "see --max-probes-per-address and --max-probes of t3-dispatch: no place is free for the probe."
            .to_owned();
    }
    let step = match place {
        Place::LastMile => {
            "`t3-trace closes --user NAME` on the host shows how the session of the user ended."
        }
        Place::Cloudflare if failures(&[Way::Cloudflare]).next().is_some() && is_name_lookup() => {
            "check the WAN, then the public DNS record of the host name."
        }
        Place::Cloudflare => "check the WAN and cloudflared, then the status page of Cloudflare.",
        Place::Edge => "check Traefik, then `systemctl status t3-dispatch` on the host.",
        Place::Serve => "`systemctl status` of the serve and `t3-trace live` on the host.",
        Place::Devvm => "check that the host is reachable; `t3-trace live` on it shows its pressure.",
        Place::Several => "check the serve on the host first, then the other leg.",
        Place::InternalOnly => "check the internal address of Traefik; users are not affected.",
        Place::Unknown if missing.is_empty() => "repeat when every leg has been tried.",
        Place::Unknown => {
            let option = |way: &Way| match way {
                Way::Cloudflare => "--host".to_owned(),
                Way::Internal => "--internal".to_owned(),
                Way::Serve => "--serve".to_owned(),
            };
            let options = list(&missing.iter().map(option).collect::<Vec<_>>(), "and");
            return format!("configure the missing legs of t3-probe ({options}).");
        }
    };
    step.to_owned()
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
        let leg = |(way, state): (Way, State)| Leg { name: way.to_string(), way, state, fault: None };
        ways.into_iter().zip(states).map(leg).collect()
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
                    assert!(found.sentence.ends_with('.') && found.next.ends_with('.'), "{found}");
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
        all.push(Leg { name: "t3serve:bob".to_owned(), way: Way::Serve, state: Slow, fault: None });
        let found = attribute(&all);
        assert_eq!(found.place, Place::Serve);
        assert_eq!(
            found.sentence,
            "A serve with a slow event loop: the leg t3serve:bob is slow, cloudflare, internal and t3serve are clean."
        );
    }

    fn failed(reason: Reason, phase: Phase, detail: &str) -> Option<LegFault> {
        Some(LegFault::Failed { reason, phase, detail: detail.to_owned() })
    }

    #[test]
    fn the_sentence_has_segment_states_causes_and_the_text_a_next_step() {
        let mut all = legs([Down, Clean, Clean]);
        all[0].fault = failed(Reason::ConnectFailed, Phase::Dns, "no A record for t3 (DNS status 3)");
        assert_eq!(
            attribute(&all).to_string(),
            "Cloudflare or WAN: the leg cloudflare is down (connect_failed in dns: no A record for t3 \
             (DNS status 3)), internal and t3serve are clean.\n\
             Next: check the WAN, then the public DNS record of the host name."
        );
        let mut all = legs([Down, Down, Slow]);
        all[0].fault = failed(Reason::Http(502), Phase::Upgrade, "");
        all[1].fault = failed(Reason::PongTimeout, Phase::Echo, "no Pong within 5 s");
        all[2].fault = Some(LegFault::Slow(Duration::from_millis(1_420)));
        assert_eq!(
            attribute(&all).sentence,
            "The host, under pressure or with a slow network: the legs cloudflare (http_502 in upgrade) and \
             internal (pong_timeout in echo: no Pong within 5 s) are down, the leg t3serve is slow \
             (answered after 1.4 s)."
        );
        let all = legs([Clean, Clean, Clean]);
        assert_eq!(
            attribute(&all).sentence,
            format!("{LAST_MILE}: cloudflare, internal and t3serve are clean.")
        );
    }

    #[test]
    fn a_missing_leg_and_its_option_are_named() {
        let all = &legs([Clean, Clean, Down])[2..];
        assert_eq!(
            attribute(all).to_string(),
            "Inconclusive: the leg t3serve is down, no leg cloudflare or internal is observed.\n\
             Next: configure the missing legs of t3-probe (--host and --internal)."
        );
        let unseen = attribute(&legs([Clean, Clean, Unseen]));
        assert_eq!(
            unseen.to_string(),
            "Inconclusive, but the path up to t3-dispatch is clean: the leg t3serve is not observed, cloudflare \
             and internal are clean.\nNext: repeat when every leg has been tried."
        );
    }

    #[test]
    fn an_answer_of_dispatch_to_the_probe_alone_has_its_own_next_step() {
        for (status, way, expected) in
            [(401, 0, "--token-file"), (429, 0, "--max-probes"), (401, 2, "systemctl")]
        {
            let mut all = legs([Clean, Clean, Clean]);
            all[way].state = Down;
            all[way].fault = failed(Reason::Http(status), Phase::Upgrade, "");
            let next = attribute(&all).next;
            assert!(next.contains(expected), "{status} {way}: {next}");
        }
    }
}
