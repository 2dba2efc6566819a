//! Properties of all records and all evidence.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};
use t3_record::{
    CloseRecord, OpenRecord, TcpCloseRecord, assemble, assemble_direct, assemble_pair,
    evidence::*,
    judge, judge_direct, judge_pair, logfmt,
    value::Percent,
    vocabulary::*,
    wire::{FromTrace, Session, ToTrace},
};

fn word<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z =\"\\\\\n\r\t]{0,40}",
        Just("x\nT3_FORGED=1".to_owned()),
        Just("a cause=graceful verdict=unknown".to_owned()),
        Just("ws close".to_owned()),
        Just("ws".to_owned()),
    ]
}

prop_compose! {
    fn record()(
        user in text(), ip in text(), conn in text(), ray in option::of(text()), reason in option::of(text()),
        dur_ms in any::<u64>(), cause in word(Cause::ALL), verdict in word(Verdict::ALL), segment in word(Segment::ALL),
        kernel in word(KernelSource::ALL), closed_by in option::of(word(ClosedBy::ALL)), psi in option::of(0u32..1000),
        code in option::of(any::<u16>()), up_end in option::of(word(LegEnd::ALL)),
    ) -> CloseRecord {
        let mut record = CloseRecord::new(user, ip, dur_ms, cause, verdict, segment, conn, kernel);
        record.ray = ray;
        record.ws_reason = reason;
        record.closed_by = closed_by;
        record.psi_io = psi.map(|tenths| Percent(tenths as f32 / 10.0));
        record.how = code.map(t3_record::How::WsClose);
        record.up_end = up_end;
        record
    }
}

prop_compose! {
    fn tcp_record()(
        close in record().boxed(), port in any::<u16>(), via in word(Via::ALL), user in option::of(text()),
        unit in option::of(text()), client in option::of((any::<u32>(), text())), dur_min in option::of(any::<bool>()),
    ) -> TcpCloseRecord {
        let mut record = TcpCloseRecord::new(
            close.ip.clone(), close.dur_ms, close.cause, close.verdict, close.segment, close.conn.clone(), port, via,
            close.kernel,
        );
        (record.client_pid, record.client_comm) = client.unzip();
        (record.user, record.peer_unit, record.dur_min) = (user, unit, dur_min);
        record.take_shared(close);
        record
    }
}

/// Fields as journald returns them.
fn stored(record: &CloseRecord) -> BTreeMap<String, String> {
    record.to_fields().into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
}

fn close_frames() -> impl Strategy<Value = CloseFrames> {
    let frame = || proptest::option::of((0_u64..100, proptest::option::of(999_u16..5_000)));
    (frame(), frame(), any::<[bool; 3]>()).prop_map(
        |(received, sent, [is_read_complete, has_unread, is_sent_complete])| CloseFrames {
            received,
            sent,
            is_read_complete,
            has_unread,
            is_sent_complete,
        },
    )
}

