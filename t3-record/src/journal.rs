//! Record as a journald entry: encodes the native protocol, decodes the fields of
//! `journalctl -o json`.
//!
//! The native protocol (systemd.io, "Native Journal Protocol"): `NAME=value\n`, or for a value that
//! holds a newline `NAME\n`, its length as 64-bit little endian, the value, `\n`. Names are upper
//! case; ours carry the prefix `T3_`.

use std::{borrow::Cow, collections::BTreeMap};

use crate::record::{AttemptsRecord, BadRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord};

/// `MESSAGE_ID` of a `ws close`.
pub const CLOSE_ID: &str = "7a0d3c1e5b8f4f62a9c4d5e6f7081923";
/// `MESSAGE_ID` of a `ws open`.
pub const OPEN_ID: &str = "1c5e9f20d7b34a68b1f2c3d4e5f60718";
/// `MESSAGE_ID` of a `ws burst`.
pub const BURST_ID: &str = "93b8a7c6d5e44f3012e1f0a9b8c7d6e5";
/// `MESSAGE_ID` of a `ws attempts`.
pub const ATTEMPTS_ID: &str = "4be1d06f2c9a47d3a85e7190c3f2b6d8";
/// `MESSAGE_ID` of a `tcp close`.
pub const TCP_CLOSE_ID: &str = "c2f70b9e41d64c0b9a3e58d1760f24ab";

/// Prefix of the fields.
pub const PREFIX: &str = "T3_";

/// Keys that an entry has a second time, under a name without digits: the message catalog of
/// journald (`deploy/journald`) replaces only such names, and `T3_` has a digit.
pub const PLAIN: &[(&str, &str)] = &[
    ("user", "WS_USER"),
    ("ip", "WS_ADDRESS"),
    ("conn", "WS_CONN"),
    ("verdict", "WS_VERDICT"),
    ("segment", "WS_SEGMENT"),
    ("n", "WS_COUNT"),
    ("users", "WS_USERS"),
    ("port", "TCP_PORT"),
];

/// The journald name of a key.
#[must_use]
pub fn field(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

macro_rules! entries {
    ($($name:ident = $id:ident),+) => {$(
        impl $name {
            /// Fields of the entry: `MESSAGE`, `MESSAGE_ID`, `PRIORITY` and each key as `T3_KEY`,
            /// some also as [`PLAIN`] has them.
            #[must_use]
            pub fn to_fields(&self) -> Vec<(Cow<'static, str>, String)> {
                let mut fields: Vec<(Cow<'static, str>, String)> = vec![
                    ("MESSAGE".into(), self.to_line()),
                    ("MESSAGE_ID".into(), $id.to_owned()),
                    ("PRIORITY".into(), "6".to_owned()),
                ];
                for (key, value) in self.pairs() {
                    if let Some((_, plain)) = PLAIN.iter().find(|(found, _)| *found == key) {
                        fields.push(((*plain).into(), value.clone()));
                    }
                    fields.push((field(key).into(), value));
                }
                fields
            }

            /// Parses the fields of an entry.
            ///
            /// # Errors
            /// [`BadRecord`] names the key that is missing or has a bad value.
            pub fn from_fields(fields: &BTreeMap<String, String>) -> Result<Self, BadRecord> {
                Self::from_pairs(|key| fields.get(&field(key)).map(|value| value.as_str().into()))
            }
        }
    )+};
}

entries!(
    CloseRecord = CLOSE_ID,
    OpenRecord = OPEN_ID,
    BurstRecord = BURST_ID,
    AttemptsRecord = ATTEMPTS_ID,
    TcpCloseRecord = TCP_CLOSE_ID
);

/// Encodes a datagram of the native protocol.
#[must_use]
pub fn datagram<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    }
    out
}
