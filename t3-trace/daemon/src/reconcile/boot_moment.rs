//! A time of one boot.

use serde::{Deserialize, Serialize};
use t3_record::reconcile::Moment;

/// A time, and the boot whose clock it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootMoment {
    /// Id of the boot, as journald writes it.
    pub(crate) boot: String,
    /// The time.
    pub(crate) at: Moment,
}
