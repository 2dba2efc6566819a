//! Changes of the host's own network.

use serde::{Deserialize, Serialize};

use super::Nanos;
use crate::vocabulary::Side;

/// A change of the host's own network that concerns a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkEvent {
    /// Leg.
    pub side: Side,
    /// Change.
    pub change: NetworkChange,
    /// Time.
    pub at: Nanos,
}

/// Kind of a change of the host's own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkChange {
    /// The link of the leg's own address went down or lost its carrier.
    LinkDown,
    /// It is up again.
    LinkUp,
    /// The leg's own address was removed.
    AddressRemoved,
    /// It was added again.
    AddressAdded,
    /// A route that covers the peer was removed.
    RouteRemoved,
    /// It was added again.
    RouteAdded,
}

impl NetworkChange {
    /// Every change.
    pub const ALL: [Self; 6] = [
        Self::LinkDown,
        Self::LinkUp,
        Self::AddressRemoved,
        Self::AddressAdded,
        Self::RouteRemoved,
        Self::RouteAdded,
    ];

    /// Its name in a chain.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LinkDown => "link_down",
            Self::LinkUp => "link_up",
            Self::AddressRemoved => "address_removed",
            Self::AddressAdded => "address_added",
            Self::RouteRemoved => "route_removed",
            Self::RouteAdded => "route_added",
        }
    }

    /// The change that ends the outage which this one starts; `None` if it starts none.
    #[must_use]
    pub const fn restored_by(self) -> Option<Self> {
        match self {
            Self::LinkDown => Some(Self::LinkUp),
            Self::AddressRemoved => Some(Self::AddressAdded),
            Self::RouteRemoved => Some(Self::RouteAdded),
            Self::LinkUp | Self::AddressAdded | Self::RouteAdded => None,
        }
    }
}
