//! The messages of the evidence socket: decoding never panics, and a decoded message survives a
//! round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_record::wire::{FromTrace, ToTrace};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = serde_json::from_slice::<ToTrace>(bytes)
        && let Ok(packet) = serde_json::to_vec(&message)
    {
        assert_eq!(serde_json::from_slice::<ToTrace>(&packet).ok(), Some(message));
    }
    if let Ok(message) = serde_json::from_slice::<FromTrace>(bytes)
        && let Ok(packet) = serde_json::to_vec(&message)
    {
        assert_eq!(serde_json::from_slice::<FromTrace>(&packet).ok(), Some(message));
    }
});
