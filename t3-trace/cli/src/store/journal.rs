//! The journal as a store: journalctl with the terms of a selection.

use std::ops::ControlFlow;

use super::{Query, ReadError, Store, wanted};
use crate::journal::{export_format::Entry, journalctl, source_args::JournalSource, warnings::Warnings};

/// A journal, of this host or a copy.
#[derive(Debug)]
pub struct JournalStore {
    place: JournalSource,
}

impl JournalStore {
    #[must_use]
    pub fn new(place: &JournalSource) -> Self {
        Self { place: place.clone() }
    }

    fn query(&self, query: &Query) -> journalctl::Query {
        journalctl::Query {
            since: query.since,
            until: query.until,
            reverse: query.reverse,
            place: self.place.clone(),
            // A record is most of its entry; for journalctl, looking up each field in a list costs
            // more than writing it.
            fields: Vec::new(),
            matches: wanted::terms(&query.wanted),
            often_empty: query.often_empty,
        }
    }
}

impl Store for JournalStore {
    fn entries(
        &self,
        query: &Query,
        each: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<Warnings, ReadError> {
        let (_, warnings) = journalctl::entries(&self.query(query), |entry| match each(entry) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(()),
        })?;
        Ok(warnings)
    }

    fn is_here(&self) -> bool {
        self.place.is_here()
    }

    fn name(&self) -> &'static str {
        "the journal"
    }
}
