//! Tests of tag insertion, compared with a browser's HTML parser, and of header changes.

use html5ever::{ParseOpts, parse_document, tendril::TendrilSink};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Bytes, Frame};
use markup5ever_rcdom::{Handle, NodeData, RcDom};
use proptest::prelude::*;

use super::{head_scanner::MAX_HEAD, *};

/// Returns the end of the head, scanned in pieces of these lengths.
fn find(document: &[u8], pieces: &[usize]) -> Option<u64> {
    let (mut scanner, mut rest, mut pieces) =
        (head_scanner::Scanner::default(), document, pieces.iter().cycle());
    while !rest.is_empty() {
        let length = pieces.next().map_or(rest.len(), |length| (*length).clamp(1, rest.len()));
        let (piece, others) = rest.split_at(length);
        match scanner.feed(piece) {
            Some(HeadPosition::At(at)) => return Some(at),
            Some(HeadPosition::Absent) => return None,
            None => rest = others,
        }
    }
    None
}

/// Returns the document with tags, if they can be inserted.
fn tagged(document: &[u8], pieces: &[usize]) -> Vec<u8> {
    let at = find(document, pieces).map(|at| usize::try_from(at).unwrap());
    at.map_or_else(|| document.to_vec(), |at| [&document[..at], TAGS.as_bytes(), &document[at..]].concat())
}

#[test]
fn tags_are_inserted_only_before_the_end_of_the_head() {
    // `|` marks the position of the tags.
    for document in [
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>T3</title>|</head><body></body></html>",
        "\u{feff}<!DOCTYPE html>\n<HTML>\n<HEAD>\n|</HEAD >",
        "<head>|</head>",
        "|</head>",
        "<title>a</title>|</head><p>",
        "<head>|</head/x><body>",
        "<head><!-- </head> -->|</head>",
        "<head><!-->|</head>--><body>",
        "<head><!-->|</head>",
        "<head><!--->|</head>",
        "<head><!-- --!>|</head>",
        "<head><!-- -- > </head> --->|</head>",
        "<head><!-x>|</head>",
        "<head><!x </head>|</head>",
        "<head><?x </head>|</head>",
        "<head></ x </head>|</head>",
        "<head></>|</head>",
        "<head><![CDATA[</head>]]></head>",
        "<head><script>'</head>' + \"</scripts>\" < 1 <</script>|</head>",
        "<head><script src=x></script >\n<SCRIPT type=\"a>b\">1</ScRiPt x='>' >|</head>",
        "<head><script><!-- x --></script>|</head>",
        "<head><style></head></style><noscript></head></noscript>|</head>",
        "<head><title></head></title >|</head>",
        "<head><title><<</title</title>|</head>",
        "<head><meta content='</head>'><meta content=\"</head>\">|</head>",
        "<head><meta content=</head><body>",
        "<head><meta x=y/>|</head>",
        "<head><link rel=icon href=/manifest><link rel = 'stylesheet'>|</head>",
        "<head><meta rel=manifest>|</head>",
        "<head></meta></link></p></svg>|</head>",
        // Unchanged.
        "",
        "no html",
        "<p></head>",
        "<head>text</head>",
        "<head><div></head>",
        "<head><body></head>",
        "<head></body></head>",
        "<head></html></head>",
        "<head><headers></head>",
        "<head></headers>|</head>",
        "<head><svg></svg></head>",
        "<head><template></head></template></head>",
        "<head><script><!--<script></script></head>--></script></head>",
        "<head><script></head>",
        "<head><!-- </head>",
        "<head><title></head>",
        "<head><link rel=manifest href=/m></head>",
        "<head><link href=/m rel='x MANIFEST y'></head>",
        "<head><LINK\nREL\n=\n\"Manifest\"/></head>",
        "<head><meta x='",
        "\u{feff}\u{feff}<head></head>",
        "\0<head></head>",
        "<head",
        "<head></head",
        "{\"json\": \"</head>\"}",
    ] {
        let expected = document.find('|').map(|at| at as u64);
        let document = document.replace('|', "");
        // Incomplete as they are, those end before the tag does.
        for pieces in [&[usize::MAX][..], &[1], &[2], &[3, 5, 1]] {
            assert_eq!(find(document.as_bytes(), pieces), expected, "{document:?} in {pieces:?}");
        }
    }
    let utf16: Vec<u8> = "<head></head>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(find(&utf16, &[usize::MAX]), None);
}

