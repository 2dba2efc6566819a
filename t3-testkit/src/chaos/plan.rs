//! What one session is to do, drawn from a seed: the same seed and number give the same plan, in
//! every process. Pure.
//!
//! The plan travels in the request target, so that serve's part is ordered over the wire and no
//! second channel can be out of step.

use std::time::Duration;

/// How a session ends, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// The browser sends a close frame with this code; serve answers and closes first.
    ClientClose(u16),
    /// The browser sends FIN, then waits for serve's.
    ClientFin,
    /// The browser closes its socket with nothing unread.
    ClientDrop,
    /// The browser resets.
    ClientReset,
    /// The browser sends FIN inside a frame.
    ClientMidFrame,
    /// serve sends a close frame with this code.
    ServeClose(u16),
    /// serve sends FIN.
    ServeFin,
    /// serve resets.
    ServeReset,
    /// serve sends FIN inside a frame.
    ServeMidFrame,
    /// Nobody listens on serve's port.
    Refused,
    /// serve answers the handshake with this status.
    Status(u16),
    /// serve sends FIN in place of an answer.
    EofAtOpen,
    /// serve resets in place of an answer.
    ResetAtOpen,
    /// serve answers what is no HTTP.
    Garbage,
    /// serve answers 101 with a wrong proof.
    BadAccept,
    /// The browser leaves before serve has answered.
    Gone,
    /// A login that dispatch does not know: answered 403, and no WebSocket, so no record.
    Stranger,
}

/// Each act, its name on the wire and in reports, and how often it is drawn.
const ACTS: &[(&str, Act, u64)] = &[
    ("client_close_1000", Act::ClientClose(1000), 12),
    ("client_close_1001", Act::ClientClose(1001), 6),
    ("client_close_4321", Act::ClientClose(4321), 4),
    ("client_fin", Act::ClientFin, 8),
    ("client_drop", Act::ClientDrop, 6),
    ("client_rst", Act::ClientReset, 12),
    ("client_mid_frame", Act::ClientMidFrame, 3),
    ("serve_close_1000", Act::ServeClose(1000), 6),
    ("serve_close_1011", Act::ServeClose(1011), 6),
    ("serve_close_1012", Act::ServeClose(1012), 4),
    ("serve_fin", Act::ServeFin, 12),
    ("serve_rst", Act::ServeReset, 12),
    ("serve_mid_frame", Act::ServeMidFrame, 3),
    ("refused", Act::Refused, 2),
    ("status_401", Act::Status(401), 2),
    ("status_503", Act::Status(503), 1),
    ("eof_at_open", Act::EofAtOpen, 2),
    ("rst_at_open", Act::ResetAtOpen, 2),
    ("garbage", Act::Garbage, 1),
    ("bad_accept", Act::BadAccept, 1),
    ("gone", Act::Gone, 2),
    ("stranger", Act::Stranger, 1),
];

impl Act {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        ACTS.iter().find(|(_, act, _)| *act == self).map_or("?", |(name, _, _)| name)
    }

    fn named(name: &str) -> Option<Self> {
        ACTS.iter().find(|(known, _, _)| *known == name).map(|(_, act, _)| *act)
    }

    /// serve does it, in a session that is open.
    #[must_use]
    pub fn is_serves(self) -> bool {
        matches!(self, Self::ServeClose(_) | Self::ServeFin | Self::ServeReset | Self::ServeMidFrame)
    }

    /// A WebSocket comes to be.
    #[must_use]
    pub fn opens(self) -> bool {
        self.is_serves() || self.is_clients()
    }

    /// The browser does it, in a session that is open.
    #[must_use]
    pub fn is_clients(self) -> bool {
        matches!(self, Self::ClientClose(_)) || self.cuts()
    }

    /// A downstream ending without a close frame: dispatch lets it wait for neighbours, and many of
    /// them are a burst.
    #[must_use]
    pub fn cuts(self) -> bool {
        matches!(self, Self::ClientFin | Self::ClientDrop | Self::ClientReset | Self::ClientMidFrame)
    }
}

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Which one.
    pub id: u32,
    /// Which user's, of those whose serve listens.
    pub user: usize,
    /// How it ends.
    pub act: Act,
    /// Messages that go and are answered before.
    pub messages: u64,
    /// From then to the end.
    pub life: Duration,
}

