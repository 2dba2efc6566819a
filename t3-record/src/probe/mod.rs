//! Contract between t3-probe and `t3-trace explain`: vocabularies of a probe leg, the line of JSON
//! for a disconnect, and the attribution. Pure.

pub mod attribution;
pub mod disconnect;

pub use attribution::{Attribution, Leg, LegFault, State, attribute};
pub use disconnect::{Disconnect, Phase, Reason};

use crate::vocabulary::vocabulary;

vocabulary! {
    /// Path of a probe leg. Legs with the same path differ only by name.
    Way {
        /// `wss://HOST/probe/ws` at the address from public DNS: Cloudflare, the tunnel, Traefik,
        /// dispatch.
        Cloudflare = "cloudflare",
        /// The same URL at the internal Traefik: Traefik, dispatch.
        Internal = "internal",
        /// `GET /api/auth/session` of a serve, directly.
        Serve = "t3serve",
    }
}
