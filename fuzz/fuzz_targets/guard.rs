//! The request guard: any bytes give the same results in any split, without a panic, and no other
//! bytes pass.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_dispatch::http::guard::{Limits, Violation, framing::Framing};

struct Outcome {
    passed: Vec<u8>,
    heads: u64,
    refused: Option<Violation>,
    framing: Framing,
}

fn feed<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let framing = Framing::new(Limits { head_bytes: 256, fields: 8 });
    let mut outcome = Outcome { passed: Vec::new(), heads: 0, refused: None, framing };
    for piece in pieces {
        let fed = outcome.framing.feed(piece);
        outcome.heads += fed.heads;
        outcome.passed.extend_from_slice(&fed.held);
        outcome.passed.extend_from_slice(&piece[fed.pass]);
        outcome.refused = fed.violation;
        if outcome.refused.is_some() {
            outcome.framing.reject();
            break;
        }
    }
    outcome
}

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let whole = feed(std::iter::once(bytes));
    let split = feed(bytes.chunks(usize::from(*step).max(1)));
    assert_eq!((&whole.passed, whole.heads, whole.refused), (&split.passed, split.heads, split.refused));
    assert_eq!(whole.framing.phase(), split.framing.phase());
    assert!(bytes.starts_with(&whole.passed));
});