proptest! {
    #[test]
    fn a_record_reads_back_from_its_line(record in record().boxed()) {
        prop_assert_eq!(CloseRecord::from_line(&record.to_line()), Ok(record));
    }

    #[test]
    fn a_record_reads_back_from_its_fields(record in record().boxed()) {
        prop_assert_eq!(CloseRecord::from_fields(&stored(&record)), Ok(record));
    }

    #[test]
    fn no_value_forges_a_line_or_a_key(record in record().boxed()) {
        let line = record.to_line();
        prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        let keys: Vec<_> = logfmt::parse(line.strip_prefix("ws close").unwrap()).unwrap().into_iter().map(|(key, _)| key).collect();
        let expected: Vec<_> = record.pairs().into_iter().map(|(key, _)| key).collect();
        prop_assert_eq!(keys, expected);
    }

    #[test]
    fn a_tcp_close_reads_back_and_is_never_a_ws_close(record in tcp_record().boxed()) {
        let line = record.to_line();
        prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        prop_assert!(line.starts_with("tcp close ip=") && !line.contains("ws close"), "{line}");
        prop_assert!(CloseRecord::from_line(&line).is_err());
        let fields: BTreeMap<String, String> =
            record.to_fields().into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        prop_assert_eq!(fields.get("MESSAGE_ID").map(String::as_str), Some(t3_record::journal::TCP_CLOSE_ID));
        prop_assert_eq!(TcpCloseRecord::from_fields(&fields), Ok(record.clone()));
        let keys: Vec<_> = logfmt::parse(line.strip_prefix("tcp close").unwrap()).unwrap().into_iter().map(|(key, _)| key).collect();
        let expected: Vec<_> = record.pairs().into_iter().map(|(key, _)| key).collect();
        prop_assert_eq!(keys, expected);
        let object = serde_json::to_string(&record).unwrap();
        prop_assert_eq!(serde_json::from_str::<TcpCloseRecord>(&object).unwrap(), record.clone());
        prop_assert_eq!(TcpCloseRecord::from_line(&line), Ok(record));
    }

    #[test]
    fn the_operators_query_matches_every_record(mut record in record(), user in "[a-z]{1,8}") {
        record.user = user;
        record.ip = "203.0.113.7".into();
        let line = record.to_line();
        let expected = format!("ws close user={} ip=203.0.113.7 dur_ms={} cause={} ", record.user, record.dur_ms, record.cause);
        prop_assert!(line.starts_with(&expected), "{line}");
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), bytes in vec(any::<u8>(), 0..200)) {
        let _ = logfmt::parse(&text);
        let _ = CloseRecord::from_line(&text);
        let _ = CloseRecord::from_line(&format!("ws close {text}"));
        let _ = OpenRecord::from_line(&format!("ws open {text}"));
        let _ = TcpCloseRecord::from_line(&format!("tcp close {text}"));
        let _ = serde_json::from_slice::<ToTrace>(&bytes);
        let _ = serde_json::from_slice::<FromTrace>(&bytes);
    }

    #[test]
    fn every_evidence_has_an_answer(evidence in evidence().boxed()) {
        let judgement = judge(&evidence);
        // The same facts give the same judgement, and `unknown` is never proven.
        prop_assert_eq!(judge(&evidence), judgement);
        prop_assert!(judgement.verdict != Verdict::Unknown || judgement.confidence == Confidence::Likely);
        let record = assemble(&session(), &evidence);
        prop_assert_eq!(record.verdict, judgement.verdict);
        prop_assert_eq!(CloseRecord::from_line(&record.to_line()), Ok(record));
    }

    #[test]
    fn every_end_of_a_direct_connection_has_an_answer(
        evidence in evidence().boxed(), overflowed in any::<bool>(), frames in proptest::option::of(close_frames()),
    ) {
        let kernel = KernelFacts { is_overflowed: overflowed, ..evidence.kernel };
        let judgement = judge_direct(&kernel, frames.as_ref());
        let by_frame = matches!(judgement.verdict, Verdict::ClientClosed | Verdict::ServeClosed)
            && frames.is_some_and(|frames| frames.is_complete() && frames.first().is_some());
        let can_be_proven = matches!(
            judgement.verdict,
            Verdict::ServeKilled | Verdict::ServeExited | Verdict::ServeOom | Verdict::ClientVanished | Verdict::AdminKilled
        ) && !overflowed;
        let can_be_proven = can_be_proven || by_frame && !overflowed;
        prop_assert!(can_be_proven || judgement.confidence == Confidence::Likely, "{judgement:?}");
        let connection = DirectConnection {
            conn: "d".into(), user: None, unit: None, client: "[::1]:9".parse().unwrap(), port: 1, opened_at: 5,
            is_older: false, client_process: None, counters: None, is_outgoing: false, is_proxy: false, close_frames: frames,
        };
        let record = assemble_direct(&connection, &kernel);
        prop_assert_eq!((record.verdict, record.confidence), (judgement.verdict, Some(judgement.confidence)));
        prop_assert_eq!(TcpCloseRecord::from_line(&record.to_line()), Ok(record));
    }

    #[test]
    fn every_end_of_a_proxys_session_has_an_answer(
        evidence in evidence().boxed(), other in evidence().boxed(), is_remote in any::<bool>(),
    ) {
        let pair = PairFacts {
            down: evidence.kernel.down.clone().unwrap_or_default(),
            up: evidence.kernel.up.clone().unwrap_or_default(),
            proxy: KernelFacts { serve: None, ..evidence.kernel },
            upstream: (!is_remote).then_some(other.kernel),
        };
        let judged = judge_pair(&pair, None);
        let judgement = judged.judgement;
        let of_process = matches!(
            judgement.verdict, Verdict::ServeKilled | Verdict::ServeExited | Verdict::ServeOom
        );
        let can_be_proven = of_process
            || matches!(judgement.verdict, Verdict::ClientVanished | Verdict::AdminKilled);
        let is_likely = judgement.confidence == Confidence::Likely;
        prop_assert!(is_likely || can_be_proven && !pair.proxy.is_overflowed, "{judgement:?}");
        // The fate of a process on another host is unknown.
        prop_assert!(!of_process || !is_remote || judged.actor == Some(Actor::Proxy), "{judgement:?}");
        let connection = DirectConnection {
            conn: "d".into(), user: None, unit: None, client: "[::1]:9".parse().unwrap(), port: 1, opened_at: 5,
            is_older: false, client_process: None, counters: None, is_outgoing: false, is_proxy: false, close_frames: None,
        };
        let upstream = UpstreamConnection {
            address: "[::1]:8".parse().unwrap(), from: "[::1]:7".parse().unwrap(), proxy: None, proxy_unit: None,
            unit: None, counters: None,
        };
        let record = assemble_pair(&connection, &upstream, &pair);
        prop_assert_eq!((record.verdict, record.actor), (judgement.verdict, judged.actor));
        prop_assert_eq!(TcpCloseRecord::from_line(&record.to_line()), Ok(record));
    }

    #[test]
    fn proven_is_earned(
        evidence in evidence().boxed(), delay in (0u64..60, 0u64..60), is_pause in any::<bool>(), scene in 0u8..3,
    ) {
        let mut evidence = evidence;
        let second = 1_000_000_000;
        match (scene, &mut evidence.relay) {
            // Own lag or a pause over a fifth of the interval.
            (0, Some(relay)) => {
                // Both reach from the open to the end, whenever that was.
                relay.opened_at = Some(0);
                relay.heartbeat = None;
                relay.up.last_frame_at = None;
                let length = delay.0.saturating_add(delay.1).max(1) * second;
                if is_pause {
                    relay.pauses = vec![Pause { at: relay.ended_at.max(10), length, is_certain: length % 2 == 0 }];
                } else {
                    relay.delays = vec![Span { from: 0, until: length }];
                }
            }
            (1, relay) => *relay = None,
            (_, Some(relay)) => {
                relay.heartbeat = None;
                relay.opened_at = Some(0);
                relay.open_failure = None;
                relay.down.close_frame = Some(CloseFrame { code: Some(1000), reason: String::new(), at: 3 });
            }
            _ => {}
        }
        let judgement = judge(&evidence);
        let is_event = matches!(
            judgement.verdict,
            Verdict::ServeKilled | Verdict::ServeExited | Verdict::ServeOom | Verdict::DispatchDied
                | Verdict::DispatchShutdown | Verdict::HostPaused
        );
        let depends = scene < 2 || judgement.verdict == Verdict::ClientClosed;
        // The acts of the generated evidence are within 60 s.
        let is_covered = scene != 0 || judgement.at.is_none_or(|at| at < 9);
        if evidence.relay.is_some() || scene == 1 {
            prop_assert!(
                is_event || !depends || !is_covered || judgement.confidence == Confidence::Likely,
                "{judgement:?} {evidence:?}"
            );
        }
    }

    #[test]
    fn no_order_of_arrival_changes_the_answer((events, shuffled) in arrivals().boxed(), fate in option::of(Just(Fate::Signal(9)))) {
        let answer = |events: &[Arrival]| {
            let mut evidence = Evidence { relay: Some(RelayFacts { opened_at: Some(0), ended_at: 9, ..RelayFacts::default() }), ..Evidence::default() };
            for event in events {
                arrive(&mut evidence, event);
            }
            evidence.kernel.peer = fate.map(|fate| Process { ended_at: Some(3), ..Process::new(Task { pid: 1, comm: "node".into() }, fate) });
            assemble(&session(), &evidence).to_line()
        };
        prop_assert_eq!(answer(&events), answer(&shuffled));
    }

    #[test]
    fn a_stall_that_is_not_a_percentage_is_rejected(huge in prop_oneof![Just("1e60"), Just("-1"), Just("1e9")]) {
        let stall = |some: &str| format!(r#"{{"some":{some},"full":null,"peak":1,"some30":1}}"#);
        prop_assert!(serde_json::from_str::<Stall>(&stall(huge)).is_err());
        prop_assert!(serde_json::from_str::<Stall>(&stall("99.9")).is_ok());
    }

    #[test]
    fn evidence_crosses_the_socket_unchanged(evidence in evidence().boxed()) {
        let message = FromTrace::Evidence { conn: "c".into(), facts: Box::new(evidence.kernel) };
        let packet = serde_json::to_vec(&message).unwrap();
        prop_assert_eq!(serde_json::from_slice::<FromTrace>(&packet).unwrap(), message);
    }
}

