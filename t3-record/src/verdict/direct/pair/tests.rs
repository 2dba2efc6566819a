//! One row for each way a proxy's session ends, each with its control.

use super::*;
use crate::{
    evidence::{Fate, Process, Task},
    verdict::evidence_builder::{END, MS},
    vocabulary::KernelSource,
};
use Confidence::{Likely, Proven};

const SECOND: Nanos = 1_000 * MS;

fn task(pid: u32, comm: &str) -> Task {
    Task { pid, comm: comm.into() }
}

fn facts(process: Task) -> KernelFacts {
    KernelFacts {
        peer: Some(Process::new(process, Fate::Alive)),
        ..KernelFacts::absent(KernelSource::Tracepoint)
    }
}

/// A pair whose proxy closes both sockets, with serve on this host.
fn pair(change: impl FnOnce(&mut PairFacts)) -> PairFacts {
    let nginx = || Some(task(77, "nginx"));
    let socket = || SocketFacts { closer: nginx(), ..SocketFacts::default() };
    let serve = SocketFacts { closer: Some(task(42, "node")), ..SocketFacts::default() };
    let mut pair = PairFacts {
        down: socket(),
        up: socket(),
        proxy: facts(task(77, "nginx")),
        upstream: Some(KernelFacts { serve: Some(serve), ..facts(task(42, "node")) }),
    };
    change(&mut pair);
    pair
}

fn client_fin(pair: &mut PairFacts) {
    pair.down.fin_in = Some(END);
    pair.up.fin_out = Some(END + MS);
    pair.down.fin_out = Some(END + MS);
    pair.up.fin_in = Some(END + 2 * MS);
}

fn serve_fin(pair: &mut PairFacts) {
    pair.up.fin_in = Some(END);
    pair.down.fin_out = Some(END + MS);
    pair.up.fin_out = Some(END + MS);
    pair.down.fin_in = Some(END + 2 * MS);
    if let Some(serve) = pair.upstream.as_mut().and_then(|upstream| upstream.serve.as_mut()) {
        serve.fin_out = Some(END);
    }
}

fn proxy_fin(pair: &mut PairFacts) {
    pair.up.fin_out = Some(END);
    pair.down.fin_out = Some(END + MS);
    pair.up.fin_in = Some(END + 2 * MS);
    pair.down.fin_in = Some(END + 2 * MS);
}

fn died(facts: Option<&mut KernelFacts>, fate: Fate, at: Nanos) {
    let process = facts.and_then(|facts| facts.peer.as_mut()).unwrap();
    process.fate = fate;
    process.ended_at = Some(at);
    process.signalled_at = matches!(fate, Fate::Signal(_) | Fate::Oom).then_some(at);
}

#[track_caller]
fn check(
    name: &str,
    pair: &PairFacts,
    actor: Option<Actor>,
    (verdict, how, confidence): (Verdict, How, Confidence),
) {
    let judged = judge_pair(pair, None);
    let judgement = judged.judgement;
    assert_eq!(
        (judged.actor, judgement.verdict, judgement.how, judgement.confidence),
        (actor, verdict, Some(how), confidence),
        "{name}"
    );
    assert_eq!(judgement.closed_by.is_none(), actor == Some(Actor::Proxy), "{name}");
}

#[test]
fn the_first_act_names_the_actor() {
    let rows = [
        ("client FIN", pair(client_fin), Actor::Client, Verdict::ClientLeft, How::Fin),
        ("serve FIN", pair(serve_fin), Actor::Upstream, Verdict::ServeLeft, How::Fin),
        ("proxy FIN", pair(proxy_fin), Actor::Proxy, Verdict::ServeLeft, How::Fin),
        (
            "client RST",
            pair(|p| {
                (p.down.rst_in, p.down.error) = (Some(END), Some((104, END)));
                p.up.fin_out = Some(END + MS);
            }),
            Actor::Client,
            Verdict::ClientReset,
            How::Rst,
        ),
        (
            "serve RST without the hook",
            pair(|p| {
                p.up.error = Some((104, END));
                p.down.fin_out = Some(END + MS);
                p.upstream.as_mut().unwrap().serve.as_mut().unwrap().rst_out = Some(END);
            }),
            Actor::Upstream,
            Verdict::ServeReset,
            How::Rst,
        ),
        (
            "proxy RST",
            pair(|p| (p.down.rst_out, p.up.fin_out) = (Some(END), Some(END + MS))),
            Actor::Proxy,
            Verdict::ServeReset,
            How::Rst,
        ),
    ];
    for (name, pair, actor, verdict, how) in rows {
        check(name, &pair, Some(actor), (verdict, how, Likely));
    }
}

