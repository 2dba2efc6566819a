//! What the path prober (`t3-probe`) and the explainer (`t3-trace explain`) agree on: the words of
//! a leg, the line of a leg's death, and what the legs together say about the path. Pure, as
//! everything here; the probing itself is t3-probe's.

pub mod attribution;
pub mod disconnect;

pub use attribution::{Attribution, Leg, State, attribute};
pub use disconnect::{Disconnect, Phase, Reason};

use crate::vocabulary::vocabulary;

vocabulary! {
    /// Which way a leg takes. Legs that share a way differ by name only.
    Way {
        /// `wss://HOST/probe/ws` at the address that public DNS gives: Cloudflare, the tunnel,
        /// Traefik, dispatch.
        Cloudflare = "cloudflare",
        /// The same pinned to the internal Traefik: Traefik, dispatch.
        Internal = "internal",
        /// `GET /api/auth/session` straight from a serve.
        Serve = "t3serve",
    }
}