/// An event in user space: leg, kind, kernel timestamp.
type Arrival = (Side, u8, Nanos);

fn arrivals() -> impl Strategy<Value = (Vec<Arrival>, Vec<Arrival>)> {
    // Few distinct times, so that many events share one.
    let event = (word(Side::ALL), 0u8..7, 1u64..5);
    vec(event, 0..9).prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
}

/// Keeps the first occurrence by the kernel's clock, as the maps of the kernel side do.
fn arrive(evidence: &mut Evidence, (side, kind, at): &Arrival) {
    let earlier = |slot: &mut Option<Nanos>| *slot = Some(slot.map_or(*at, |known| known.min(*at)));
    let down = *side == Side::Down;
    let trace = if down { &mut evidence.kernel.down } else { &mut evidence.kernel.up };
    let trace = trace.get_or_insert_default();
    match kind {
        0 => earlier(&mut trace.fin_in),
        1 => earlier(&mut trace.fin_out),
        2 => earlier(&mut trace.rst_in),
        3 => earlier(&mut trace.rst_out),
        4 => trace.error = Some((110, trace.error.map_or(*at, |(_, known)| known.min(*at)))),
        5 => {
            let relay = evidence.relay.as_mut().unwrap();
            let leg = if down { &mut relay.down } else { &mut relay.up };
            let known = leg.close_frame.as_ref().map_or(*at, |frame| frame.at.min(*at));
            leg.close_frame = Some(CloseFrame { code: Some(1000), reason: String::new(), at: known });
        }
        _ => earlier(&mut trace.closed),
    }
}

