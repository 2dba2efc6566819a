//! Fake of a journal: entries in the export format, selected by the terms of journalctl(1).

use std::{collections::BTreeMap, ops::ControlFlow};

use t3_trace_cli::{
    journal::{
        export_format::{Entries, Entry},
        warnings::Warnings,
    },
    store::{Query, ReadError, Store, wanted},
};

/// Entries, sorted by time.
pub struct Export(Vec<Entry>);

impl Export {
    /// Parses the export format.
    pub fn of(bytes: &[u8]) -> Self {
        let mut entries = Entries::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = entries.read().unwrap() {
            let mut copy = Entry::default();
            entry.fields().for_each(|(name, value)| copy.add(name, value));
            all.push(copy);
        }
        Self(all)
    }
}

impl Store for Export {
    fn entries(
        &self,
        query: &Query,
        each: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<Warnings, ReadError> {
        let terms = wanted::terms(&query.wanted);
        let mut found: Vec<&Entry> = self.0.iter().collect();
        found.retain(|entry| {
            let at = entry.micros().unwrap();
            query.since.is_none_or(|since| since.epoch_micros() <= at)
                && query.until.is_none_or(|until| at <= until.epoch_micros())
                && selects(&terms, entry)
        });
        if query.reverse {
            found.reverse();
        }
        let _ = found.into_iter().try_for_each(each);
        Ok(Warnings::default())
    }

    fn name(&self) -> &'static str {
        "the journal"
    }
}

/// Terms of one field are alternatives, of several fields must all match, `+` separates
/// alternatives.
fn selects(terms: &[String], entry: &Entry) -> bool {
    terms.split(|term| term == "+").any(|all| {
        let mut fields: BTreeMap<&str, bool> = BTreeMap::new();
        for term in all {
            let (name, value) = term.split_once('=').unwrap();
            let holds = entry.fields().any(|(other, found)| other == name && found == value);
            *fields.entry(name).or_default() |= holds;
        }
        fields.values().all(|holds| *holds)
    })
}
