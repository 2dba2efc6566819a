//! Deciding mechanism of a close: a token, with a detail after a colon. Closed vocabulary
//! (docs/RECORD.md).

use std::{fmt, str::FromStr};

/// Text that is not a mechanism.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown mechanism {0:?}; expected a value that docs/RECORD.md lists under `how`")]
pub struct UnknownHow(pub String);

macro_rules! mechanisms {
    (
        plain { $($(#[$pm:meta])* $plain:ident = $pword:literal,)+ }
        detailed { $($(#[$dm:meta])* $detailed:ident($ty:ty) = $dword:literal,)+ }
    ) => {
        /// The deciding mechanism.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum How { $($(#[$pm])* $plain,)+ $($(#[$dm])* $detailed($ty),)+ }

        impl fmt::Display for How {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$plain => f.write_str($pword),)+
                    $(Self::$detailed(detail) => write!(f, concat!($dword, ":{}"), detail),)+
                }
            }
        }

        impl FromStr for How {
            type Err = UnknownHow;
            fn from_str(text: &str) -> Result<Self, UnknownHow> {
                let unknown = || UnknownHow(text.to_owned());
                match text.split_once(':') {
                    None => match text { $($pword => Ok(Self::$plain),)+ _ => Err(unknown()) },
                    Some((word, detail)) => match word {
                        $($dword => detail.parse().map(Self::$detailed).map_err(|_| unknown()),)+
                        _ => Err(unknown()),
                    },
                }
            }
        }

        impl How {
            /// All tokens without details, in the order of the documentation.
            pub const TOKENS: &'static [&'static str] = &[$($pword,)+ $($dword,)+];
        }
    };
}

mechanisms! {
    plain {
        /// Close frame without a status code.
        WsCloseEmpty = "ws_close",
        /// FIN without a Close frame.
        Fin = "fin",
        /// RST.
        Rst = "rst",
        /// FIN in one direction while the other stayed open.
        HalfClose = "half_close",
        /// The stream ended inside a frame.
        MidFrame = "mid_frame",
        /// Keepalive or user timeout without further evidence.
        Vanished = "vanished",
        /// The peer's receive window stayed at zero.
        ZeroWindow = "zero_window",
        /// Data written and retransmitted without acknowledgement.
        Loss = "loss",
        /// Data of serve waited for the client's line, and the answers behind it.
        Backlog = "backlog",
        /// The client's watchdog fired although every heartbeat was answered.
        FalseAlarm = "false_alarm",
        /// Heartbeats stopped arriving.
        HeartbeatLost = "heartbeat_lost",
        /// A heartbeat went unanswered.
        Stall = "stall",
        /// The OOM killer.
        Oom = "oom",
        /// Connection refused.
        Refused = "refused",
        /// Connection refused: the port listens on another address of the host.
        OtherAddress = "other_address",
        /// The port belongs to another user.
        ForeignListener = "foreign_listener",
        /// Host or network unreachable.
        Unreach = "unreach",
        /// No connection in time.
        ConnectTimeout = "connect_timeout",
        /// No response to the upgrade in time.
        HandshakeTimeout = "handshake_timeout",
        /// FIN before the response to the upgrade.
        HandshakeEof = "handshake_eof",
        /// 101 with a wrong `Sec-WebSocket-Accept`.
        BadAccept = "bad_accept",
        /// Not HTTP.
        Garbage = "garbage",
        /// Violation of RFC 6455.
        Protocol = "protocol",
        /// The socket was destroyed on this host.
        SockDestroy = "sock_destroy",
        /// Many sessions of several users within one second.
        Burst = "burst",
        /// Both ends closed before either received the other's close.
        Simultaneous = "simultaneous",
        /// dispatch ended without a signal.
        ProxyGone = "proxy_gone",
        /// The host did not run.
        Pause = "pause",
        /// The host went down without a shutdown: power loss, reset or kernel panic.
        PowerLoss = "power_loss",
        /// The host was shut down or rebooted.
        Reboot = "reboot",
    }
    detailed {
        /// Close frame with this status code.
        WsClose(u16) = "ws_close",
        /// The process exited with this status.
        Exit(i32) = "exit",
        /// The process was terminated by this signal.
        Signal(i32) = "signal",
        /// serve answered with this HTTP status.
        Status(u16) = "status",
        /// dispatch was stopped or terminated by this signal.
        ProxySignal(i32) = "proxy_signal",
        /// Local error of dispatch with this errno.
        LocalError(i32) = "local_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_reads_back() {
        for token in How::TOKENS {
            let plain = token.parse::<How>();
            let detailed = format!("{token}:9").parse::<How>();
            assert!(plain.is_ok() || detailed.is_ok(), "{token}");
            for how in plain.into_iter().chain(detailed) {
                assert_eq!(how.to_string().parse::<How>(), Ok(how));
            }
        }
    }

    #[test]
    fn strange_text_is_refused() {
        for text in ["", ":", "ws_close:", "ws_close:x", "ws_close:70000", "fin:1", "signal", "FIN"] {
            assert!(text.parse::<How>().is_err(), "{text:?}");
        }
    }
}
