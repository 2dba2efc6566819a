//! The real prober against a real Traefik with TLS in front of t3-dispatch and a stand-in for
//! serve: the legs connect and survive, and each of ten faults gives the right reason, phase,
//! metric and attribution. Then Prometheus' own tool reads the page and fires the alerts on it.
//!
//! With `T3_QUICK` in the environment four of the faults, and no alerts. Needs root, pip (for
//! Traefik), promtool, and `cargo xtask build`.
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

/// A fault in one place; then everything heals, and the next one.
#[tokio::test(flavor = "multi_thread")]
async fn ten_faults_are_told_rightly_and_the_page_pleases_prometheus() {
    let quick = std::env::var_os("T3_QUICK").is_some();
    let mut fixture = Fixture::new().await;
    fixture.well().await;
    let before = fixture.beats().await;
    sleep(Duration::from_secs(3)).await;
    let after = fixture.beats().await;
    for (leg, count) in &after {
        assert!(*count > before[leg], "{leg} stands still: {count} echoes");
    }
    assert_eq!(fixture.deaths(), [], "nothing was wrong yet");

    // 1. The public name is gone. The leg that stands does not notice; the next one does.
    fixture.doh.answer(None);
    fixture.cloudflare.reset();
    fixture.expect(&[("cloudflare", "connect_failed", Phase::Dns)], "cloudflare").await;
    fixture.doh.answer(Some(fixture::CLOUDFLARE));
    fixture.well().await;

    if !quick {
        on_the_way(&mut fixture).await;
    }

    // 5. A certificate of somebody else's authority.
    fixture.cloudflare.lead_to(fixture.impostor().await);
    fixture.cloudflare.reset();
    let death = fixture.expect(&[("cloudflare", "connect_failed", Phase::Tls)], "cloudflare").await;
    assert!(death.detail.contains("certificate"), "{death:?}");
    fixture.cloudflare.lead_to(fixture.traefik.address);
    fixture.well().await;

    if !quick {
        at_dispatch(&mut fixture).await;
    }

    // 9. A reset on the way.
    fixture.cloudflare.reset();
    let death = fixture.expect(&[("cloudflare", "io_error", Phase::Echo)], "cloudflare").await;
    assert!(death.age_ms.is_some_and(|age| age > 0), "{death:?}");
    fixture.well().await;

    // 10. serve holds its event loop.
    fixture.serve_stalls(fixture::ANSWER * 3);
    fixture.expect(&[("t3serve", "rtt_timeout", Phase::Upgrade)], "serve").await;
    fixture.well().await;

    fixture.counters_are_the_lines().await;
    fixture.once_says("last_mile").await;
    promtool::accepts(&fixture.page().await);
    if !quick {
        promtool::alerts_fire(&fixture.page().await);
    }
}

/// Faults between the prober and Traefik.
async fn on_the_way(fixture: &mut Fixture) {
    // 2. The public name leads to a place where nobody listens.
    fixture.doh.answer(Some([127, 0, 0, 99].into()));
    fixture.cloudflare.reset();
    fixture.expect(&[("cloudflare", "connect_failed", Phase::Tcp)], "cloudflare").await;
    fixture.doh.answer(Some(fixture::CLOUDFLARE));
    fixture.well().await;

    // 3. Traefik refuses on both ways.
    fixture.cloudflare.close().await;
    fixture.internal.close().await;
    let refused = [("cloudflare", "connect_failed", Phase::Tcp), ("internal", "connect_failed", Phase::Tcp)];
    fixture.expect(&refused, "edge").await;
    fixture.cloudflare.listen();
    fixture.internal.listen();
    fixture.well().await;

    // 4. A hole that swallows every packet.
    fixture.cloudflare.swallow().await;
    fixture.expect(&[("cloudflare", "connect_timeout", Phase::Tcp)], "cloudflare").await;
    fixture.cloudflare.listen();
    fixture.well().await;
}

/// Faults of dispatch itself.
async fn at_dispatch(fixture: &mut Fixture) {
    // 6. dispatch is gone: Traefik answers the upgrade itself.
    fixture.dispatch_signal(SIGKILL);
    let gone = [("cloudflare", "http_502", Phase::Upgrade), ("internal", "http_502", Phase::Upgrade)];
    fixture.expect(&gone, "edge").await;
    fixture.start_dispatch();
    fixture.well().await;

    // 7. Echoes stop, and everything stays connected.
    fixture.dispatch_signal(SIGSTOP);
    let silent = [("cloudflare", "rtt_timeout", Phase::Echo), ("internal", "rtt_timeout", Phase::Echo)];
    fixture.expect(&silent, "edge").await;
    fixture.dispatch_signal(SIGCONT);
    fixture.well().await;

    // 8. dispatch says goodbye.
    fixture.dispatch_signal(SIGTERM);
    let goodbye = [("cloudflare", "closed_close", Phase::Echo), ("internal", "closed_close", Phase::Echo)];
    let death = fixture.expect(&goodbye, "edge").await;
    assert!(death.detail.contains("1001"), "{death:?}");
    fixture.start_dispatch();
    fixture.well().await;
}
