//! Plan of a session, drawn from a seed: the same seed and number give the same plan in every
//! process. Pure.
//!
//! The plan is in the request target, so that serve needs no second channel.

use std::time::Duration;

/// How a session ends, and who ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// The client sends a Close frame with this code; serve replies and closes first.
    ClientClose(u16),
    /// The client sends FIN and waits for serve's.
    ClientFin,
    /// The client closes its socket with nothing unread.
    ClientDrop,
    /// The client sends RST.
    ClientReset,
    /// The client sends FIN inside a frame.
    ClientMidFrame,
    /// serve sends a Close frame with this code.
    ServeClose(u16),
    /// serve sends FIN.
    ServeFin,
    /// serve sends RST.
    ServeReset,
    /// serve sends FIN inside a frame.
    ServeMidFrame,
    /// Nothing listens on serve's port.
    Refused,
    /// serve responds with this status.
    Status(u16),
    /// serve sends FIN in place of a response.
    EofAtOpen,
    /// serve sends RST in place of a response.
    ResetAtOpen,
    /// serve responds with bytes that are not HTTP.
    Garbage,
    /// serve responds 101 with a wrong `Sec-WebSocket-Accept`.
    BadAccept,
    /// The client leaves before the response.
    Gone,
    /// A user that is not in the routing table: 403 and no record.
    Stranger,
}

/// Each act, its name in targets and reports, and its weight.
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
    #[must_use]
    pub fn name(self) -> &'static str {
        ACTS.iter().find(|(_, act, _)| *act == self).map_or("?", |(name, _, _)| name)
    }

    fn named(name: &str) -> Option<Self> {
        ACTS.iter().find(|(known, _, _)| *known == name).map(|(_, act, _)| *act)
    }

    /// serve acts in an open session.
    #[must_use]
    pub fn is_serves(self) -> bool {
        matches!(self, Self::ServeClose(_) | Self::ServeFin | Self::ServeReset | Self::ServeMidFrame)
    }

    /// The WebSocket opens.
    #[must_use]
    pub fn opens(self) -> bool {
        self.is_serves() || self.is_clients()
    }

    /// The client acts in an open session.
    #[must_use]
    pub fn is_clients(self) -> bool {
        matches!(self, Self::ClientClose(_)) || self.cuts()
    }

    /// A downstream end without a Close frame: dispatch delays the record for a possible burst.
    #[must_use]
    pub fn cuts(self) -> bool {
        matches!(self, Self::ClientFin | Self::ClientDrop | Self::ClientReset | Self::ClientMidFrame)
    }
}

/// Plan of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub id: u32,
    /// Index of the user, of those with a listening serve.
    pub user: usize,
    pub act: Act,
    /// Messages before the end, each with a reply.
    pub messages: u64,
    /// Time from the last message to the end.
    pub life: Duration,
}

impl Plan {
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

    /// A plan that opens and ends after at most a second.
    #[must_use]
    pub fn draw_open(seed: u64, id: u32, users: usize) -> Self {
        let mut drawn = (0..).map(|again| Self::draw(seed.wrapping_add(again << 48), id, users));
        let plan = drawn.find(|plan| plan.act.opens()).unwrap_or_else(|| Self::draw(seed, id, users));
        Self { messages: 0, life: plan.life.min(Duration::from_secs(1)), ..plan }
    }

    /// The request target.
    #[must_use]
    pub fn to_target(self) -> String {
        let Self { id, act, messages, life, .. } = self;
        format!("/ws?wsTicket=secret&chaos={id}.{}.{messages}.{}", act.name(), life.as_millis())
    }

    /// Reads a request target; the user is unknown.
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

    #[must_use]
    pub fn ray(&self) -> String {
        format!("{:016x}-CHS", self.id)
    }

    /// The address in `X-Forwarded-For`.
    #[must_use]
    pub fn ip(&self) -> String {
        let [high, a, b, c] = self.id.to_be_bytes();
        format!("{}.{a}.{b}.{c}", 50 + u32::from(high))
    }
}

/// Pseudo-random numbers (splitmix64).
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
    fn a_plan_reads_back_and_its_ray_and_address_are_unique() {
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
    fn a_drawn_open_plan_opens() {
        let plans: Vec<_> = (0..5_000).map(|id| Plan::draw_open(1, id, 5)).collect();
        assert!(plans.iter().all(|plan| plan.act.opens() && plan.messages == 0));
        for (name, act, _) in ACTS.iter().filter(|(_, act, _)| act.opens()) {
            assert!(plans.iter().any(|plan| plan.act == *act), "{name}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_plan() {
        assert_eq!(Plan::draw(3, 9, 5), Plan::draw(3, 9, 5));
        assert!((0..100).any(|id| Plan::draw(3, id, 5) != Plan::draw(4, id, 5)));
    }
}
