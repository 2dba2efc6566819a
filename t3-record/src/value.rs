//! Text of the values of a record, the same in the logfmt line and the journald field.
//!
//! Quoting is left to the encodings ([`crate::logfmt`], [`crate::journal`]).

use std::str::FromStr;

use crate::{
    chain::Chain,
    evidence::{Burst, Fate},
    how::How,
    vocabulary::{
        Actor, Cause, ClosedBy, Confidence, HeartbeatSource, KernelSource, LegEnd, Reconciled, Segment, Side,
        Verdict, Via,
    },
};

/// Text that is not a value of the type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct BadValue {
    /// The text.
    pub text: String,
    /// Expected kind of value.
    pub expected: &'static str,
}

/// A value of a record.
pub trait Value: Sized {
    /// Name of the kind of value, for errors and documentation.
    const EXPECTED: &'static str;
    /// Writes the value as text.
    fn encode(&self) -> String;
    /// Parses the text.
    ///
    /// # Errors
    /// [`BadValue`] when the text is not such a value.
    fn decode(text: &str) -> Result<Self, BadValue>;
    /// Writes the value as a number, true or false where it is one, and else as text.
    ///
    /// # Errors
    /// Those of the serializer.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

/// A value for a serializer, by [`Value::serialize`].
pub(crate) struct Typed<'a, T>(pub(crate) &'a T);

impl<T: Value> serde::Serialize for Typed<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn bad<T: Value>(text: &str) -> BadValue {
    BadValue { text: text.to_owned(), expected: T::EXPECTED }
}

macro_rules! by_display {
    ($($ty:ty => $expected:literal $(as $serialize:ident)?,)+) => {$(
        impl Value for $ty {
            const EXPECTED: &'static str = $expected;
            fn encode(&self) -> String { self.to_string() }
            fn decode(text: &str) -> Result<Self, BadValue> { <$ty>::from_str(text).map_err(|_| bad::<Self>(text)) }
            $(fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.$serialize(*self)
            })?
        }
    )+};
}

by_display! {
    bool => "true or false" as serialize_bool,
    u8 => "a whole number" as serialize_u8,
    u16 => "a whole number" as serialize_u16,
    u32 => "a whole number" as serialize_u32,
    u64 => "a whole number" as serialize_u64,
    Cause => "a cause",
    Verdict => "a verdict",
    Segment => "a segment",
    ClosedBy => "a closing end",
    Side => "a side",
    LegEnd => "a leg's end",
    Confidence => "a confidence",
    HeartbeatSource => "a source of heartbeats",
    KernelSource => "a source of kernel evidence",
    How => "a mechanism",
    Reconciled => "an origin of a reconciled record",
    Chain => "a chain of events",
    Actor => "a process",
    Via => "a carrier",
}

impl Value for String {
    const EXPECTED: &'static str = "text";
    fn encode(&self) -> String {
        self.clone()
    }
    fn decode(text: &str) -> Result<Self, BadValue> {
        Ok(text.to_owned())
    }
}

/// Percent of wall time, with one decimal.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Percent(pub f32);

/// Upper limit, with room for rounding.
const MOST_PERCENT: f32 = 1000.0;

impl Value for Percent {
    const EXPECTED: &'static str = "a percentage";
    fn encode(&self) -> String {
        format!("{:.1}", self.0)
    }
    fn decode(text: &str) -> Result<Self, BadValue> {
        match text.parse::<f32>() {
            // Rounded as written, so that a parsed value is written identically.
            Ok(value) if (0.0..=MOST_PERCENT).contains(&value) => Ok(Self((value * 10.0).round() / 10.0)),
            _ => Err(bad::<Self>(text)),
        }
    }
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((f64::from(self.0) * 10.0).round() / 10.0)
    }
}

impl Value for Burst {
    const EXPECTED: &'static str = "sessions/users";
    fn encode(&self) -> String {
        format!("{}/{}", self.sessions, self.users)
    }
    fn decode(text: &str) -> Result<Self, BadValue> {
        let (sessions, users) = text.split_once('/').ok_or_else(|| bad::<Self>(text))?;
        match (sessions.parse(), users.parse()) {
            (Ok(sessions), Ok(users)) => Ok(Self { sessions, users }),
            _ => Err(bad::<Self>(text)),
        }
    }
}

impl Value for Fate {
    const EXPECTED: &'static str = "alive, exit:N, sig:N or oom";
    fn encode(&self) -> String {
        match self {
            Self::Alive => "alive".to_owned(),
            Self::Exit(status) => format!("exit:{status}"),
            Self::Signal(signal) => format!("sig:{signal}"),
            Self::Oom => "oom".to_owned(),
        }
    }
    fn decode(text: &str) -> Result<Self, BadValue> {
        let number = |n: &str| n.parse::<i32>().map_err(|_| bad::<Self>(text));
        match text.split_once(':') {
            None if text == "alive" => Ok(Self::Alive),
            None if text == "oom" => Ok(Self::Oom),
            Some(("exit", status)) => Ok(Self::Exit(number(status)?)),
            Some(("sig", signal)) => Ok(Self::Signal(number(signal)?)),
            _ => Err(bad::<Self>(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_reads_back_what_it_wrote() {
        for fate in [Fate::Alive, Fate::Oom, Fate::Exit(0), Fate::Exit(255), Fate::Signal(9)] {
            assert_eq!(Fate::decode(&fate.encode()), Ok(fate));
        }
        let burst = Burst { sessions: 12, users: 4 };
        assert_eq!(burst.encode(), "12/4");
        assert_eq!(Burst::decode("12/4"), Ok(burst));
        assert_eq!(Percent(3.25).encode(), "3.2");
        assert_eq!(Percent::decode("3.2"), Ok(Percent(3.2)));
        // Digits beyond the written precision are lost.
        assert_eq!(Percent::decode("3.1257699").unwrap().encode(), "3.1");
        assert_eq!(Percent::decode("3.1257699"), Percent::decode("3.1"));
    }

    #[test]
    fn strange_text_is_refused_and_named() {
        for text in ["", "-1", "NaN", "inf", "1e400", "1e9", "x"] {
            assert!(Percent::decode(text).is_err(), "{text:?}");
        }
        for text in ["", "sig", "sig:", "sig:x", "exit:99999999999", "dead"] {
            assert_eq!(Fate::decode(text).unwrap_err().text, text);
        }
        for text in ["", "12", "/", "12/", "-1/4", "1/2/3"] {
            assert!(Burst::decode(text).is_err(), "{text:?}");
        }
    }
}
