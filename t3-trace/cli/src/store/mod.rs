//! Stores of records: the journal of a host, and Loki with the journals of many.
//!
//! Both deliver journal entries, so that everything above is the same code and prints the same
//! page. `journal` and `loki` do IO; the selection (`wanted`), its LogQL (`selector`), the
//! pages (`pager`), the entries (`line`) and the messages of systemd (`starts`) are pure.

pub mod args;
mod journal;
pub mod line;
mod loki;
pub mod pager;
pub mod selector;
pub mod starts;
pub mod survey;
pub mod wanted;

use std::ops::ControlFlow;

pub use self::{
    args::{StoreArgs, StoreKind},
    journal::JournalStore,
    loki::{LokiError, LokiStore},
    survey::Survey,
    wanted::{Kind, Term, Want},
};
use crate::{
    journal::{export_format::Entry, journalctl, source_args::JournalSource, warnings::Warnings},
    server::LokiArgs,
    time::Moment,
};

/// Selection of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Start, included.
    pub since: Option<Moment>,
    /// End, included.
    pub until: Option<Moment>,
    /// Newest first.
    pub reverse: bool,
    /// Alternatives.
    pub wanted: Vec<Want>,
    /// Of several hosts in the store, only this one.
    pub host: Option<String>,
    /// No entries are no reason to check whether there are any at all: another query does.
    pub often_empty: bool,
}

/// The store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Journal(#[from] journalctl::ReadError),
    #[error(transparent)]
    Loki(#[from] LokiError),
}

/// A store of journal entries.
pub trait Store {
    /// Calls `each` for every entry, in the order of time within one alternative, until it breaks.
    /// Returns warnings, without which everything was read.
    ///
    /// # Errors
    /// The store was not read to its end, or there is none.
    fn entries(
        &self,
        query: &Query,
        each: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<Warnings, ReadError>;

    /// Returns the hosts with records in the range, and their last lines; nothing for a store that
    /// does not know.
    ///
    /// # Errors
    /// The store cannot be read.
    fn survey(&self, _query: &Query) -> Result<Survey, ReadError> {
        Ok(Survey::default())
    }

    /// Whether it is the journal of this host.
    fn is_here(&self) -> bool {
        false
    }

    /// Whether a search without a start costs a request per day.
    fn needs_start(&self) -> bool {
        false
    }

    /// Object of an error message.
    fn name(&self) -> &'static str;
}

/// Calls `each` for every entry until it fails; returns its result and the warnings.
///
/// # Errors
/// As [`Store::entries`].
pub fn read<E>(
    store: &dyn Store,
    query: &Query,
    mut each: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(Result<(), E>, Warnings), ReadError> {
    let mut result = Ok(());
    let warnings = store.entries(query, &mut |entry| match each(entry) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            result = Err(error);
            ControlFlow::Break(())
        }
    })?;
    Ok((result, warnings))
}

/// Opens the store of these options.
///
/// # Errors
/// [`LokiError`]: options that exclude each other, an address or credentials that cannot be used.
pub fn open(args: &StoreArgs, place: &JournalSource, loki: &LokiArgs) -> Result<Box<dyn Store>, ReadError> {
    match args.from {
        StoreKind::Journal if !args.host.is_empty() => Err(LokiError::Host.into()),
        StoreKind::Journal => Ok(Box::new(JournalStore::new(place))),
        StoreKind::Loki if *place != JournalSource::default() => Err(LokiError::Place.into()),
        StoreKind::Loki => Ok(Box::new(LokiStore::open(args, loki)?)),
    }
}
