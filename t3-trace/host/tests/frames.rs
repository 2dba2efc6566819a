//! Following a WebSocket gives the code of the Close frame, or nothing; never a wrong one. Compiles
//! the parser of the eBPF programs.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../../t3-trace-ebpf/src/frames.rs"]
#[allow(dead_code, reason = "the kernel side uses more of it")]
mod frames;

use frames::{CLOSED, FRAMES, HEAD, LOST, OTHER, Stream};
use proptest::prelude::*;

/// What the hook does with a call of these bytes (`probes::message`), without its limits.
fn call(stream: &mut Stream, mut bytes: &[u8], is_sent: bool) -> bool {
    let mut is_close = false;
    while !bytes.is_empty() && !stream.is_over() {
        let in_head = stream.phase() <= HEAD;
        let wanted = if in_head { stream.wants_of_head(is_sent) } else { stream.wants() };
        let wanted = usize::try_from(wanted).unwrap();
        assert!(wanted <= 16);
        let used = if wanted == 0 && in_head {
            bytes[bytes.len().saturating_sub(4)..].iter().for_each(|byte| stream.pass_head(*byte));
            bytes.len()
        } else if wanted == 0 {
            usize::try_from(stream.pass(bytes.len() as u64)).unwrap()
        } else {
            let count = wanted.min(bytes.len());
            let have = usize::try_from(stream.have()).unwrap();
            stream.bytes[have..have + count].copy_from_slice(&bytes[..count]);
            let pushed = u32::try_from(count).unwrap();
            if in_head {
                usize::try_from(stream.push_head(pushed, is_sent)).unwrap()
            } else {
                is_close |= stream.push(pushed, is_sent);
                count
            }
        };
        bytes = &bytes[used..];
    }
    is_close
}

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

/// After the handshake.
fn open(is_sent: bool) -> Stream {
    let mut stream = Stream::NEW;
    if is_sent {
        call(&mut stream, ANSWER, true);
    } else {
        call(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        stream.end_head();
    }
    assert_eq!(stream.phase(), FRAMES);
    stream
}

/// A frame with this first byte. The key of the mask is that of a client.
fn frame(first: u8, payload: &[u8], is_sent: bool) -> Vec<u8> {
    let mask = if is_sent { 0 } else { 0x80 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(mask | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            frame.push(mask | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let key: [u8; 4] = if is_sent { [0; 4] } else { [0x88, 0x02, 0x03, 0xe8] };
    if !is_sent {
        frame.extend(key);
    }
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn close(code: u16, is_sent: bool) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes()[..], b"reason"].concat(), is_sent)
}

#[test]
fn frames_of_every_form_are_passed() {
    for is_sent in [false, true] {
        for frames in [
            vec![],
            vec![frame(0x81, b"x", is_sent)],
            vec![frame(0x82, &[0x88; 126], is_sent), frame(0x82, &[0x88; 0xffff], is_sent)],
            vec![frame(0x82, &[0x88; 0x1_0000], is_sent)],
            vec![frame(0x89, b"", is_sent), frame(0x8a, &[0x88; 125], is_sent)],
            vec![frame(0xc1, &[0x88, 0x02, 3, 4], is_sent)],
            vec![frame(0x41, b"a", is_sent), frame(0x89, b"p", is_sent), frame(0x00, b"b", is_sent)],
        ] {
            let bytes = frames.concat();
            let mut stream = open(is_sent);
            assert!(!call(&mut stream, &bytes, is_sent));
            assert_eq!((stream.phase(), stream.code()), (FRAMES, 0), "{bytes:x?}");
            let is_fragment = frames.last().is_some_and(|last| last[0] == 0);
            let last = if is_fragment { frame(0x80, b"", is_sent) } else { Vec::new() };
            assert!(call(&mut stream, &[last, close(1001, is_sent)].concat(), is_sent));
            assert_eq!((stream.phase(), stream.code(), stream.is_complete()), (CLOSED, 1001, true));
        }
        let mut stream = open(is_sent);
        assert!(call(&mut stream, &frame(0x88, b"", is_sent), is_sent));
        assert_eq!((stream.phase(), stream.code()), (CLOSED, 0));
        call(&mut stream, b"x", is_sent);
        assert_eq!((stream.phase(), stream.code(), stream.is_complete()), (LOST, 0, false));
    }
}

#[test]
fn what_is_not_a_frame_of_this_direction_is_lost() {
    for is_sent in [false, true] {
        let own = |first, payload: &[u8]| frame(first, payload, is_sent);
        let mut rows = vec![
            ("mask of the other direction", frame(0x81, b"x", !is_sent)),
            ("RSV2", own(0xa1, b"x")),
            ("RSV3", own(0x91, b"x")),
            ("compressed control frame", own(0xc9, b"x")),
            ("compressed continuation", [own(0x01, b"x"), own(0xc0, b"x")].concat()),
            ("reserved opcode", own(0x83, b"x")),
            ("reserved control opcode", own(0x8b, b"x")),
            ("continuation of nothing", own(0x80, b"x")),
            ("start inside a message", [own(0x01, b"x"), own(0x81, b"x")].concat()),
            ("control frame in fragments", own(0x08, b"")),
            ("long control frame", own(0x88, &[3; 126])),
            ("Close with one byte", own(0x88, &[3])),
            ("long form of a short length", vec![0x82, if is_sent { 126 } else { 254 }, 0, 125, 1, 2, 3, 4]),
            (
                "64-bit form of a short length",
                [&[0x82, if is_sent { 127 } else { 255 }][..], &[0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4]]
                    .concat(),
            ),
            ("negative length", [&[0x82, if is_sent { 127 } else { 255 }, 128][..], &[1; 11]].concat()),
            ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ];
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 0xffff] {
            rows.push(("no code", close(code, is_sent)));
        }
        for (name, bytes) in rows {
            let mut stream = open(is_sent);
            assert!(!call(&mut stream, &[bytes, close(1000, is_sent)].concat(), is_sent), "{name}");
            assert_eq!((stream.phase(), stream.code()), (LOST, 0), "{name}, {is_sent}");
            assert!(!stream.is_complete());
        }
    }
}

#[test]
fn only_a_handshake_is_one() {
    for (bytes, is_sent, phase) in [
        (&b"HTTP/1.1 200 OK\r\n\r\n"[..], true, OTHER),
        (b"HTTP/1.1 1010 OK\r\n\r\n", true, OTHER),
        (b"HTTP/1.0 101 OK\r\n\r\n", true, OTHER),
        (b"HTTP/1.1 101 ", true, HEAD),
        (b"POST / HTTP/1.1\r\n\r\n", false, OTHER),
        (b"\x16\x03\x01\x02\x00\x01", false, OTHER),
        (b"GET / HTTP/1.1\r\n\r\n", false, HEAD),
    ] {
        let mut stream = Stream::NEW;
        call(&mut stream, bytes, is_sent);
        assert_eq!(stream.phase(), phase, "{}", String::from_utf8_lossy(bytes));
    }
    // The client sent frames before it had the answer: where they begin is not known.
    let mut stream = Stream::NEW;
    call(&mut stream, b"GET / HTTP/1.1\r\n\r\n\x81\x80\0\0\0\0", false);
    stream.end_head();
    assert_eq!(stream.phase(), LOST);
}

/// A valid frame other than a Close frame: in a fragmented message or not.
fn any_frame() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let payload = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        // Looks like a Close frame.
        4 => Just(b"\x88\x02\x03\xe8\x88\x82\0\0\0\0\x03\xe8".to_vec()),
        2 => (120_usize..300).prop_map(|length| vec![0x88; length]),
        1 => (65_500_usize..65_600).prop_map(|length| vec![0x88; length]),
    ];
    (prop_oneof![Just(0x81), Just(0x82), Just(0xc1), Just(0x89), Just(0x8a), Just(0x01)], payload)
}