fn session() -> Session {
    Session {
        conn: "c".into(),
        user: "u".into(),
        ip: "i".into(),
        ray: None,
        opened_at: Some(5),
        down: None,
        up: None,
        serve_port: 1,
        kept: false,
        resumed: 0,
    }
}

fn at() -> impl Strategy<Value = Option<Nanos>> {
    // Few distinct times, so that equal ones are common.
    option::of(prop_oneof![0u64..6, (0u64..60).prop_map(|s| s * 1_000_000_000), any::<u64>()])
}

fn seen() -> impl Strategy<Value = SeenEnd> {
    prop_oneof![
        Just(SeenEnd::Eof),
        Just(SeenEnd::Reset),
        Just(SeenEnd::Pipe),
        Just(SeenEnd::Timeout),
        Just(SeenEnd::Abort),
        Just(SeenEnd::Unreach),
        any::<i32>().prop_map(SeenEnd::Errno),
    ]
}

prop_compose! {
    fn leg()(
        end in option::of((seen(), 0u64..9)), last in at(), frame in option::of((option::of(any::<u16>()), text(), 0u64..9)),
        forwarded in at(), own_end in at(), mid_frame in any::<bool>(), pending_bytes in 0u64..3, blocked_since in at(),
        breach in option::of(Just(Breach::Masked)), unacked in option::of(0u32..3),
    ) -> LegFacts {
        LegFacts {
            end, last_byte_at: last, mid_frame, pending_bytes, blocked_since, breach,
            close_frame: frame.map(|(code, reason, at)| CloseFrame { code, reason, at }),
            close_forwarded_at: forwarded,
            own_end: own_end.map(|at| (OwnEnd::Fin, at)),
            tcp: unacked.map(|unacked| TcpFacts { unacked, last_ack_recv_ms: 9_000, backoff: 1, ..TcpFacts::default() }),
            ..LegFacts::default()
        }
    }
}

