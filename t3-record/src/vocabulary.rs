//! The closed vocabularies of a record. Each word is part of the contract (docs/RECORD.md): one may
//! be added, none changes its meaning. Never holds logic.

/// A value outside its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {} {value:?}; expected one of: {expected}", lower(.vocabulary))]
pub struct UnknownValue {
    /// The value that was read.
    pub value: String,
    /// Name of the vocabulary's type.
    pub vocabulary: &'static str,
    /// The values of the vocabulary, separated by commas.
    pub expected: String,
}

/// `KernelSource` as `kernel source`.
fn lower(type_name: &str) -> String {
    let mut words = String::new();
    for c in type_name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it stands in a record.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::vocabulary::UnknownValue;
            fn from_str(word: &str) -> Result<Self, $crate::vocabulary::UnknownValue> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::vocabulary::UnknownValue {
                        value: word.to_owned(),
                        vocabulary: stringify!($name),
                        expected: Self::ALL.iter().map(|w| w.as_str()).collect::<Vec<_>>().join(", "),
                    }),
                }
            }
        }
    };
}

pub(crate) use vocabulary;

vocabulary! {
    /// One of the two legs of a session, seen from dispatch: downstream is Traefik and the browser,
    /// upstream is serve.
    Side {
        /// Towards the browser.
        Down = "down",
        /// Towards `t3 serve`.
        Up = "up",
    }
}

impl Side {
    /// The other leg.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Down => Self::Up,
            Self::Up => Self::Down,
        }
    }
}

vocabulary! {
    /// The old, coarse cause that the operators' Loki query matches on.
    Cause {
        /// The downstream leg ended first, without a completed close handshake.
        DownstreamClosed = "downstream_closed",
        /// The upstream leg ended first, without a completed close handshake.
        UpstreamClosed = "upstream_closed",
        /// A close frame was seen from both sides.
        Graceful = "graceful",
        /// dispatch ended the session.
        DispatchClosed = "dispatch_closed",
    }
}

vocabulary! {
    /// What happened, in one word (docs/VERDICTS.md).
    Verdict {
        /// The browser closed with a close frame, heartbeats healthy.
        ClientClosed = "client_closed",
        /// The browser's side ended without a close frame, heartbeats healthy.
        ClientLeft = "client_left",
        /// RST from downstream.
        ClientReset = "client_reset",
        /// Downstream stopped answering: keepalive or retransmission timeout.
        ClientVanished = "client_vanished",
        /// The browser gave up although serve had answered everything in time.
        PathStalled = "path_stalled",
        /// The browser broke the WebSocket protocol.
        ClientProtocol = "client_protocol",
        /// Many sessions of several users were cut downstream in the same second.
        EdgeBurst = "edge_burst",
        /// serve closed with a close frame.
        ServeClosed = "serve_closed",
        /// serve ended without a close frame and lives.
        ServeLeft = "serve_left",
        /// RST from serve, which lives.
        ServeReset = "serve_reset",
        /// The process behind the upstream socket exited.
        ServeExited = "serve_exited",
        /// The process behind the upstream socket died of a signal.
        ServeKilled = "serve_killed",
        /// The process behind the upstream socket was OOM-killed.
        ServeOom = "serve_oom",
        /// A heartbeat went unanswered for longer than the watchdog while the process was alive.
        ServeStalled = "serve_stalled",
        /// At open: connection refused or unreachable.
        ServeRefused = "serve_refused",
        /// At open: no answer to connect or handshake.
        ServeTimeout = "serve_timeout",
        /// At open: another status than 101.
        ServeRejected = "serve_rejected",
        /// serve answered garbage, or broke the protocol later.
        ServeProtocol = "serve_protocol",
        /// dispatch was told to stop.
        DispatchShutdown = "dispatch_shutdown",
        /// dispatch's own event loop stood still.
        DispatchStalled = "dispatch_stalled",
        /// dispatch died with the session open.
        DispatchDied = "dispatch_died",
        /// A socket was destroyed by an administrator of this machine.
        AdminKilled = "admin_killed",
        /// Nothing fits: a bug to be fixed.
        Unknown = "unknown",
    }
}

