//! The request guard: any bytes give the same results in any split, without a panic, and no other
//! bytes pass.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_dispatch::http::guard::{Limits, Refusal, framing::Framing};

struct Told {
    passed: Vec<u8>,
    heads: u64,
    refused: Option<Refusal>,
    framing: Framing,
}

fn told<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Told {
    let framing = Framing::new(Limits { head_bytes: 256, fields: 8 });
    let mut told = Told { passed: Vec::new(), heads: 0, refused: None, framing };
    for piece in pieces {
        let fed = told.framing.feed(piece);
        told.heads += fed.heads;
        told.passed.extend_from_slice(&fed.held);
        told.passed.extend_from_slice(&piece[fed.pass]);
        told.refused = fed.refused;
        if told.refused.is_some() {
            told.framing.refuse();
            break;
        }
    }
    told
}

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let whole = told(std::iter::once(bytes));
    let split = told(bytes.chunks(usize::from(*step).max(1)));
    assert_eq!((&whole.passed, whole.heads, whole.refused), (&split.passed, split.heads, split.refused));
    assert_eq!(whole.framing.place(), split.framing.place());
    assert!(bytes.starts_with(&whole.passed));
});
