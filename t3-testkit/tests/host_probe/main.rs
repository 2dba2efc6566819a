//! The real prober against Traefik with TLS, t3-dispatch and a fake serve: the legs connect and
//! stay up, and each of ten faults has the expected reason, phase, metric and attribution. promtool
//! reads the metrics page and evaluates the alerts on it.
//!
//! With `T3_QUICK` four of the faults, and no alerts. Needs root, pip (for Traefik), promtool, and
//! `cargo xtask build`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod breakable_link;
mod certificates;
mod doh;
mod fixture;
mod promtool;

use std::time::Duration;

use fixture::Fixture;
use t3_record::probe::Phase;
use tokio::time::sleep;

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Injects one fault at a time and waits for recovery.
#[tokio::test(flavor = "multi_thread")]
async fn ten_faults_are_attributed_and_promtool_accepts_the_page() {
    let quick = std::env::var_os("T3_QUICK").is_some();
    let mut fixture = Fixture::new().await;
    fixture.all_up().await;
    fixture.all_measured().await;
    let before = fixture.rtt_counts().await;
    sleep(Duration::from_secs(3)).await;
    let after = fixture.rtt_counts().await;
    for (leg, count) in &after {
        assert!(*count > before[leg], "{leg} is stalled: {count} echoes");
    }
    assert_eq!(fixture.disconnects(), [], "no fault was injected yet");
    fixture.every_series_exists().await;

    // 1. The public name does not resolve. Only a new connection notices.
    fixture.doh.answer(None);
    fixture.cloudflare.reset();
    fixture.expect(&[("cloudflare", "connect_failed", Phase::Dns)], "cloudflare").await;
    fixture.doh.answer(Some(fixture::CLOUDFLARE));
    fixture.all_up().await;

    if !quick {
        edge_faults(&mut fixture).await;
    }

    // 5. A certificate of an untrusted authority.
    fixture.cloudflare.set_target(fixture.impostor().await);
    fixture.cloudflare.reset();
    let disconnect = fixture.expect(&[("cloudflare", "connect_failed", Phase::Tls)], "cloudflare").await;
    assert!(disconnect.detail.contains("certificate"), "{disconnect:?}");
    fixture.cloudflare.set_target(fixture.traefik.address);
    fixture.all_up().await;

    if !quick {
        dispatch_faults(&mut fixture).await;
    }

    // 9. A reset on the path.
    fixture.cloudflare.reset();
    let disconnect = fixture.expect(&[("cloudflare", "io_error", Phase::Echo)], "cloudflare").await;
    assert!(disconnect.age_ms.is_some_and(|age| age > 0), "{disconnect:?}");
    fixture.all_up().await;

    // 10. serve blocks its event loop.
    fixture.serve_stalls(fixture::ANSWER * 3);
    fixture.expect(&[("t3serve", "rtt_timeout", Phase::Upgrade)], "serve").await;
    fixture.all_up().await;

    fixture.counters_are_the_lines().await;
    fixture.once_is_clean().await;
    promtool::accepts(&fixture.page().await);
    if !quick {
        promtool::alerts_fire(&fixture.page().await);
    }
}

/// Faults between the prober and Traefik.
async fn edge_faults(fixture: &mut Fixture) {
    // 2. The public name resolves to an address without a listener.
    fixture.doh.answer(Some([127, 0, 0, 99].into()));
    fixture.cloudflare.reset();
    fixture.expect(&[("cloudflare", "connect_failed", Phase::Tcp)], "cloudflare").await;
    fixture.doh.answer(Some(fixture::CLOUDFLARE));
    fixture.all_up().await;

    // 3. Traefik refuses connections on both legs.
    fixture.cloudflare.close().await;
    fixture.internal.close().await;
    let refused = [("cloudflare", "connect_failed", Phase::Tcp), ("internal", "connect_failed", Phase::Tcp)];
    fixture.expect(&refused, "edge").await;
    fixture.cloudflare.listen();
    fixture.internal.listen();
    fixture.all_up().await;

    // 4. All packets are dropped.
    fixture.cloudflare.drop_packets().await;
    fixture.expect(&[("cloudflare", "connect_timeout", Phase::Tcp)], "cloudflare").await;
    fixture.cloudflare.listen();
    fixture.all_up().await;
}

/// Faults of dispatch itself.
async fn dispatch_faults(fixture: &mut Fixture) {
    // 6. dispatch is killed: Traefik answers the upgrade itself.
    fixture.dispatch_signal(SIGKILL);
    let gone = [("cloudflare", "http_502", Phase::Upgrade), ("internal", "http_502", Phase::Upgrade)];
    fixture.expect(&gone, "edge").await;
    fixture.start_dispatch();
    fixture.all_up().await;

    // 7. Echoes stop while the legs stay connected.
    fixture.dispatch_signal(SIGSTOP);
    let silent = [("cloudflare", "rtt_timeout", Phase::Echo), ("internal", "rtt_timeout", Phase::Echo)];
    fixture.expect(&silent, "edge").await;
    fixture.dispatch_signal(SIGCONT);
    fixture.all_up().await;

    // 8. dispatch sends Close 1001.
    fixture.dispatch_signal(SIGTERM);
    let closed = [("cloudflare", "closed_close", Phase::Echo), ("internal", "closed_close", Phase::Echo)];
    let disconnect = fixture.expect(&closed, "edge").await;
    assert!(disconnect.detail.contains("1001"), "{disconnect:?}");
    fixture.start_dispatch();
    fixture.all_up().await;
}