#[test]
fn a_head_that_does_not_end_within_the_bound_is_left_alone() {
    let longest = usize::try_from(MAX_HEAD).unwrap();
    for (spaces, found) in [(longest - "</head>".len(), true), (longest, false)] {
        let document = format!("{}</head>", " ".repeat(spaces));
        assert_eq!(find(document.as_bytes(), &[16384]).is_some(), found, "{spaces}");
    }
}

/// A tree as text, one node a line.
fn outline(document: &[u8]) -> String {
    fn node(handle: &Handle, depth: usize, out: &mut String) {
        use std::fmt::Write;
        let _ = match &handle.data {
            NodeData::Document => Ok(()),
            NodeData::Doctype { name, .. } => writeln!(out, "{depth} doctype {name}"),
            NodeData::Text { contents } => writeln!(out, "{depth} text {:?}", contents.borrow()),
            NodeData::Comment { contents } => writeln!(out, "{depth} comment {contents:?}"),
            NodeData::Element { name, attrs, .. } => {
                let attrs = attrs.borrow();
                let attrs: Vec<String> =
                    attrs.iter().map(|attr| format!("{}={:?}", attr.name.local, attr.value)).collect();
                writeln!(out, "{depth} <{} {}>", name.local, attrs.join(" "))
            }
            NodeData::ProcessingInstruction { .. } => writeln!(out, "{depth} instruction"),
        };
        for child in handle.children.borrow().iter() {
            node(child, depth + 1, out);
        }
    }
    let dom = parse_document(RcDom::default(), ParseOpts::default()).from_utf8().one(document);
    let mut out = String::new();
    node(&dom.document, 0, &mut out);
    out
}

/// The children of the head.
fn tags_in_head() -> String {
    let outline = outline(format!("<head>{TAGS}</head>").as_bytes());
    outline.lines().filter(|line| line.starts_with("3 ")).map(|line| format!("{line}\n")).collect()
}

/// Complete elements that a head may contain.
fn good() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "<!-- </head> -->",
        "<!---->",
        "<!-->",
        "<! </head>",
        "<script>'</head>'</script>",
        "<script>a < b <!-- </script >",
        "<SCRIPT src='</head>'></SCRIPT\n>",
        "<style></head></style>",
        "<title>a </head> &lt; </title x>",
        "<noscript></head></noscript>",
        "<meta content='</head>'>",
        "<meta content=\"</head>\"/>",
        "<link rel=icon href=/i>",
        "<base href=/>",
        "<head>",
        "<html lang=de>",
        "</link>",
        "</>",
        " ",
        "\r\n\t\u{c}",
    ])
}

/// Fragments that end a head or are incomplete.
fn odd() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "</head>",
        "</HEAD >",
        "</head\n",
        "</head/",
        "<head a",
        "<body>",
        "</body>",
        "</html>",
        "<div>",
        "text",
        "<",
        ">",
        "/",
        "'",
        "\"",
        "=",
        "-",
        "--",
        "!",
        "<!--",
        "-->",
        "--!>",
        "<!",
        "<?",
        "</",
        "<!-",
        "<![CDATA[",
        "<script>",
        "<script ",
        "</script>",
        "</script ",
        "<SCRIPT",
        "</scripts>",
        "<style>",
        "</style>",
        "<title>",
        "</title>",
        "</title",
        "<noscript>",
        "</noscript>",
        "<noframes>",
        "</noframes>",
        "<template>",
        "</template>",
        "<meta ",
        "<link ",
        "rel=\"manifest\"",
        "rel=manifest",
        " x='</head>' ",
        " y=</head>",
        " z=\"",
        "<svg>",
        "<br>",
        "</br>",
        "</p>",
        "x=y",
        "\u{feff}",
        "\0",
        "<h",
        "<frameset>",
        "&lt;",
        "<!doctype html>",
    ])
}

