//! The frame scanner and its consumers: any bytes give the same results in any split, without a
//! panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use t3_dispatch::relay::{
    frames::{Frame, FrameScanner, Sender, Sink},
    heartbeat,
    liveness::Liveness,
};
use t3_record::{Side, evidence::Breach};

#[derive(Default, PartialEq, Debug)]
struct Events {
    frames: Vec<Frame>,
    messages: u64,
    texts: Vec<Vec<u8>>,
    close: Option<(Option<u16>, Vec<u8>)>,
    breach: Option<Breach>,
}

impl Sink for Events {
    fn frame(&mut self, frame: Frame) {
        self.frames.push(frame);
    }
    fn message(&mut self) {
        self.messages += 1;
    }
    fn text(&mut self, payload: &[u8]) {
        let _ = heartbeat::recognise(payload);
        self.texts.push(payload.to_vec());
    }
    fn close(&mut self, code: Option<u16>, reason: &[u8], _end: usize) {
        self.close.get_or_insert_with(|| (code, reason.to_vec()));
    }
    fn breach(&mut self, breach: Breach) {
        self.breach.get_or_insert(breach);
    }
}

fuzz_target!(|input: (bool, bool, u8, Vec<u8>)| {
    let (client, extended, step, bytes) = input;
    let sender = if client { Sender::Client } else { Sender::Server };
    let mut whole = (FrameScanner::new(sender, extended), Events::default());
    whole.0.feed(&bytes, &mut whole.1);
    let mut split = (FrameScanner::new(sender, extended), Events::default());
    for chunk in bytes.chunks(usize::from(step).max(1)) {
        split.0.feed(chunk, &mut split.1);
    }
    assert_eq!(whole.1, split.1);
    assert_eq!(whole.0.mid_frame(), split.0.mid_frame());
    assert_eq!(whole.0.closed(), split.0.closed());
    // The sizes serve as sides and times, so that messages with a period occur.
    let mut liveness = Liveness::new(extended);
    let mut now = 0;
    for frame in whole.1.frames {
        let side = if frame.size % 2 == 0 { Side::Down } else { Side::Up };
        now += frame.size * 200_000_000;
        liveness.frame(side, frame, now, now);
    }
    let facts = liveness.facts();
    assert!(facts.is_none_or(|facts| u64::from(facts.unanswered) <= facts.pings));
});
