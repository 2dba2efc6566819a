//! Closed vocabularies of a record. Each value is part of the contract (docs/RECORD.md): values may
//! be added, but none changes its meaning.

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
            /// All values, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value as written in a record.
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
    /// One of the two legs of a session: downstream is the client, upstream is serve.
    Side {
        /// Towards the client.
        Down = "down",
        /// Towards serve.
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
    /// Coarse cause, for existing Loki queries.
    Cause {
        /// The downstream leg ended first, without a completed close handshake.
        DownstreamClosed = "downstream_closed",
        /// The upstream leg ended first, without a completed close handshake.
        UpstreamClosed = "upstream_closed",
        /// Both sides sent a Close frame.
        Graceful = "graceful",
        /// dispatch ended the session.
        DispatchClosed = "dispatch_closed",
    }
}

vocabulary! {
    /// How the heartbeats of a session were recognised.
    HeartbeatSource {
        /// By their text, as t3 sends them uncompressed.
        Text = "text",
        /// Ping and Pong frames (RFC 6455 section 5.5.2).
        Ping = "ping",
        /// By size and period.
        Rhythm = "rhythm",
        /// No heartbeat was recognised.
        None = "none",
    }
}

vocabulary! {
    /// Classification of a close in one word (docs/VERDICTS.md).
    Verdict {
        /// The client sent the first Close frame and nothing had stalled.
        ClientClosed = "client_closed",
        /// The client ended the TCP connection without a Close frame and nothing had stalled.
        ClientLeft = "client_left",
        /// RST on the downstream leg.
        ClientReset = "client_reset",
        /// The downstream peer stopped responding: keepalive or retransmission timeout.
        ClientVanished = "client_vanished",
        /// The client gave up although serve had answered in time.
        PathStalled = "path_stalled",
        /// The client violated RFC 6455.
        ClientProtocol = "client_protocol",
        /// Mass disconnect: several users lost the downstream leg within one second.
        EdgeBurst = "edge_burst",
        /// serve sent the first Close frame; its process is alive.
        ServeClosed = "serve_closed",
        /// serve sent FIN without a Close frame; its process is alive.
        ServeLeft = "serve_left",
        /// serve sent RST; its process is alive.
        ServeReset = "serve_reset",
        /// The serve process exited.
        ServeExited = "serve_exited",
        /// A signal terminated the serve process.
        ServeKilled = "serve_killed",
        /// The OOM killer terminated the serve process.
        ServeOom = "serve_oom",
        /// A heartbeat went unanswered for longer than the watchdog while the process was alive.
        ServeStalled = "serve_stalled",
        /// At open: connection refused or unreachable.
        ServeRefused = "serve_refused",
        /// At open: no response to connect or upgrade in time.
        ServeTimeout = "serve_timeout",
        /// At open: a status other than 101.
        ServeRejected = "serve_rejected",
        /// serve sent an invalid response to the upgrade, or violated RFC 6455.
        ServeProtocol = "serve_protocol",
        /// dispatch received a stop signal.
        DispatchShutdown = "dispatch_shutdown",
        /// The event loop of dispatch was blocked.
        DispatchStalled = "dispatch_stalled",
        /// The dispatch process ended with the session open.
        DispatchDied = "dispatch_died",
        /// The whole host did not run.
        HostPaused = "host_paused",
        /// A socket was destroyed on this host (`ss -K`).
        AdminKilled = "admin_killed",
        /// The host went down with the session open (`how` is `power_loss` or `reboot`), or no rule
        /// matched, which is a bug.
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
            | Self::HostPaused
            | Self::AdminKilled
            | Self::Unknown => None,
        }
    }
}

vocabulary! {
    /// Location of the cause.
    Segment {
        /// Client, Cloudflare, tunnel or Traefik.
        Downstream = "downstream",
        /// serve.
        Serve = "serve",
        /// The host: memory, IO or CPU pressure.
        Devvm = "devvm",
        /// t3-dispatch itself.
        Dispatch = "dispatch",
        /// No segment: both ends closed at the same time.
        None = "none",
        /// Not known.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// End that acted first. Not the cause: a client that gives up on a stalled serve acts first.
    ClosedBy {
        /// The downstream peer.
        Downstream = "downstream",
        /// The upstream peer.
        Upstream = "upstream",
        /// dispatch or the kernel of its host.
        Dispatch = "dispatch",
        /// Both peers, before either received the other's act.
        Both = "both",
    }
}

vocabulary! {
    /// End of a leg in the kernel.
    LegEnd {
        /// The peer sent FIN first.
        FinIn = "fin_in",
        /// The peer sent RST.
        RstIn = "rst_in",
        /// dispatch sent FIN first.
        FinOut = "fin_out",
        /// dispatch sent RST.
        RstOut = "rst_out",
        /// Keepalive, retransmission or user timeout.
        Timeout = "timeout",
        /// The socket was destroyed.
        Abort = "abort",
        /// The connection attempt was refused.
        Refused = "refused",
        /// The peer's host or network cannot be reached.
        Unreach = "unreach",
        /// The leg was never established.
        None = "none",
    }
}

vocabulary! {
    /// Certainty of a verdict.
    Confidence {
        /// Positive evidence: a kernel event, a frame, an exit status.
        Proven = "proven",
        /// Inferred from timing or missing events.
        Likely = "likely",
    }
}

vocabulary! {
    /// Origin of a record that t3-trace wrote after the session had ended.
    Reconciled {
        /// t3-trace found the session open in the journal or its spool, and its dispatch gone.
        Journal = "journal",
        /// The record of t3-dispatch, written again because it had not arrived in the journal.
        Spool = "spool",
        /// t3-trace had waited for the next t3-dispatch to continue the session.
        Restart = "restart",
    }
}

vocabulary! {
    /// Program that carried the connection of a record.
    Via {
        /// t3-dispatch.
        Dispatch = "dispatch",
        /// No program of this project: the client was connected to the listening process itself.
        Direct = "direct",
    }
}

vocabulary! {
    /// Which of the processes along a connection acted first, when a proxy has both legs of it.
    Actor {
        /// The client of the proxy.
        Client = "client",
        /// The proxy.
        Proxy = "proxy",
        /// The process to which the proxy was connected.
        Upstream = "upstream",
    }
}

vocabulary! {
    /// Source of the kernel evidence.
    KernelSource {
        /// Tracepoints and kprobes (or fentry).
        Kprobe = "kprobe",
        /// Tracepoints only.
        Tracepoint = "tracepoint",
        /// t3-trace was not connected, or could not load its programs.
        Off = "off",
        /// t3-trace did not reply in time.
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
