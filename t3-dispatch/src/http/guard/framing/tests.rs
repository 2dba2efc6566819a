//! Tests of the framing: forwarded bytes, violations, and independence of the split.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { head_bytes: 4096, fields: 16 };
const GET: &str = "GET /a HTTP/1.1\r\nHost: t3\r\n\r\n";
const SOCKET: &str = "GET /ws HTTP/1.1\r\nHost: t3\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// The forwarded bytes, the number of heads in them, and the reason for the end.
fn feed_in(pieces: &[&[u8]]) -> (Vec<u8>, u64, Option<Violation>, Framing) {
    let mut framing = Framing::new(LIMITS);
    let (mut through, mut heads, mut refused) = (Vec::new(), 0, None);
    for piece in pieces {
        let fed = framing.feed(piece);
        through.extend_from_slice(&fed.held);
        through.extend_from_slice(&piece[fed.pass]);
        heads += fed.heads;
        refused = refused.or(fed.violation);
    }
    (through, heads, refused, framing)
}

fn whole(text: &str) -> (String, u64, Option<Violation>, RequestPhase) {
    let (through, heads, refused, framing) = feed_in(&[text.as_bytes()]);
    (String::from_utf8(through).unwrap(), heads, refused, framing.phase())
}

#[test]
fn valid_pipelined_requests_pass_unchanged() {
    let body = "POST / HTTP/1.1\r\nHost: t3\r\nContent-Length: 5\r\n\r\nhe\n\0o";
    let chunks = "POST / HTTP/1.1\r\nHost: t3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\n";
    let all = [GET, body, chunks, "\r\n", GET].concat();
    assert_eq!(whole(&all), (all.clone(), 4, None, RequestPhase::Between));
}

#[test]
fn an_incomplete_head_is_held() {
    let start = &GET[..GET.len() - 1];
    assert_eq!(whole(&[GET, start].concat()), (GET.to_owned(), 1, None, RequestPhase::Head));
    assert_eq!(whole("\r\n"), (String::new(), 0, None, RequestPhase::Between));
    let mut framing = Framing::new(LIMITS);
    assert_eq!(framing.feed(start.as_bytes()), FeedResult::default());
    assert_eq!(framing.held(), start.len());
    let fed = framing.feed(b"\nGET");
    assert_eq!((fed.held.as_slice(), fed.pass), (GET.as_bytes(), 1..1));
    assert_eq!(framing.held(), 3);
}

#[test]
fn no_byte_of_a_rejected_head_or_after_it_passes() {
    use Violation as R;
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: t3\r\n\r\n", "a".repeat(REQUEST_LINE));
    let long_field = format!("GET / HTTP/1.1\r\nHost: t3\r\nX: {}\r\n\r\n", "a".repeat(4096));
    for (bad, why) in [
        ("GET / HTTP/1.1\nHost: t3\n\n", R::LineEnd),
        ("GET / HTTP/1.1\r\nHost: t3\r\nX: 1\n\r\n", R::LineEnd),
        ("GET / HTTP/1.1\r\nHost: t3\r\nX: 1\rY: 2\r\n\r\n", R::LineEnd),
        ("GET / HTTP/1.1\r\nHost: t3\r\n\n", R::LineEnd),
        ("GET / HTTP/1.1\r\nHost: t3\r\r\n\r\n", R::LineEnd),
        ("\nGET / HTTP/1.1\r\nHost: t3\r\n\r\n", R::LineEnd),
        ("\r\n\r\n\r\n", R::RequestLine),
        ("\r\n \r\n", R::RequestLine),
        ("GET / HTTP/1.1\r\nHost: t3\r\nX: \0\r\n\r\n", R::Control),
        ("GET / HTTP/1.1\r\nHost: t3\r\nX: \u{7f}\r\n\r\n", R::Control),
        ("GET / HTTP/1.1\r\nHost: t3\r\nX\u{b}: 1\r\n\r\n", R::Control),
        ("\u{16}\u{3}\u{1}", R::Tls),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", R::Http2),
        (&long_target[..4000], R::HeadTooLarge),
        (&long_field, R::HeadTooLarge),
    ] {
        let bad = if why == R::HeadTooLarge { bad.repeat(2) } else { bad.to_owned() };
        let text = [GET, &bad, GET].concat();
        assert_eq!(whole(&text), (GET.to_owned(), 1, Some(why), RequestPhase::Rejected), "{bad:?}");
    }
    let mut roomy = Framing::new(Limits { head_bytes: 65536, fields: 16 });
    assert_eq!(roomy.feed(long_target.as_bytes()).violation, Some(R::TargetTooLong));
}

#[test]
fn only_the_valid_part_of_a_malformed_body_passes() {
    let head = "POST / HTTP/1.1\r\nHost: t3\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = format!("{head}3\r\nabcX\r\n0\r\n\r\n{GET}");
    let passed = format!("{head}3\r\nabc");
    assert_eq!(whole(&text), (passed, 1, Some(Violation::Chunk), RequestPhase::Rejected));
}

#[test]
fn bytes_after_an_upgrade_are_not_parsed() {
    let text = [SOCKET, "\u{1}\0\n anything", GET].concat();
    let (through, heads, refused, framing) = feed_in(&[text.as_bytes()]);
    assert_eq!((through.as_slice(), heads, refused), (SOCKET.as_bytes(), 1, None));
    assert_eq!(framing.phase(), RequestPhase::Upgrade);
    assert_eq!(framing.into_held(), &text.as_bytes()[SOCKET.len()..]);
}

/// Text that resembles HTTP.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => proptest::sample::select(vec![
            GET, SOCKET, "POST / HTTP/1.1\r\n", "Host: t3\r\n", "Content-Length: 3\r\n\r\nabc", "\r\n", "\n", "\r", " ", "0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n", "2\r\nab\r\n", "1;x\r\nb\r\n", "X: y\r\n", "Content-Length: 1\r\n", "A", ":",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_results(
        bytes in nearly_http(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let whole = feed_in(&[&bytes]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        for split in [feed_in(&pieces), feed_in(&single)] {
            prop_assert_eq!((&split.0, split.1, split.2), (&whole.0, whole.1, whole.2));
            prop_assert_eq!(split.3.phase(), whole.3.phase());
            prop_assert_eq!(split.3.held(), whole.3.held());
        }
    }

    #[test]
    fn passed_bytes_are_a_prefix_and_the_rest_is_held_or_rejected(bytes in nearly_http()) {
        let (through, _, refused, framing) = feed_in(&[&bytes]);
        prop_assert!(bytes.starts_with(&through));
        prop_assert_eq!(refused.is_some(), framing.phase() == RequestPhase::Rejected);
        if refused.is_none() {
            let held = framing.into_held();
            prop_assert_eq!(&bytes[through.len()..], held.as_slice());
        }
    }
}
