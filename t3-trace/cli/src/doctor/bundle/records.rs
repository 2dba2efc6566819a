//! Records for a bug report: numbers and values of fixed vocabularies stay, free text is removed. A
//! new key of the record is judged by its type, so it cannot leak text by omission.

use t3_record::{CloseRecord, value::Value};

use super::redact::Redactor;

/// Line of a record.
pub(super) fn line(record: &CloseRecord, redactor: &mut Redactor) -> String {
    let user = redactor.user(&record.user);
    let address = redactor.address(&record.ip);
    let typed = |name: &str| {
        CloseRecord::KEYS.iter().any(|key| key.name == name && key.value != <String as Value>::EXPECTED)
    };
    let mut pairs = vec![format!("user={user}"), format!("ip={address}")];
    for (name, text) in record.pairs().into_iter().filter(|(name, _)| typed(name)) {
        // A typed value can contain tokens, too: a chain, for example.
        pairs.push(format!("{name}={}", redactor.text(&text)));
    }
    pairs.join(" ")
}
