//! Orders of the fake serve, as text. Pure.

use std::{str::FromStr, time::Duration};

/// Response to a WebSocket handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// 101 and a working session.
    Accept,
    /// No response.
    Silent,
    /// This HTTP status.
    Status(u16),
    /// Bytes that are not HTTP.
    Garbage,
    /// 101 with a wrong `Sec-WebSocket-Accept`.
    WrongAccept,
    /// FIN in place of a response.
    Eof,
    /// RST in place of a response.
    Reset,
}

/// Response of `/api/auth/session`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAnswer {
    /// Whether the cookie is known.
    Honest,
    /// `authenticated` with this value for any cookie.
    Fixed(bool),
    /// This HTTP status, with `authenticated:false` in the body.
    Status(u16),
    /// 200 and bytes that are not JSON.
    Garbage,
    /// No response, on an open connection.
    Silent,
    /// FIN in place of a response.
    Eof,
}

/// Response to a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingAnswer {
    /// `/api/auth/browser-session` accepts each valid credential once.
    Accept,
    /// As a serve before 0.0.25: that path is 404, and `/api/auth/bootstrap` accepts it.
    Bootstrap,
    /// This HTTP status on both paths, with the credential in the body.
    Status(u16),
    /// 200 without a session cookie.
    NoCookie,
    /// No response, on an open connection.
    Silent,
    /// FIN in place of a response.
    Eof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `close [CODE [REASON]]`: send a Close frame; the session then ends as in RFC 6455.
    Close(Option<u16>, String),
    /// `fin`: FIN without a Close frame, then read to the end and close.
    Fin,
    /// `half_close`: FIN without a Close frame; keep reading and keep the socket.
    HalfClose,
    /// `drop`: close the socket immediately (RST with unread data, else FIN).
    Drop,
    /// `rst`: reset.
    Reset,
    /// `mid_frame`: half a frame, then as `fin`.
    MidFrame,
    /// `reserved_opcode`: a frame with an undefined opcode.
    ReservedOpcode,
    /// `masked`: a masked frame, which a server must not send.
    Masked,
    /// `garbage`: bytes that are not frames.
    Garbage,
    /// `send TEXT`: a text message.
    Send(String),
    /// `flood BYTES`: one binary message of that size.
    Flood(usize),
    /// `stream MS`: a text message every so many milliseconds from now on.
    Stream(Duration),
    /// `ping MS`: a Ping frame every so many milliseconds from now on; close the socket when the
    /// one before is unanswered, as servers that use `ws` do.
    Ping(Duration),
    /// `inherit SECONDS`: start a child that keeps this session's socket open so long.
    Inherit(u64),
    /// `mute`: stop replying to heartbeats, keep reading.
    Mute,
    /// `unmute`: reply again.
    Unmute,
    /// `deaf`: stop reading from the socket.
    Deaf,
    /// `busy MS`: block the event loop.
    Busy(Duration),
    /// `thrash MS`: block the event loop with reads from disk, like page faults under memory and
    /// IO pressure.
    Thrash(Duration),
    /// `exit STATUS`: exit.
    Exit(i32),
    /// `signal N`: raise this signal with its default action.
    Signal(i32),
    /// `dump`: raise SIGABRT with so much memory that the core dump takes longer than any fault.
    Dump,
    /// `graceful MS ORDER`: on SIGTERM, SIGINT or SIGHUP from now on, execute the order (`close` or
    /// `fin`) and exit with 0 so much later.
    Graceful(Duration, Box<Order>),
    /// `burn MS`: block the event loop for this much CPU time.
    Burn(Duration),
    /// `grow BYTES`: allocate and touch memory in the event loop.
    Grow(usize),
    /// `alloc BYTES`: allocate and touch memory.
    Alloc(usize),
    /// `hog BYTES`: start a child that allocates memory, in the same cgroup.
    Hog(usize),
    /// `opening WHAT`: the response to handshakes from now on.
    Opening(Opening),
    /// `session WHAT`: honest, true, false, status:N, garbage, silent or eof from now on.
    Session(SessionAnswer),
    /// `pairing WHAT`: accept, bootstrap, status:N, no_cookie, silent or eof from now on.
    Pairing(PairingAnswer),
    /// `listen` and `unlisten`.
    Listen(bool),
    /// `after MS ORDER`.
    After(Duration, Box<Order>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an order; see t3-testkit/src/fake_serve/order.rs")]
pub struct BadOrder(pub String);

impl Order {
    /// Whether it is for the process, not for a session.
    #[must_use]
    pub fn is_for_the_process(&self) -> bool {
        self.ends_the_process()
            || matches!(
                self,
                Self::Busy(_)
                    | Self::Burn(_)
                    | Self::Grow(_)
                    | Self::Thrash(_)
                    | Self::Alloc(_)
                    | Self::Hog(_)
            )
    }

    /// Whether it ends the process, so that no reply is possible.
    #[must_use]
    pub fn ends_the_process(&self) -> bool {
        match self {
            Self::Exit(_) | Self::Signal(_) | Self::Dump => true,
            Self::After(_, order) => order.ends_the_process(),
            _ => false,
        }
    }
}

impl FromStr for Order {
    type Err = BadOrder;

    fn from_str(line: &str) -> Result<Self, BadOrder> {
        let bad = || BadOrder(line.to_owned());
        let line = line.trim_end();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let millis = |text: &str| text.parse().map(Duration::from_millis).map_err(|_| bad());
        let order = match word {
            "close" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                let code = if code.is_empty() { None } else { Some(code.parse().map_err(|_| bad())?) };
                return Ok(Self::Close(code, reason.to_owned()));
            }
            "send" => return Ok(Self::Send(rest.to_owned())),
            "after" => {
                let (delay, order) = rest.split_once(' ').ok_or_else(bad)?;
                return Ok(Self::After(millis(delay)?, Box::new(order.parse()?)));
            }
            "stream" => return millis(rest).map(Self::Stream),
            "ping" => return millis(rest).map(Self::Ping),
            "inherit" => return rest.parse().map(Self::Inherit).map_err(|_| bad()),
            "graceful" => {
                let (delay, order) = rest.split_once(' ').ok_or_else(bad)?;
                return Ok(Self::Graceful(millis(delay)?, Box::new(order.parse()?)));
            }
            "flood" => return rest.parse().map(Self::Flood).map_err(|_| bad()),
            "busy" => return millis(rest).map(Self::Busy),
            "thrash" => return millis(rest).map(Self::Thrash),
            "exit" => return rest.parse().map(Self::Exit).map_err(|_| bad()),
            "signal" => return rest.parse().map(Self::Signal).map_err(|_| bad()),
            "burn" => return millis(rest).map(Self::Burn),
            "grow" => return rest.parse().map(Self::Grow).map_err(|_| bad()),
            "alloc" => return rest.parse().map(Self::Alloc).map_err(|_| bad()),
            "hog" => return rest.parse().map(Self::Hog).map_err(|_| bad()),
            "opening" => return rest.parse().map(Self::Opening),
            "session" => return rest.parse().map(Self::Session),
            "pairing" => return rest.parse().map(Self::Pairing),
            "fin" => Self::Fin,
            "half_close" => Self::HalfClose,
            "drop" => Self::Drop,
            "rst" => Self::Reset,
            "mid_frame" => Self::MidFrame,
            "reserved_opcode" => Self::ReservedOpcode,
            "masked" => Self::Masked,
            "garbage" => Self::Garbage,
            "mute" => Self::Mute,
            "unmute" => Self::Unmute,
            "deaf" => Self::Deaf,
            "dump" => Self::Dump,
            "listen" => Self::Listen(true),
            "unlisten" => Self::Listen(false),
            _ => return Err(bad()),
        };
        if rest.is_empty() { Ok(order) } else { Err(bad()) }
    }
}