#[test]
fn a_death_is_that_of_the_process_that_acted() {
    let killed = (Verdict::ServeKilled, How::Signal(9), Proven);
    let with_death = |act: fn(&mut PairFacts), of_proxy: bool| {
        pair(|p| {
            act(p);
            let facts = if of_proxy { Some(&mut p.proxy) } else { p.upstream.as_mut() };
            died(facts, Fate::Signal(9), END - MS);
        })
    };
    check("serve killed", &with_death(serve_fin, false), Some(Actor::Upstream), killed);
    check("proxy killed", &with_death(proxy_fin, true), Some(Actor::Proxy), killed);
    // Near misses: the process that died is not the one that acted.
    let left = (Verdict::ServeLeft, How::Fin, Likely);
    check("serve FIN, proxy killed", &with_death(serve_fin, true), Some(Actor::Upstream), left);
    check("proxy FIN, serve killed", &with_death(proxy_fin, false), Some(Actor::Proxy), left);
    let client = (Verdict::ClientLeft, How::Fin, Likely);
    check("client FIN, proxy killed later", &with_death(client_fin, true), Some(Actor::Client), client);
    // A client that gives up on a serve that is dead.
    let gave_up = (Verdict::ServeKilled, How::Signal(9), Likely);
    check("client FIN, serve killed", &with_death(client_fin, false), Some(Actor::Client), gave_up);
}

#[test]
fn the_fate_of_a_remote_serve_is_unknown() {
    let remote = |act: fn(&mut PairFacts)| {
        pair(|p| {
            act(p);
            p.upstream = None;
        })
    };
    let left = (Verdict::ServeLeft, How::Fin, Likely);
    check("serve FIN", &remote(serve_fin), Some(Actor::Upstream), left);
    let judged = judge_pair(&remote(serve_fin), None);
    assert_eq!(judged.evidence.kernel.peer, None, "the proxy is not the process that acted");
    let timeout = remote(|p| p.up.error = Some((110, END)));
    check("no answer", &timeout, Some(Actor::Upstream), (Verdict::Unknown, How::Vanished, Likely));
}

#[test]
fn a_client_without_an_answer_is_proven_as_for_one_connection() {
    let vanished = |error| {
        pair(|p| {
            p.down.error = Some((error, END));
            // Before the error by a clock tick.
            p.down.rst_out = Some(END - MS);
            p.up.fin_out = Some(END + MS);
        })
    };
    let row = (Verdict::ClientVanished, How::Vanished, Proven);
    check("timeout", &vanished(110), Some(Actor::Client), row);
    let mut lost = vanished(110);
    lost.proxy.lost = 1;
    check("events lost", &lost, Some(Actor::Client), (Verdict::ClientVanished, How::Vanished, Likely));
    let destroyed = (Verdict::AdminKilled, How::SockDestroy, Proven);
    check("destroyed", &vanished(103), None, destroyed);
}

#[test]
fn an_idle_timeout_of_the_proxy_is_not_an_act_of_serve() {
    // serve answers the FIN of the proxy within the same millisecond, the client only later.
    let idle = pair(|p| {
        p.up.fin_out = Some(END);
        p.up.fin_in = Some(END);
        p.down.fin_out = Some(END);
        p.down.fin_in = Some(END + SECOND);
    });
    // At the same nanosecond the upstream counts; a nanosecond before, it is the proxy.
    assert_eq!(judge_pair(&idle, None).actor, Some(Actor::Upstream));
    let before = pair(|p| {
        p.clone_from(&idle);
        p.up.fin_out = Some(END - 1);
    });
    assert_eq!(judge_pair(&before, None).actor, Some(Actor::Proxy));
}

#[test]
fn nothing_that_was_seen_has_no_actor() {
    let judged = judge_pair(&pair(|_| ()), None);
    assert_eq!((judged.actor, judged.judgement.verdict), (None, Verdict::Unknown));
}
