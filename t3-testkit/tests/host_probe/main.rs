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

use fixture::House;
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
    let mut house = House::new().await;
    house.well().await;
    let before = house.beats().await;
    sleep(Duration::from_secs(3)).await;
    let after = house.beats().await;
    for (leg, count) in &after {
        assert!(*count > before[leg], "{leg} stands still: {count} echoes");
    }
    assert_eq!(house.deaths(), [], "nothing was wrong yet");

    // 1. The public name is gone. The leg that stands does not notice; the next one does.
    house.doh.answer(None);
    house.cloudflare.reset();
    house.expect(&[("cloudflare", "connect_failed", Phase::Dns)], "cloudflare").await;
    house.doh.answer(Some(fixture::CLOUDFLARE));
    house.well().await;

    if !quick {
        on_the_way(&mut house).await;
    }

    // 5. A certificate of somebody else's authority.
    house.cloudflare.lead_to(house.impostor().await);
    house.cloudflare.reset();
    let death = house.expect(&[("cloudflare", "connect_failed", Phase::Tls)], "cloudflare").await;
    assert!(death.detail.contains("certificate"), "{death:?}");
    house.cloudflare.lead_to(house.traefik.address);
    house.well().await;

    if !quick {
        at_dispatch(&mut house).await;
    }

    // 9. A reset on the way.
    house.cloudflare.reset();
    let death = house.expect(&[("cloudflare", "io_error", Phase::Echo)], "cloudflare").await;
    assert!(death.age_ms.is_some_and(|age| age > 0), "{death:?}");
    house.well().await;

    // 10. serve holds its event loop.
    house.serve_stalls(fixture::ANSWER * 3);
    house.expect(&[("t3serve", "rtt_timeout", Phase::Upgrade)], "serve").await;
    house.well().await;

    house.counters_are_the_lines().await;
    house.once_says("last_mile").await;
    promtool::accepts(&house.page().await);
    if !quick {
        promtool::alerts_fire(&house.page().await);
    }
}

/// Faults between the prober and Traefik.
async fn on_the_way(house: &mut House) {
    // 2. The public name leads to a place where nobody listens.
    house.doh.answer(Some([127, 0, 0, 99].into()));
    house.cloudflare.reset();
    house.expect(&[("cloudflare", "connect_failed", Phase::Tcp)], "cloudflare").await;
    house.doh.answer(Some(fixture::CLOUDFLARE));
    house.well().await;

    // 3. Traefik refuses on both ways.
    house.cloudflare.close().await;
    house.internal.close().await;
    let refused = [("cloudflare", "connect_failed", Phase::Tcp), ("internal", "connect_failed", Phase::Tcp)];
    house.expect(&refused, "edge").await;
    house.cloudflare.listen();
    house.internal.listen();
    house.well().await;

    // 4. A hole that swallows every packet.
    house.cloudflare.swallow().await;
    house.expect(&[("cloudflare", "connect_timeout", Phase::Tcp)], "cloudflare").await;
    house.cloudflare.listen();
    house.well().await;
}

/// Faults of dispatch itself.
async fn at_dispatch(house: &mut House) {
    // 6. dispatch is gone: Traefik answers the upgrade itself.
    house.dispatch_signal(SIGKILL);
    let gone = [("cloudflare", "http_502", Phase::Upgrade), ("internal", "http_502", Phase::Upgrade)];
    house.expect(&gone, "edge").await;
    house.start_dispatch();
    house.well().await;

    // 7. Echoes stop, and everything stays connected.
    house.dispatch_signal(SIGSTOP);
    let silent = [("cloudflare", "rtt_timeout", Phase::Echo), ("internal", "rtt_timeout", Phase::Echo)];
    house.expect(&silent, "edge").await;
    house.dispatch_signal(SIGCONT);
    house.well().await;

    // 8. dispatch says goodbye.
    house.dispatch_signal(SIGTERM);
    let goodbye = [("cloudflare", "closed_close", Phase::Echo), ("internal", "closed_close", Phase::Echo)];
    let death = house.expect(&goodbye, "edge").await;
    assert!(death.detail.contains("1001"), "{death:?}");
    house.start_dispatch();
    house.well().await;
}
