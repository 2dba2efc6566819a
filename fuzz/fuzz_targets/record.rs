//! The record decoder: log lines are hostile input. An accepted record survives a round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_record::{AttemptsRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord, logfmt};

fuzz_target!(|text: &str| {
    let _ = logfmt::parse(text);
    let _ = OpenRecord::from_line(text);
    let _ = BurstRecord::from_line(text);
    let _ = AttemptsRecord::from_line(text);
    let _ = TcpCloseRecord::from_line(text);
    if let Ok(record) = CloseRecord::from_line(text) {
        let line = record.to_line();
        assert!(!line.chars().any(char::is_control));
        assert_eq!(CloseRecord::from_line(&line).as_ref(), Ok(&record));
    }
});