impl Plan {
    /// The plan of one session.
    #[must_use]
    pub fn draw(seed: u64, id: u32, users: usize) -> Self {
        let mut rng = Rng(seed ^ (u64::from(id) << 32 | u64::from(id)));
        let mut left = rng.below(ACTS.iter().map(|(_, _, weight)| weight).sum());
        let mut act = Act::ClientFin;
        for (_, candidate, weight) in ACTS {
            act = *candidate;
            if left < *weight {
                break;
            }
            left -= weight;
        }
        let millis = match rng.below(10) {
            0..4 => 0,
            4..7 => rng.below(20),
            7..9 => rng.below(300),
            _ => rng.below(3_000),
        };
        let user = usize::try_from(rng.below(users as u64)).unwrap_or(0);
        Self { id, user, act, messages: rng.below(4), life: Duration::from_millis(millis) }
    }

    /// The plan of a session that opens, and then waits a second at most for its end.
    #[must_use]
    pub fn draw_open(seed: u64, id: u32, users: usize) -> Self {
        let mut drawn = (0..).map(|again| Self::draw(seed.wrapping_add(again << 48), id, users));
        let plan = drawn.find(|plan| plan.act.opens()).unwrap_or_else(|| Self::draw(seed, id, users));
        Self { messages: 0, life: plan.life.min(Duration::from_secs(1)), ..plan }
    }

    /// As part of a request target.
    #[must_use]
    pub fn to_target(self) -> String {
        let Self { id, act, messages, life, .. } = self;
        format!("/ws?wsTicket=secret&chaos={id}.{}.{messages}.{}", act.name(), life.as_millis())
    }

    /// serve's part, from a request target.
    #[must_use]
    pub fn from_target(target: &str) -> Option<Self> {
        let (_, text) = target.split_once("chaos=")?;
        let mut parts = text.split('.');
        let id = parts.next()?.parse().ok()?;
        let act = Act::named(parts.next()?)?;
        let messages = parts.next()?.parse().ok()?;
        let life = Duration::from_millis(parts.next()?.parse().ok()?);
        Some(Self { id, user: 0, act, messages, life })
    }

    /// Its own `Cf-Ray`.
    #[must_use]
    pub fn ray(&self) -> String {
        format!("{:016x}-CHS", self.id)
    }

    /// Its own address, as the proxies before dispatch tell it.
    #[must_use]
    pub fn ip(&self) -> String {
        let [high, a, b, c] = self.id.to_be_bytes();
        format!("{}.{a}.{b}.{c}", 50 + u32::from(high))
    }
}

/// Numbers that look random and follow from a seed (splitmix64).
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_wire_and_its_names_are_its_own() {
        let mut rays = std::collections::BTreeSet::new();
        let mut addresses = std::collections::BTreeSet::new();
        for id in 0..5_000 {
            let plan = Plan::draw(7, id, 5);
            let there = Plan::from_target(&plan.to_target()).unwrap();
            assert_eq!(Plan { user: plan.user, ..there }, plan);
            assert!(rays.insert(plan.ray()) && addresses.insert(plan.ip()));
        }
    }

    #[test]
    fn every_act_and_every_user_is_drawn() {
        let plans: Vec<_> = (0..5_000).map(|id| Plan::draw(1, id, 5)).collect();
        for (name, act, _) in ACTS {
            assert!(plans.iter().any(|plan| plan.act == *act), "{name}");
        }
        assert!((0..5).all(|user| plans.iter().any(|plan| plan.user == user)));
    }

    #[test]
    fn a_session_that_is_to_open_does() {
        let plans: Vec<_> = (0..5_000).map(|id| Plan::draw_open(1, id, 5)).collect();
        assert!(plans.iter().all(|plan| plan.act.opens() && plan.messages == 0));
        for (name, act, _) in ACTS.iter().filter(|(_, act, _)| act.opens()) {
            assert!(plans.iter().any(|plan| plan.act == *act), "{name}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        assert_eq!(Plan::draw(3, 9, 5), Plan::draw(3, 9, 5));
        assert!((0..100).any(|id| Plan::draw(3, id, 5) != Plan::draw(4, id, 5)));
    }
}
