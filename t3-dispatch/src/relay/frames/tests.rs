//! Tables and properties of the frame scanner.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Message,
    Text(Vec<u8>),
    /// Code, reason, and the offset in the whole stream at which the frame ended.
    Close(Option<u16>, Vec<u8>, usize),
    Breach(Breach),
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    frames: Vec<Frame>,
    base: usize,
}

impl Sink for Log {
    fn frame(&mut self, frame: Frame) {
        self.frames.push(frame);
    }
    fn message(&mut self) {
        self.events.push(Event::Message);
    }
    fn text(&mut self, payload: &[u8]) {
        self.events.push(Event::Text(payload.to_vec()));
    }
    fn close(&mut self, code: Option<u16>, reason: &[u8], end: usize) {
        self.events.push(Event::Close(code, reason.to_vec(), self.base + end));
    }
    fn breach(&mut self, breach: Breach) {
        self.events.push(Event::Breach(breach));
    }
}

fn scan(sender: Sender, extended: bool, chunks: &[&[u8]]) -> (Vec<Event>, FrameScanner) {
    let mut scanner = FrameScanner::new(sender, extended);
    let mut log = Log::default();
    for chunk in chunks {
        scanner.feed(chunk, &mut log);
        log.base += chunk.len();
    }
    (log.events, scanner)
}

fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(bit | u8::try_from(n).unwrap()),
        n @ 126..=65535 => {
            out.push(bit | 126);
            out.extend_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask.unwrap_or_default()[..if mask.is_some() { 4 } else { 0 }]);
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i & 3]));
    out
}

#[test]
fn messages_heartbeats_and_close_frames_are_reported() {
    let mask = Some([1, 2, 3, 4]);
    let mut stream = frame(0x81, br#"{"_tag":"Ping"}"#, mask);
    stream.extend(frame(0x82, &[7; 300], mask));
    stream.extend(frame(0x01, b"part", mask));
    stream.extend(frame(0x89, b"ping inside", mask));
    stream.extend(frame(0x80, b"rest", mask));
    stream.extend(frame(0x81, &[b'x'; 70_000], mask));
    stream.extend(frame(0x88, b"\x03\xe8bye", mask));
    let (events, scanner) = scan(Sender::Client, false, &[&stream]);
    assert_eq!(
        events,
        [
            Event::Message,
            Event::Text(br#"{"_tag":"Ping"}"#.to_vec()),
            Event::Message,
            Event::Message,
            Event::Message,
            Event::Close(Some(1000), b"bye".to_vec(), stream.len()),
        ]
    );
    assert!(scanner.at_boundary() && scanner.closed() && !scanner.mid_frame());
}

#[test]
fn every_breach_is_reported() {
    use Breach::*;
    use Sender::*;
    let mask = Some([9, 9, 9, 9]);
    let two = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let table: Vec<(&str, Sender, Vec<u8>, Breach)> = vec![
        ("rsv1", Client, frame(0xc1, b"a", mask), ReservedBit),
        ("rsv3 on a control frame", Server, frame(0x99, b"", None), ReservedBit),
        ("opcode 3", Server, frame(0x83, b"", None), ReservedOpcode),
        ("opcode 11", Client, frame(0x8b, b"", mask), ReservedOpcode),
        ("client without mask", Client, frame(0x81, b"a", None), Unmasked),
        ("server with mask", Server, frame(0x81, b"a", mask), Masked),
        ("long ping", Server, frame(0x89, &[0; 126], None), LongControl),
        ("fragmented ping", Server, frame(0x09, b"", None), FragmentedControl),
        ("continuation of nothing", Server, frame(0x80, b"", None), Continuation),
        ("start in a message", Client, two(frame(0x01, b"", mask), frame(0x81, b"", mask)), Continuation),
        ("length over 63 bits", Server, [&[0x82, 127, 0x80][..], &[0; 7]].concat(), HugeLength),
        ("close with one byte", Server, frame(0x88, &[3], None), BadClose),
        ("close 1005", Client, frame(0x88, &1005u16.to_be_bytes(), mask), BadClose),
        ("close 999", Client, frame(0x88, &999u16.to_be_bytes(), mask), BadClose),
        (
            "data after close",
            Server,
            two(frame(0x88, &1000u16.to_be_bytes(), None), frame(0x81, b"x", None)),
            DataAfterClose,
        ),
    ];
    for (name, sender, stream, breach) in table {
        let (events, scanner) = scan(sender, false, &[&stream, b"\xff\xff\xff anything"]);
        assert_eq!(events.last(), Some(&Event::Breach(breach)), "{name}");
        assert!(!scanner.at_boundary() && !scanner.mid_frame(), "{name}: stopped");
    }
}

#[test]
fn a_negotiated_extension_allows_reserved_bits_and_hides_the_text() {
    let (events, _) = scan(Sender::Server, true, &[&frame(0xc1, br#"{"_tag":"Pong"}"#, None)]);
    assert_eq!(events, [Event::Message]);
}

#[test]
fn a_cut_anywhere_inside_a_frame_is_mid_frame() {
    let stream = frame(0x81, &[b'x'; 200], Some([1, 2, 3, 4]));
    for cut in 1..stream.len() {
        assert!(scan(Sender::Client, false, &[&stream[..cut]]).1.mid_frame(), "{cut}");
    }
    assert!(!scan(Sender::Client, false, &[&stream]).1.mid_frame());
    assert!(!scan(Sender::Client, false, &[]).1.mid_frame());
}

#[test]
fn control_frames_may_follow_a_close_and_a_second_close_is_not_reported() {
    let mut stream = frame(0x88, &1000u16.to_be_bytes(), None);
    stream.extend(frame(0x8a, b"pong", None));
    stream.extend(frame(0x88, &1001u16.to_be_bytes(), None));
    assert_eq!(scan(Sender::Server, false, &[&stream]).0, [Event::Close(Some(1000), vec![], 4)]);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![4 => Just(0x81u8), 2 => Just(0x82), 1 => Just(0x01), 1 => Just(0x80), 1 => Just(0x8a), 1 => Just(0x88)];
    let length = prop_oneof![4 => 0usize..40, 2 => 120usize..130, 1 => 65530usize..65540];
    (first, length, any::<[u8; 4]>(), any::<u8>()).prop_map(|(first, length, mask, byte)| {
        let length = if first >= 0x88 { length.min(125) } else { length };
        let mut payload = vec![byte; length];
        if first == 0x88 && length >= 2 {
            payload[..2].copy_from_slice(&1000u16.to_be_bytes());
        }
        frame(first, &payload, Some(mask))
    })
}

/// Cuts `stream` at pseudo-random offsets derived from `cuts`.
fn split<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut offsets: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    offsets.push(0);
    offsets.push(stream.len());
    offsets.sort_unstable();
    offsets.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_reports_the_same(
        frames in prop::collection::vec(any_frame(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let stream = frames.concat();
        let (whole, one) = scan(Sender::Client, false, &[&stream]);
        let (parts, many) = scan(Sender::Client, false, &split(&stream, &cuts));
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(one.mid_frame(), many.mid_frame());
        prop_assert_eq!(one.at_boundary(), many.at_boundary());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_split_the_same(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        server in any::<bool>(),
        extended in any::<bool>(),
    ) {
        let sender = if server { Sender::Server } else { Sender::Client };
        let (whole, _) = scan(sender, extended, &[&bytes]);
        let (parts, _) = scan(sender, extended, &split(&bytes, &cuts));
        prop_assert_eq!(whole, parts);
    }
}