prop_compose! {
    fn socket()(
        fin_in in at(), fin_out in at(), rst_in in at(), rst_out in at(), closed in at(),
        error in option::of((prop::sample::select(vec![32, 101, 103, 104, 110, 111, 113, 5]), 0u64..9)),
    ) -> SocketFacts {
        SocketFacts { fin_in, fin_out, rst_in, rst_out, closed, error, ..SocketFacts::default() }
    }
}

prop_compose! {
    fn evidence()(
        relay in option::of((leg().boxed(), leg().boxed(), at(), 0u64..9, at(), option::of(any::<u64>()), at(), any::<u32>())),
        samples in vec((any::<u64>(), prop_oneof![any::<u64>(), 0u64..20_000_000_000], any::<u32>()), 0..9),
        sockets in (option::of(socket().boxed()), option::of(socket().boxed()), option::of(socket().boxed())),
        fate in option::of((prop_oneof![Just(Fate::Alive), Just(Fate::Oom), any::<i32>().prop_map(Fate::Exit), any::<i32>().prop_map(Fate::Signal)], at())),
        source in word(KernelSource::ALL), died in option::of(0u64..9),
        burst in option::of((any::<u32>(), any::<u32>())),
    ) -> Evidence {
        let relay = relay.map(|(down, up, opened_at, ended_at, shutdown, lag, waiting, unanswered)| RelayFacts {
            opened_at, ended_at, down, up, self_lag_ms: lag, self_lag_at: waiting,
            shutdown: shutdown.map(|at| Shutdown { signal: Some(15), at }),
            heartbeat: Some(Heartbeat { pings: u64::from(unanswered), unanswered, waiting_since: waiting, last_ping_at: waiting, ..Heartbeat::default() }),
            samples: samples.iter().map(|(at, silence_ns, lost)| SocketSample { at: *at, silence_ns: *silence_ns, lost: *lost }).collect(),
            ..RelayFacts::default()
        });
        let peer = fate.map(|(fate, ended_at)| Process { ended_at, signalled_at: ended_at, ..Process::new(Task { pid: 1, comm: "x y".into() }, fate) });
        let (down, up, serve) = sockets;
        Evidence {
            relay,
            kernel: KernelFacts { down, up, serve, peer, ..KernelFacts::absent(source) },
            burst: burst.map(|(sessions, users)| Burst { sessions, users }),
            dispatch_died: died.map(|at| DispatchDeath { fate: None, at }),
        }
    }
}
