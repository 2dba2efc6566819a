//! Journal entries of a host, as a journal and as the lines that a shipper sends to Loki.

use std::{sync::Arc, time::SystemTime};

use t3_record::{BurstRecord, CloseRecord, OpenRecord, journal::datagram};

use super::{
    journal::Export,
    loki::{Labels, Line},
};

/// Shipper, which decides the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shipper {
    /// Labels only.
    Promtail,
    /// Also the keys of each record, as structured metadata, which a response has among the labels.
    Alloy,
}

/// One entry.
#[derive(Debug, Clone)]
struct Stored {
    micros: u64,
    host: String,
    unit: &'static str,
    fields: Vec<(String, String)>,
}

/// Entries of some hosts.
#[derive(Debug, Default)]
pub struct Fixture(Vec<Stored>);

/// Microseconds since the epoch, two hours ago: without `--since`, Loki is read for 30 days.
pub fn two_hours_ago() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap() - 7_200_000_000
}

impl Fixture {
    fn add(&mut self, micros: u64, host: &str, unit: &'static str, uid: &str, fields: Vec<(String, String)>) {
        let mut fields = fields;
        for (name, value) in [
            ("__REALTIME_TIMESTAMP", micros.to_string().as_str()),
            ("_UID", uid),
            ("_SYSTEMD_UNIT", unit),
            ("_HOSTNAME", host),
        ] {
            fields.push((name.to_owned(), value.to_owned()));
        }
        self.0.push(Stored { micros, host: host.to_owned(), unit, fields });
    }

    pub fn close(&mut self, micros: u64, host: &str, record: &CloseRecord) {
        let unit = if record.reconciled.is_some() { "t3-trace.service" } else { "t3-dispatch.service" };
        self.add(micros, host, unit, "991", owned(record.to_fields()));
    }

    pub fn open(&mut self, micros: u64, host: &str, record: &OpenRecord) {
        self.add(micros, host, "t3-dispatch.service", "991", owned(record.to_fields()));
    }

    pub fn burst(&mut self, micros: u64, host: &str, record: &BurstRecord) {
        self.add(micros, host, "t3-dispatch.service", "991", owned(record.to_fields()));
    }

    pub fn systemd(&mut self, micros: u64, host: &str, unit: &str, text: &str) {
        let fields = [("MESSAGE", text), ("UNIT", unit), ("_PID", "1")];
        self.add(
            micros,
            host,
            "init.scope",
            "0",
            owned(fields.map(|(name, value)| (name.into(), value.to_owned())).to_vec()),
        );
    }

    /// A start or a failure of a unit, `id` being its message id.
    pub fn start(&mut self, micros: u64, host: &str, unit: &str, id: &str, text: &str) {
        self.systemd(micros, host, unit, text);
        let id = ("MESSAGE_ID".to_owned(), id.to_owned());
        self.0.last_mut().unwrap().fields.push(id);
    }

    pub fn line(&mut self, micros: u64, host: &str, unit: &'static str, text: &str) {
        self.add(micros, host, unit, "1000", vec![("MESSAGE".to_owned(), text.to_owned())]);
    }

    /// The journal of a host.
    pub fn journal(&self, host: &str) -> Export {
        let mut stored: Vec<_> = self.0.iter().filter(|entry| entry.host == host).collect();
        stored.sort_by_key(|entry| entry.micros);
        let mut bytes = Vec::new();
        for entry in stored {
            bytes.extend(datagram(entry.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
            bytes.push(b'\n');
        }
        Export::of(&bytes)
    }

    /// The lines of all hosts.
    pub fn lines(&self, shipper: Shipper) -> Vec<Line> {
        self.0.iter().map(|entry| line(entry, shipper)).collect()
    }
}

fn line(entry: &Stored, shipper: Shipper) -> Line {
    let get =
        |name: &str| entry.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let mut labels: Labels = [("job", "devvm-journal"), ("host", &entry.host), ("unit", entry.unit)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    if shipper == Shipper::Alloy {
        let keys = entry.fields.iter().filter_map(|(name, value)| Some((name.strip_prefix("T3_")?, value)));
        labels.extend(keys.map(|(key, value)| (key.to_lowercase(), value.clone())));
        labels.insert("detected_level".to_owned(), "unknown".to_owned());
    }
    let ns = i64::try_from(entry.micros * 1000).unwrap();
    Line { ns, labels: Arc::new(labels), text: get("MESSAGE").unwrap() }
}

fn owned(fields: Vec<(std::borrow::Cow<'static, str>, String)>) -> Vec<(String, String)> {
    fields.into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
}
