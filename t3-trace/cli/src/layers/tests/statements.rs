//! Statements of the edge from Loki and from files.

use t3_record::{ClosedBy, edge::Closer};

use super::*;
use crate::server::args::LokiArgs;

const LOGPUSH: &str = r#"{job="logpush"}"#;

/// The session with a ray and the end that acted first.
fn with_ray() -> CloseRecord {
    let mut record = record();
    record.ray = Some("8c1f0000abcd1234-LHR".to_owned());
    record.closed_by = Some(ClosedBy::Downstream);
    record
}

fn logpush(ray: &str) -> String {
    format!(
        r#"{{"ConnectionCloseSource":"downstream","ConnectionCloseReason":"timedOut","RayID":"{ray}","EdgeEndTimestamp":"2026-08-22T10:01:02Z","EdgeStartTimestamp":"2026-08-22T10:00:02Z"}}"#
    )
}

async fn asked(args: &LayerArgs, record: &CloseRecord) -> LayerData {
    let ended = Ended { record, at_ms: AT };
    gather(args, &ended, Window::around(&ended)).await
}

#[tokio::test]
async fn a_batch_that_arrives_late_in_loki_is_found_by_its_ray() {
    let late = (AT + 600_000) * NS;
    let lines =
        vec![(late, "logpush", logpush("8c1f0000abcd1234")), (late, "logpush", logpush("8c1f0000abcd9999"))];
    let (address, stub) = loki(&[(LOGPUSH, lines)]).start().await;
    let args = LayerArgs { logpush_selector: Some(LOGPUSH.to_owned()), ..asking(address) };
    let record = with_ray();
    let gathered = asked(&args, &record).await;
    assert_eq!(found(&gathered, Layer::Logpush), (1, None));
    assert!(stub.queries().contains(&format!("{LOGPUSH} |= \"8c1f0000abcd1234\"")), "{:?}", stub.queries());
    let refined = refine(&Ended { record: &record, at_ms: AT }, &gathered.layers);
    assert_eq!((refined.part, refined.contradiction), (Some(Part::LastMile), None));
    let without = asked(&args, &super::record()).await;
    assert!(why(&without, Layer::Logpush).contains("has no ray"));
}

#[tokio::test]
async fn files_are_read_and_a_proxy_replaces_traefik() {
    let dir = tempfile::tempdir().unwrap();
    let (envoy, haproxy) = (dir.path().join("envoy.log"), dir.path().join("haproxy.log"));
    fs::write(
        &envoy,
        "[2026-08-22T10:00:02.900Z] \"GET /ws HTTP/1.1\" 101 DC 1 1 60011 - \"203.0.113.7\" \"-\" \"-\" \"t3\" \"s\"\n",
    )
    .unwrap();
    fs::write(
        &haproxy,
        "198.51.100.9:1 [22/Aug/2026:10:00:02.900] fe be/s 0/0/0/0/60011 101 1 - - KD-- 1/1/0/0/0 0/0 {203.0.113.7} \"GET /ws HTTP/1.1\"\n",
    )
    .unwrap();
    let args = LayerArgs {
        // Not queried: its log is replaced by these files.
        server: LokiArgs { loki: Some("http://127.0.0.1:1".to_owned()), ..LokiArgs::default() },
        cloudflared_log: vec![envoy.clone()],
        envoy_log: vec![envoy],
        haproxy_log: vec![haproxy],
        ..LayerArgs::default()
    };
    let gathered = asked(&args, &with_ray()).await;
    assert_eq!(status(&gathered, Layer::Traefik), &QueryStatus::No);
    assert_eq!((found(&gathered, Layer::Envoy), found(&gathered, Layer::Haproxy)), ((1, None), (1, None)));
    let closer = |reading: &Option<t3_record::edge::Reading<t3_record::edge::Statement>>| {
        reading.as_ref().unwrap().lines[0].closer
    };
    assert_eq!(closer(&gathered.layers.envoy), Closer::Downstream);
    assert_eq!(closer(&gathered.layers.haproxy), Closer::Itself);
    let both = LayerArgs { traefik_log: vec![dir.path().join("none")], ..args };
    assert!(why(&asked(&both, &with_ray()).await, Layer::Traefik).contains("cannot read"));
}