fn bytes_of(frames: &[(u8, Vec<u8>)], is_sent: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut is_fragmented = false;
    for (first, payload) in frames {
        let first = match (first, is_fragmented) {
            (0x89 | 0x8a, _) => *first,
            (0x01, true) => 0x00,
            (_, true) => 0x80,
            (_, false) => *first,
        };
        if first & 0x0f < 8 {
            is_fragmented = first & 0x80 == 0;
        }
        let payload = if first & 0x0f >= 8 { &payload[..payload.len().min(125)] } else { payload };
        bytes.extend(frame(first, payload, is_sent));
    }
    bytes
}

proptest! {
    #[test]
    fn the_code_is_found_however_the_bytes_are_cut(
        frames in proptest::collection::vec(any_frame(), 0..12),
        code in prop_oneof![Just(None), (1000_u16..1004).prop_map(Some), (3000_u16..5000).prop_map(Some)],
        cuts in proptest::collection::vec(1_usize..200, 1..40),
        is_sent: bool,
    ) {
        let mut bytes = bytes_of(&frames, is_sent);
        bytes.extend(code.map(|code| close(code, is_sent)).unwrap_or_default());
        let (mut stream, mut rest) = (open(is_sent), &bytes[..]);
        let mut closes = 0;
        for cut in cuts.iter().chain(std::iter::repeat(&70_000)) {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            closes += u32::from(call(&mut stream, now, is_sent));
            rest = later;
        }
        prop_assert_eq!((stream.code(), closes), (code.unwrap_or(0), u32::from(code.is_some())));
        prop_assert!(stream.is_complete());
    }

    #[test]
    fn a_head_is_found_however_it_is_cut(cuts in proptest::collection::vec(1_usize..30, 1..20), code in 3000_u16..5000) {
        let bytes = [ANSWER, &frame(0x81, b"\r\n\r\n", true), &close(code, true)].concat();
        let (mut stream, mut rest) = (Stream::NEW, &bytes[..]);
        for cut in cuts.iter().chain(std::iter::repeat(&1_000)) {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            call(&mut stream, now, true);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!((stream.phase(), stream.code()), (CLOSED, code));
    }

    #[test]
    fn any_bytes_are_followed_or_lost(bytes in proptest::collection::vec(any::<u8>(), 0..600), is_sent: bool) {
        let mut stream = open(is_sent);
        let is_close = call(&mut stream, &bytes, is_sent);
        prop_assert_eq!(stream.code() != 0, is_close && stream.code() != 0);
        prop_assert!(stream.code() == 0 || (1000..5000).contains(&stream.code()));
    }
}