impl FromStr for Opening {
    type Err = BadOrder;

    fn from_str(text: &str) -> Result<Self, BadOrder> {
        Ok(match text {
            "accept" => Self::Accept,
            "silent" => Self::Silent,
            "garbage" => Self::Garbage,
            "wrong_accept" => Self::WrongAccept,
            "eof" => Self::Eof,
            "reset" => Self::Reset,
            _ => Self::Status(status(text)?),
        })
    }
}

impl FromStr for SessionAnswer {
    type Err = BadOrder;

    fn from_str(text: &str) -> Result<Self, BadOrder> {
        Ok(match text {
            "honest" => Self::Honest,
            "true" => Self::Fixed(true),
            "false" => Self::Fixed(false),
            "garbage" => Self::Garbage,
            "silent" => Self::Silent,
            "eof" => Self::Eof,
            _ => Self::Status(status(text)?),
        })
    }
}

impl FromStr for PairingAnswer {
    type Err = BadOrder;

    fn from_str(text: &str) -> Result<Self, BadOrder> {
        Ok(match text {
            "accept" => Self::Accept,
            "bootstrap" => Self::Bootstrap,
            "no_cookie" => Self::NoCookie,
            "silent" => Self::Silent,
            "eof" => Self::Eof,
            _ => Self::Status(status(text)?),
        })
    }
}

/// `status:N`.
fn status(text: &str) -> Result<u16, BadOrder> {
    let status = text.strip_prefix("status:").and_then(|status| status.parse().ok());
    status.ok_or_else(|| BadOrder(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_as_documented() {
        let cases = [
            ("close", Order::Close(None, String::new())),
            ("close 1011 oh no", Order::Close(Some(1011), "oh no".into())),
            ("fin\n", Order::Fin),
            ("busy 250", Order::Busy(Duration::from_millis(250))),
            ("stream 500", Order::Stream(Duration::from_millis(500))),
            ("inherit 9", Order::Inherit(9)),
            ("dump", Order::Dump),
            ("opening status:401", Order::Opening(Opening::Status(401))),
            ("session false", Order::Session(SessionAnswer::Fixed(false))),
            ("session status:500", Order::Session(SessionAnswer::Status(500))),
            ("pairing bootstrap", Order::Pairing(PairingAnswer::Bootstrap)),
            ("after 5 exit 3", Order::After(Duration::from_millis(5), Box::new(Order::Exit(3)))),
            ("send a  b", Order::Send("a  b".into())),
        ];
        for (text, order) in cases {
            assert_eq!(text.parse(), Ok(order), "{text}");
        }
        for text in [
            "",
            "close x",
            "close 70000",
            "fin now",
            "after 5",
            "opening status:x",
            "session",
            "pairing honest",
            "dance",
        ] {
            assert!(text.parse::<Order>().is_err(), "{text:?}");
        }
    }
}
