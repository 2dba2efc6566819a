//! A scene: what happens outside a guest, as one line of text.

use std::{fmt, str::FromStr};

use crate::error::TestError;

/// One step of a scene; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The browser of this user connects to this port, with this heartbeat period.
    Open {
        port: u16,
        user: String,
        period: u64,
    },
    /// Waits for so many answered heartbeats.
    Beats(u64),
    Wait(u64),
    /// Stops the guest by the monitor for this time; the next step follows at once.
    Stop(u64),
    /// As [`Step::Stop`], by not scheduling the hypervisor.
    Unscheduled(u64),
    /// Resets the guest as by its reset button; nobody is left to answer to.
    Reset,
    /// The browser sends a Close frame.
    Close(u16),
    /// The browser drops its socket.
    Drop,
    /// Waits until the guest runs.
    Run,
    /// Waits for the end of the browser's connection.
    End,
}

/// Steps in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene(pub Vec<Step>);

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            match step {
                Step::Open { port, user, period } => write!(f, "open {port} {user} {period}"),
                Step::Beats(count) => write!(f, "beats {count}"),
                Step::Wait(time) => write!(f, "wait {time}"),
                Step::Stop(time) => write!(f, "stop {time}"),
                Step::Unscheduled(time) => write!(f, "unscheduled {time}"),
                Step::Reset => f.write_str("reset"),
                Step::Close(code) => write!(f, "close {code}"),
                Step::Drop => f.write_str("drop"),
                Step::Run => f.write_str("run"),
                Step::End => f.write_str("end"),
            }?;
        }
        Ok(())
    }
}

impl FromStr for Scene {
    type Err = TestError;

    fn from_str(text: &str) -> Result<Self, TestError> {
        text.split(';').map(step).collect::<Result<_, _>>().map(Self)
    }
}

fn step(text: &str) -> Result<Step, TestError> {
    let unknown = || TestError::Unexpected { what: "a step of a scene".to_owned(), got: text.to_owned() };
    fn number<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let step =
        match words.as_slice() {
            ["open", port, user, period] => number(port)
                .zip(number(period))
                .map(|(port, period)| Step::Open { port, user: (*user).to_owned(), period }),
            ["beats", count] => number(count).map(Step::Beats),
            ["wait", time] => number(time).map(Step::Wait),
            ["stop", time] => number(time).map(Step::Stop),
            ["unscheduled", time] => number(time).map(Step::Unscheduled),
            ["reset"] => Some(Step::Reset),
            ["close", code] => number(code).map(Step::Close),
            ["drop"] => Some(Step::Drop),
            ["run"] => Some(Step::Run),
            ["end"] => Some(Step::End),
            _ => None,
        };
    step.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_one_line() {
        let scene = Scene(vec![
            Step::Open { port: 7300, user: "u".to_owned(), period: 5_000 },
            Step::Beats(4),
            Step::Stop(12_500),
            Step::Wait(10_000),
            Step::Close(1000),
            Step::Drop,
            Step::Run,
            Step::Unscheduled(1),
            Step::Reset,
            Step::End,
        ]);
        let line = scene.to_string();
        assert!(line.starts_with("open 7300 u 5000; beats 4; stop 12500; wait 10000; close 1000; drop; run"));
        assert_eq!(line.parse::<Scene>().unwrap(), scene);
        for wrong in ["", "open", "beats x", "close 1000 now", "dance"] {
            assert!(wrong.parse::<Scene>().is_err(), "{wrong}");
        }
    }
}
