//! Pages with a statement of the edge.

use t3_record::edge::{Closer, Reading, Statement, Witness};

use super::*;

/// A page with a statement of Cloudflare about the session.
fn page_with(words: &str, closer: Closer) -> Page {
    let mut facts = ExplainInput::of(record(&format!("{words} ray=8c1f0000abcd1234-LHR")), 1_000_000);
    let statement = Statement {
        witness: Witness::Cloudflare,
        start_ms: Some(995_000),
        end_ms: 999_900,
        address: None,
        path: Some("/ws".to_owned()),
        ray: Some("8c1f0000abcd1234".to_owned()),
        status: None,
        closer,
        values: "ConnectionCloseSource=\u{1b}[2J".to_owned(),
    };
    facts.gathered.layers.logpush = Some(Reading { lines: vec![statement], ..Reading::default() });
    Page::of(&facts, &[], wall)
}

#[test]
fn a_contradiction_of_the_edge_takes_the_proof_and_keeps_the_verdict() {
    let killed = "serve_killed signal:9 serve proven closed_by=upstream killed_by=earlyoom[8]";
    for (closer, contradicts) in [(Closer::Upstream, false), (Closer::Downstream, true)] {
        let page = page_with(killed, closer);
        let text = page.text(Paint { colour: false }, 110, wall);
        assert_eq!(page.answer.starts_with("Likely: "), contradicts, "{text}");
        assert_eq!(page.confidence.starts_with("Not proven: Cloudflare states"), contradicts, "{text}");
        assert_eq!(page.confidence.starts_with("Proven: "), !contradicts, "{text}");
        assert!(
            page.answer.contains("killed by SIGKILL") && page.confidence.contains("kernel event"),
            "{text}"
        );
        assert_eq!(text.contains("Contradiction: "), contradicts, "{text}");
        assert!(text.contains("verdict=serve_killed segment=serve"), "{text}");
        assert!(page.timeline.iter().any(|entry| entry.source == "cloudflare"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("Cannot tell which hop"), "{text}");
    }
}

#[test]
fn a_statement_names_the_hop_of_a_downstream_close() {
    let left = "client_left fin downstream proven closed_by=downstream";
    for (closer, hop, step) in [
        (Closer::Downstream, "the last mile", "user's side"),
        (Closer::Itself, "Cloudflare's edge", "Cloudflare ended the session"),
        (Closer::Upstream, "between Cloudflare and this host", "Check cloudflared"),
    ] {
        let page = page_with(left, closer);
        let text = page.text(Paint { colour: false }, 200, wall);
        assert!(text.contains(&format!("Failed hop: {hop}")) && text.contains("(likely):"), "{text}");
        assert!(page.next[0].contains(step) && page.confidence.starts_with("Proven: "), "{text}");
    }
}
