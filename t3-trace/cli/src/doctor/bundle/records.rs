//! A record for a bug report: what is a number or a word of a fixed vocabulary stays, free text
//! goes. A key that is added to the record later is judged by its type, so that forgetting this
//! place leaks nothing.

use t3_record::{CloseRecord, value::Value};

use super::redact::Redactor;

/// Its line.
pub(super) fn line(record: &CloseRecord, redactor: &mut Redactor) -> String {
    let user = redactor.user(&record.user);
    let address = redactor.address(&record.ip);
    let typed = |name: &str| {
        CloseRecord::KEYS.iter().any(|key| key.name == name && key.value != <String as Value>::EXPECTED)
    };
    let mut pairs = vec![format!("user={user}"), format!("ip={address}")];
    for (name, text) in record.pairs().into_iter().filter(|(name, _)| typed(name)) {
        // Typed or not: a chain has tokens in it.
        pairs.push(format!("{name}={}", redactor.text(&text)));
    }
    pairs.join(" ")
}