fn page() -> impl Strategy<Value = String> {
    let pieces = |good_of_ten: u32| {
        let piece = prop_oneof![good_of_ten => good(), 10 - good_of_ten => odd()];
        prop::collection::vec(piece, 0..16)
    };
    (any::<bool>(), prop_oneof![pieces(9), pieces(5)]).prop_map(|(proper, pieces)| {
        let mut text = if proper { "<!doctype html><html><head>".to_owned() } else { String::new() };
        text.extend(pieces);
        if proper {
            text.push_str("</head><body>x</body>");
        }
        text
    })
}

/// The properties below are not vacuous.
#[test]
fn generated_pages_include_changed_and_unchanged_ones() {
    use prop::strategy::ValueTree;
    let mut runner = prop::test_runner::TestRunner::deterministic();
    let mut make = || page().new_tree(&mut runner).unwrap().current();
    let changed = (0..1000).filter(|_| find(make().as_bytes(), &[usize::MAX]).is_some()).count();
    assert!((200..800).contains(&changed), "{changed} of 1000");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// A browser parses the page with tags like the page without, plus the tags at the end of the
    /// head.
    #[test]
    fn a_browser_sees_the_same_page_with_the_tags_in_its_head(page in page()) {
        let page = page.as_bytes();
        let tagged = tagged(page, &[usize::MAX]);
        if tagged != page {
            let (before, after) = (outline(page), outline(&tagged));
            let tags = tags_in_head();
            prop_assert!(after.contains(&tags), "{}", after);
            prop_assert_eq!(after.replacen(&tags, "", 1), before);
            let head = after.split("\n2 <body").next().unwrap_or_default();
            prop_assert!(head.contains(tags.trim_end()), "tags are outside the head: {}", after);
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_split(page in page(), pieces in prop::collection::vec(1_usize..20, 1..8)) {
        prop_assert_eq!(find(page.as_bytes(), &pieces), find(page.as_bytes(), &[usize::MAX]));
    }

    #[test]
    fn any_bytes_pass_with_at_most_one_insertion(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1_usize..9) {
        let tagged = tagged(&bytes, &[cut]);
        prop_assert!(tagged == bytes || tagged.len() == bytes.len() + TAGS.len());
    }
}

#[test]
fn a_page_with_all_head_elements_is_changed() {
    let page = b"<!doctype html><html><head><base href=/><meta charset=utf-8><link rel=icon><title>x</title><style>a</style>\
        <script>b</script><noscript>c</noscript><!-- d --></head><body><p>e</body></html>";
    let tagged = tagged(page, &[7]);
    assert_eq!(tagged.len(), page.len() + TAGS.len());
    assert_eq!(outline(&tagged).replacen(&tags_in_head(), "", 1), outline(page));
}

const PAGE: &str = "<!doctype html><head><title>x</title></head><body>hello</body>";

fn in_pieces(pieces: Vec<Piece>) -> ResponseBody {
    ResponseBody::boxed(StreamBody::new(futures_util::stream::iter(pieces)))
}

fn response(headers: &[(&'static str, &str)], body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    for (name, value) in headers {
        response.headers_mut().append(*name, value.parse().unwrap());
    }
    response
}

fn request(headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

async fn answered(
    page_request: Option<PageRequest>,
    response: Response<ResponseBody>,
) -> (http::response::Parts, String) {
    let (parts, body) = page_request.unwrap().answer(response).await.into_parts();
    (parts, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn only_displayed_pages_are_changed() {
    let html = ("content-type", "text/html");
    for (headers, changed) in [
        (&[html][..], true),
        (&[("content-type", "Text/HTML; Charset=UTF-8")], true),
        (&[html, ("content-encoding", "identity")], true),
        (&[html, ("content-disposition", "inline")], true),
        (&[html, ("cache-control", "no-cache")], true),
        (&[], false),
        (&[("content-type", "text/html-x")], false),
        (&[("content-type", "application/xhtml+xml")], false),
        (&[("content-type", "text/plain")], false),
        (&[("content-type", "text/html; charset=utf-16")], false),
        (&[("content-type", "text/html; charset=\"shift_jis\"")], false),
        (&[html, html], false),
        (&[html, ("content-encoding", "gzip")], false),
        (&[html, ("content-disposition", "Attachment; filename=a.html")], false),
        (&[html, ("cache-control", "private, No-Transform")], false),
        (&[html, ("content-length", "many")], false),
    ] {
        let (parts, body) =
            answered(prepare(&mut request(&[])), response(headers, ResponseBody::full(PAGE))).await;
        assert_eq!(body != PAGE, changed, "{headers:?}");
        if changed {
            assert_eq!(body, PAGE.replace("</head>", &format!("{TAGS}</head>")));
        } else {
            assert_eq!(parts.headers, *response(headers, ResponseBody::empty()).headers(), "{headers:?}");
        }
    }
    for status in [203, 206, 301, 404, 500] {
        let mut page = response(&[html], ResponseBody::full(PAGE));
        *page.status_mut() = StatusCode::from_u16(status).unwrap();
        assert_eq!(answered(prepare(&mut request(&[])), page).await.1, PAGE, "{status}");
    }
}

#[test]
fn only_page_requests_are_prepared() {
    for (dest, prepared) in [("document", true), ("empty", false), ("iframe", false), ("script", false)] {
        assert_eq!(prepare(&mut request(&[("sec-fetch-dest", dest)])).is_some(), prepared, "{dest}");
    }
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        let mut request = request(&[]);
        *request.method_mut() = method.clone();
        assert!(prepare(&mut request).is_none(), "{method}");
    }
}

#[test]
fn only_pages_are_requested_uncompressed() {
    for (headers, kept) in [
        (&[("sec-fetch-dest", "document")][..], false),
        (&[("accept", "text/html,*/*;q=0.8")][..], false),
        (&[("accept", "*/*")][..], true),
        (&[("sec-fetch-dest", "script")][..], true),
        (&[("sec-fetch-dest", "empty"), ("accept", "text/html")][..], true),
    ] {
        let mut request = request(headers);
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip, br"));
        prepare(&mut request);
        assert_eq!(request.headers().contains_key("accept-encoding"), kept, "{headers:?}");
    }
}

#[tokio::test]
async fn headers_match_the_changed_page() {
    let length = PAGE.len().to_string();
    let page = response(
        &[
            ("content-type", "text/html"),
            ("content-length", &length),
            ("etag", "\"abc\""),
            ("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("repr-digest", "x"),
            ("vary", "Accept-Encoding"),
            ("x-other", "kept"),
        ],
        ResponseBody::full(PAGE),
    );
    let (parts, body) = answered(prepare(&mut request(&[])), page).await;
    let headers = parts.headers;
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!(headers["etag"], etag::ours("\"abc\"").unwrap());
    for gone in ["last-modified", "accept-ranges", "content-md5", "repr-digest"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    let vary: Vec<_> = headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Accept-Encoding", "Sec-Fetch-Dest"]);
    assert_eq!(headers["x-other"], "kept");
}

#[tokio::test]
async fn a_cached_page_is_validated_by_its_etag() {
    for theirs in ["\"abc\"", "W/\"abc\""] {
        let ours = etag::ours(theirs).unwrap();
        let mut again = request(&[
            ("sec-fetch-dest", "document"),
            ("if-none-match", &format!("\"old\", {ours}")),
            ("if-modified-since", "Sun, 22 Nov 2026 00:00:00 GMT"),
        ]);
        let page_request = prepare(&mut again);
        assert_eq!(again.headers()["if-none-match"], theirs, "serve receives its own ETag");
        assert!(!again.headers().contains_key("if-modified-since"));
        let mut unchanged = response(&[("etag", theirs)], ResponseBody::empty());
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        let (parts, body) = answered(page_request, unchanged).await;
        assert_eq!((parts.headers["etag"].to_str().unwrap(), body.as_str()), (ours.as_str(), ""));
    }
}

#[test]
fn a_copy_without_current_tags_is_fresh_only_outside_pages() {
    let known = ("if-none-match", "\"abc\"");
    let since = ("if-modified-since", "Sun, 22 Nov 2026 00:00:00 GMT");
    let mut page = request(&[("sec-fetch-dest", "document"), known, since]);
    assert!(prepare(&mut page).is_some());
    assert!(
        !page.headers().contains_key("if-none-match") && !page.headers().contains_key("if-modified-since")
    );
    let mut old_browser = request(&[("accept", "text/html,*/*;q=0.8"), known, since]);
    prepare(&mut old_browser);
    assert!(!old_browser.headers().contains_key("if-none-match"));
    for other in [("sec-fetch-dest", "script"), ("accept", "*/*")] {
        let mut asset = request(&[other, known, since]);
        prepare(&mut asset);
        assert_eq!(asset.headers()["if-none-match"], "\"abc\"", "{other:?}");
        assert!(asset.headers().contains_key("if-modified-since"));
    }
    let mut any = request(&[("sec-fetch-dest", "document"), ("if-none-match", "*")]);
    prepare(&mut any);
    assert_eq!(any.headers()["if-none-match"], "*");
}

#[tokio::test]
async fn the_body_is_streamed_and_trailers_pass() {
    let (mut feed, stream) = fed();
    let html = response(&[("content-type", "text/html")], ResponseBody::boxed(StreamBody::new(stream)));
    feed(Ok(Frame::data(Bytes::from("<head>"))));
    let mut answering = std::pin::pin!(prepare(&mut request(&[])).unwrap().answer(html));
    assert!(pending(answering.as_mut()).await, "the head is incomplete");
    feed(Ok(Frame::data(Bytes::from("</he"))));
    assert!(pending(answering.as_mut()).await, "the end tag is incomplete");
    feed(Ok(Frame::data(Bytes::from("ad><body>"))));
    let mut body = answering.await.into_body();
    let mut text = Vec::new();
    while text.len() < "<head></head><body>".len() + TAGS.len() {
        text.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(String::from_utf8(text).unwrap(), format!("<head>{TAGS}</head><body>"));
    assert!(pending(std::pin::pin!(body.frame())).await, "no more data");
    assert_eq!(body.size_hint().exact(), None);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    feed(Ok(Frame::trailers(trailers.clone())));
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
}

/// Returns whether the future is pending after one poll.
async fn pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

type Piece = Result<Frame<Bytes>, std::io::Error>;

/// Returns a stream and its feeder.
fn fed() -> (impl FnMut(Piece), impl futures_util::Stream<Item = Piece>) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    (
        move |piece| sender.send(piece).unwrap(),
        futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)),
    )
}

#[tokio::test]
async fn a_body_error_within_the_head_is_forwarded_in_place() {
    let pieces = vec![Ok(Frame::data(Bytes::from("<head>"))), Err(std::io::Error::other("gone"))];
    let page = response(&[("content-type", "text/html"), ("etag", "\"a\"")], in_pieces(pieces));
    let answer = prepare(&mut request(&[])).unwrap().answer(page).await;
    assert_eq!(answer.headers()["etag"], "\"a\"");
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "<head>");
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn an_unchanged_body_passes_frame_by_frame_with_trailers() {
    let pieces = || {
        vec![
            Ok(Frame::data(Bytes::from("<head>"))),
            Ok(Frame::data(Bytes::from("text"))),
            Ok(Frame::trailers(HeaderMap::new())),
        ]
    };
    let page = response(&[("content-type", "text/html")], in_pieces(pieces()));
    let mut body = prepare(&mut request(&[])).unwrap().answer(page).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "<head>");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "text");
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert!(body.frame().await.is_none());
}