impl Verdict {
    /// The leg that the verdict is about, by the first word of its name: downstream for `client_`,
    /// `path_` and `edge_`, upstream for `serve_`; `None` for the proxy, the host and `unknown`.
    #[must_use]
    pub const fn side(self) -> Option<Side> {
        match self {
            Self::ClientClosed
            | Self::ClientLeft
            | Self::ClientReset
            | Self::ClientVanished
            | Self::PathStalled
            | Self::ClientProtocol
            | Self::EdgeBurst => Some(Side::Down),
            Self::ServeClosed
            | Self::ServeLeft
            | Self::ServeReset
            | Self::ServeExited
            | Self::ServeKilled
            | Self::ServeOom
            | Self::ServeStalled
            | Self::ServeRefused
            | Self::ServeTimeout
            | Self::ServeRejected
            | Self::ServeProtocol => Some(Side::Up),
            Self::DispatchShutdown
            | Self::DispatchStalled
            | Self::DispatchDied
            | Self::AdminKilled
            | Self::Unknown => None,
        }
    }
}

vocabulary! {
    /// Where the cause lies.
    Segment {
        /// Browser, Cloudflare, tunnel or Traefik.
        Downstream = "downstream",
        /// The user's `t3 serve`.
        Serve = "serve",
        /// The machine: memory, IO or CPU pressure.
        Devvm = "devvm",
        /// t3-dispatch itself.
        Dispatch = "dispatch",
        /// Nobody's: both ends closed at once.
        None = "none",
        /// Not known.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Which end acted first. Not the cause: a browser that gives up on a stalled serve acts first.
    ClosedBy {
        /// The downstream peer.
        Downstream = "downstream",
        /// The upstream peer.
        Upstream = "upstream",
        /// dispatch or its machine's kernel.
        Dispatch = "dispatch",
        /// Both peers, neither having heard of the other's act.
        Both = "both",
    }
}

vocabulary! {
    /// How a leg ended in the kernel.
    LegEnd {
        /// The peer sent FIN first.
        FinIn = "fin_in",
        /// The peer sent RST.
        RstIn = "rst_in",
        /// We sent FIN first.
        FinOut = "fin_out",
        /// We sent RST.
        RstOut = "rst_out",
        /// Keepalive, retransmission or user timeout.
        Timeout = "timeout",
        /// Destroyed by an administrator.
        Abort = "abort",
        /// The connection attempt was refused.
        Refused = "refused",
        /// The peer's host or network cannot be reached.
        Unreach = "unreach",
        /// The leg never came to be.
        None = "none",
    }
}

vocabulary! {
    /// How sure a verdict is.
    Confidence {
        /// Positive evidence: a kernel event, a frame, an exit status.
        Proven = "proven",
        /// Concluded from timing or absence.
        Likely = "likely",
    }
}

vocabulary! {
    /// Where a record's kernel evidence came from.
    KernelSource {
        /// Tracepoints and kprobes (or fentry).
        Kprobe = "kprobe",
        /// Tracepoints only.
        Tracepoint = "tracepoint",
        /// t3-trace was not there, or could not load its programs.
        Off = "off",
        /// t3-trace did not answer in time.
        Timeout = "timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_value_is_reported_with_the_values_of_its_vocabulary() {
        assert_eq!(
            "sure".parse::<Confidence>().unwrap_err().to_string(),
            "unknown confidence \"sure\"; expected one of: proven, likely"
        );
        assert!(
            "x".parse::<KernelSource>().unwrap_err().to_string().starts_with("unknown kernel source \"x\";")
        );
    }

    #[test]
    fn the_side_of_a_verdict_agrees_with_its_name() {
        for verdict in Verdict::ALL {
            let side = match verdict.as_str().split_once('_').map(|(first, _)| first) {
                Some("client" | "path" | "edge") => Some(Side::Down),
                Some("serve") => Some(Side::Up),
                _ => None,
            };
            assert_eq!(verdict.side(), side, "{verdict}");
        }
    }
}
