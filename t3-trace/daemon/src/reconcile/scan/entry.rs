//! One line of `journalctl --output=json`. Pure.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use t3_record::{
    journal::{CLOSE_ID, OPEN_ID},
    reconcile::Moment,
};
use t3_trace_host::journal_trust::Trust;

/// Fields that [`decode`] reads, without those that journalctl always prints and those of the trust
/// rule.
pub(super) const FIELDS: [&str; 7] =
    ["MESSAGE_ID", "T3_CONN", "T3_USER", "T3_IP", "T3_RAY", "T3_KEPT", "_PID"];

/// A record in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Open(OpenEntry),
    Close { conn: String },
}

/// A `ws open` with its place in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenEntry {
    pub conn: String,
    pub user: String,
    pub ip: String,
    pub ray: Option<String>,
    /// dispatch keeps it in a descriptor store.
    pub is_kept: bool,
    pub boot_id: String,
    /// Process id of the writer.
    pub pid: Option<u32>,
    /// When journald received it, on the monotonic clock of its boot.
    pub monotonic_us: u64,
    pub realtime_us: u64,
}

/// Boot and time of the oldest entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldestEntry {
    pub boot_id: String,
    /// `CLOCK_MONOTONIC` of that boot, in microseconds.
    pub monotonic_us: u64,
}

/// What a line contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    pub(super) cursor: Option<Cow<'a, str>>,
    /// `None` for another kind of entry, a missing field, or an untrusted writer.
    pub(super) found: Option<Found>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(rename = "__CURSOR", borrow)]
    cursor: Text<'a>,
    #[serde(rename = "__REALTIME_TIMESTAMP", borrow)]
    realtime: Text<'a>,
    #[serde(rename = "__MONOTONIC_TIMESTAMP", borrow)]
    monotonic: Text<'a>,
    #[serde(rename = "_BOOT_ID", borrow)]
    boot_id: Text<'a>,
    #[serde(rename = "_UID", borrow)]
    uid: Text<'a>,
    #[serde(rename = "_SYSTEMD_UNIT", borrow)]
    unit: Text<'a>,
    #[serde(rename = "_PID", borrow)]
    pid: Text<'a>,
    #[serde(rename = "MESSAGE_ID", borrow)]
    message_id: Text<'a>,
    #[serde(rename = "T3_CONN", borrow)]
    conn: Text<'a>,
    #[serde(rename = "T3_USER", borrow)]
    user: Text<'a>,
    #[serde(rename = "T3_IP", borrow)]
    ip: Text<'a>,
    #[serde(rename = "T3_RAY", borrow)]
    ray: Text<'a>,
    #[serde(rename = "T3_KEPT", borrow)]
    kept: Text<'a>,
}

pub(super) fn decode(line: &[u8], trust: Trust) -> Decoded<'_> {
    let Ok(mut fields) = serde_json::from_slice::<Fields<'_>>(line) else { return Decoded::default() };
    let cursor = fields.cursor.0.take();
    Decoded { cursor, found: fields.record(trust) }
}

impl Fields<'_> {
    fn record(self, trust: Trust) -> Option<Found> {
        if !trust.allows_writer(self.uid.get(), self.unit.get()) {
            return None;
        }
        let conn = self.conn.get().filter(|conn| !conn.is_empty())?.to_owned();
        match self.message_id.get()? {
            CLOSE_ID => Some(Found::Close { conn }),
            OPEN_ID => Some(Found::Open(OpenEntry {
                conn,
                boot_id: self.boot_id.get()?.to_owned(),
                pid: self.pid.get().and_then(|pid| pid.parse().ok()),
                monotonic_us: self.monotonic.get()?.parse().ok()?,
                realtime_us: self.realtime.get()?.parse().ok()?,
                user: self.user.0?.into_owned(),
                ip: self.ip.0?.into_owned(),
                ray: self.ray.0.map(Cow::into_owned),
                is_kept: self.kept.get() == Some("true"),
            })),
            _ => None,
        }
    }
}

pub(super) fn moment(line: &[u8]) -> Option<Moment> {
    let fields = serde_json::from_slice::<Fields<'_>>(line).ok()?;
    let monotonic_us: u64 = fields.monotonic.get()?.parse().ok()?;
    let wall_us = fields.realtime.get()?.parse().ok()?;
    Some(Moment { wall_us, monotonic: monotonic_us.saturating_mul(1_000) })
}

pub(super) fn boot_and_time(line: &[u8]) -> Option<OldestEntry> {
    let fields = serde_json::from_slice::<Fields<'_>>(line).ok()?;
    Some(OldestEntry {
        boot_id: fields.boot_id.get()?.to_owned(),
        monotonic_us: fields.monotonic.get()?.parse().ok()?,
    })
}

pub(super) fn message_id(line: &[u8]) -> Option<Cow<'_, str>> {
    serde_json::from_slice::<Fields<'_>>(line).ok()?.message_id.0
}

/// Identity of an entry: what a cursor says of its boot, times and content. Its sequence number
/// changes when journald moves the entry from /run to /var.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position<'a> {
    boot: &'a str,
    monotonic: &'a str,
    realtime: &'a str,
    content: &'a str,
}

pub(super) fn position(cursor: &str) -> Option<Position<'_>> {
    let part = |name: &str| {
        let value = cursor.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        (!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(value)
    };
    Some(Position { boot: part("b")?, monotonic: part("m")?, realtime: part("t")?, content: part("x")? })
}

/// Value of a field. journalctl writes a text, an array of bytes (not printable), an array of
/// values (a repeated field: the first counts), or null (too long).
#[derive(Default)]
struct Text<'a>(Option<Cow<'a, str>>);

impl Text<'_> {
    fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, an array or null")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Some(Cow::Owned(text.to_owned()))))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(element) = values.next_element::<Element<'de>>()? {
            let first = match element {
                Element::Byte(byte) => {
                    bytes.push(byte);
                    continue;
                }
                Element::Text(text) => Some(text),
                Element::Bytes(value) => Some(lossy(&value)),
                Element::Other(_) => None,
            };
            // No array of bytes: of several values, the first counts.
            while values.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Text(first.filter(|_| bytes.is_empty())));
        }
        Ok(Text(Some(lossy(&bytes))))
    }
}

fn lossy(bytes: &[u8]) -> Cow<'static, str> {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Element<'a> {
    Byte(u8),
    Text(#[serde(borrow)] Cow<'a, str>),
    Bytes(Vec<u8>),
    Other(IgnoredAny),
}
