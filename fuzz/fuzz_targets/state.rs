//! The state of a session from another process: any bytes are refused or give a session that can
//! go on, without a panic.

#![no_main]

use std::os::fd::AsFd as _;

use libfuzzer_sys::{arbitrary, fuzz_target};
use t3_dispatch::{
    fd_store::{
        layout::{DETAILS, Layout, PAGE, SLOT, slot::LIVE},
        slot::Slot,
        state_file::StateFile,
    },
    relay::kept::{decide::decide, pick_up, positions::{MOST, seal}, restore},
    sys::tcp_counters::StreamCounters,
};
use t3_record::Side;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    slot: Vec<u8>,
    page: Vec<u8>,
    details: [Vec<u8>; 2],
    /// Positions with a right checksum instead of those in `slot`.
    positions: Option<Vec<u8>>,
    counters: [(u64, u64, bool); 2],
    traffic: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let file = StateFile::create(1).unwrap();
    let Some(layout) = Layout::new(1) else { return };
    let put = |offset: usize, bytes: &[u8], most: usize| {
        let bytes = &bytes[..bytes.len().min(most)];
        rustix::io::pwrite(file.fd(), bytes, offset as u64).unwrap();
    };
    put(layout.slot(0), &input.slot, SLOT);
    put(layout.page(0), &input.page, PAGE);
    for (copy, details) in input.details.iter().enumerate() {
        put(layout.details(0, copy), details, DETAILS);
    }
    put(layout.slot(0), &LIVE.to_ne_bytes(), 4);
    let Ok(file) = StateFile::open(file.fd().as_fd().try_clone_to_owned().unwrap()) else { return };
    for slot in Slot::live(&file) {
        if let Some(positions) = &input.positions {
            let mut bytes = [0; MOST];
            let length = positions.len().min(bytes.len());
            bytes[..length].copy_from_slice(&positions[..length]);
            let length = seal(&mut bytes, length);
            let _ = slot.commit(&bytes, length);
        }
        let Some(stored) = pick_up::read(&slot) else { continue };
        let counters = input.counters.map(|(read, written, is_closed)| StreamCounters { read, written, is_closed });
        let reading = slot.reading().map(|reading| reading.direction);
        let _ = decide(&stored.positions, stored.identity.baseline, counters, reading, 65_536);
        let Some(mut session) = restore::session(stored, 1 << 40) else { continue };
        for (n, bytes) in input.traffic.chunks(64).enumerate() {
            let side = if n % 2 == 0 { Side::Down } else { Side::Up };
            session.received(side, bytes, (1 << 40) + n as u64);
            session.add_sample(n as u64, 0, (1 << 40) + n as u64);
        }
        let _ = (session.facts_so_far(), session.timing(), session.first_end(1 << 41));
    }
});
