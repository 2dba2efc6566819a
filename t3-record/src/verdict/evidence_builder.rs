//! Evidence for tests: a healthy session of 60 s with a 5 s heartbeat, to which a test adds a
//! fault.

use crate::{
    evidence::*,
    vocabulary::{HeartbeatSource, KernelSource, Side},
};

/// Milliseconds on the test's clock.
pub(crate) const MS: Nanos = 1_000_000;
/// Time of the open.
pub(crate) const OPENED: Nanos = 1_000_000 * MS;
/// Default time of the end.
pub(crate) const END: Nanos = OPENED + 60_000 * MS;

pub(crate) struct EvidenceBuilder(pub(crate) Evidence);

impl EvidenceBuilder {
    /// Healthy, kernel evidence from tracepoints, serve alive, nothing ended.
    pub(crate) fn healthy() -> Self {
        let leg = LegFacts {
            bytes: 1000,
            msgs: 10,
            last_byte_at: Some(END - 100 * MS),
            last_frame_at: Some(END - 100 * MS),
            tcp: Some(TcpFacts::default()),
            ..LegFacts::default()
        };
        let heartbeat = Heartbeat {
            source: Some(HeartbeatSource::Text),
            is_by_serve: false,
            is_regular: true,
            silent_since: None,
            pings: 12,
            pongs: 12,
            rtt_ns: Some(MS),
            rtt_max_ns: Some(2 * MS),
            last_ping_at: Some(END - 2_000 * MS),
            last_pong_at: Some(END - 1_999 * MS),
            waiting_since: None,
            unanswered: 0,
            period_ns: Some(5_000 * MS),
            last_interval_ns: Some(5_000 * MS),
            survived: 0,
        };
        let relay = RelayFacts {
            started_at: OPENED - 3 * MS,
            opened_at: Some(OPENED),
            ended_at: END,
            down: leg.clone(),
            up: leg,
            heartbeat: Some(heartbeat),
            samples: Self::samples(&[(5_000, 0); 6]),
            self_lag_ms: Some(1),
            self_lag_at: Some(END - 5_000 * MS),
            ..RelayFacts::default()
        };
        let kernel = KernelFacts {
            down: Some(SocketFacts::default()),
            up: Some(SocketFacts::default()),
            serve: Some(SocketFacts::default()),
            peer: Some(Process::new(Task { pid: 4242, comm: "node".into() }, Fate::Alive)),
            ..KernelFacts::absent(KernelSource::Tracepoint)
        };
        Self(Evidence { relay: Some(relay), kernel, burst: None, dispatch_died: None })
    }

    /// Samples of the client's socket at each heartbeat, the last 2 s before the end: silence in
    /// milliseconds, segments lost.
    pub(crate) fn samples(samples: &[(u64, u32)]) -> Vec<SocketSample> {
        let age = |n: usize| (samples.len() - n) as u64 * 5_000 - 3_000;
        let sample = |(n, (silence, lost)): (usize, &(u64, u32))| SocketSample {
            at: END - age(n) * MS,
            silence_ns: silence * MS,
            lost: *lost,
        };
        samples.iter().enumerate().map(sample).collect()
    }

    pub(crate) fn relay(mut self, change: impl FnOnce(&mut RelayFacts)) -> Self {
        change(self.0.relay.as_mut().unwrap());
        self
    }

    pub(crate) fn kernel(mut self, change: impl FnOnce(&mut KernelFacts)) -> Self {
        change(&mut self.0.kernel);
        self
    }

    pub(crate) fn heartbeat(self, change: impl FnOnce(&mut Heartbeat)) -> Self {
        self.relay(|relay| change(relay.heartbeat.as_mut().unwrap()))
    }

    pub(crate) fn leg(self, side: Side, change: impl FnOnce(&mut LegFacts)) -> Self {
        self.relay(|relay| change(if side == Side::Down { &mut relay.down } else { &mut relay.up }))
    }

    pub(crate) fn socket(self, side: Side, change: impl FnOnce(&mut SocketFacts)) -> Self {
        self.kernel(|kernel| {
            let trace = if side == Side::Down { &mut kernel.down } else { &mut kernel.up };
            change(trace.get_or_insert_default());
        })
    }

    pub(crate) fn peer(self, fate: Fate, ended_at: Nanos) -> Self {
        self.kernel(|kernel| {
            let peer = kernel.peer.as_mut().unwrap();
            peer.fate = fate;
            peer.ended_at = (fate != Fate::Alive).then_some(ended_at);
        })
    }

    /// Changes the facts of serve's own socket if `side` is serve's.
    fn on_own_end(self, side: Side, change: impl FnOnce(&mut SocketFacts)) -> Self {
        self.kernel(|kernel| {
            if let Some(serve) = kernel.serve.as_mut().filter(|_| side == Side::Up) {
                change(serve);
            }
        })
    }

    /// dispatch's event loop was late for `ms`, until `ended` before the end.
    pub(crate) fn lag(self, ms: u64, ended: u64) -> Self {
        let until = END - ended * MS;
        self.relay(|relay| relay.delays.push(Span { from: until - ms * MS, until }))
    }

    /// The peer of `side` sends FIN, forwarded 1 ms later.
    pub(crate) fn fin(self, side: Side, at: Nanos) -> Self {
        self.on_own_end(side, |t| t.fin_out = Some(at))
            .socket(side, |t| t.fin_in = Some(at))
            .leg(side, |l| l.end = Some((SeenEnd::Eof, at + MS / 10)))
            .own_end(side.other(), OwnEnd::Fin, at + MS)
    }

    /// The peer of `side` sends RST, forwarded 1 ms later.
    pub(crate) fn rst(self, side: Side, at: Nanos) -> Self {
        self.on_own_end(side, |t| t.rst_out = Some(at))
            .socket(side, |t| t.rst_in = Some(at))
            .leg(side, |l| l.end = Some((SeenEnd::Reset, at + MS / 10)))
            .own_end(side.other(), OwnEnd::Rst, at + MS)
    }

    /// The peer of `side` sends a Close frame, forwarded immediately.
    pub(crate) fn close(self, side: Side, code: u16, at: Nanos) -> Self {
        let frame = CloseFrame { code: Some(code), reason: String::new(), at };
        self.leg(side, |l| l.close_frame = Some(frame))
            .leg(side.other(), |l| l.close_forwarded_at = Some(at + MS / 20))
    }

    /// dispatch ends the leg of `side`.
    pub(crate) fn own_end(self, side: Side, end: OwnEnd, at: Nanos) -> Self {
        self.leg(side, |l| l.own_end = Some((end, at))).socket(side, |t| match end {
            OwnEnd::Fin => t.fin_out = Some(at),
            OwnEnd::Rst => t.rst_out = Some(at),
        })
    }

    /// The oldest of `unanswered` pings is `ms` old at the end.
    pub(crate) fn waiting(self, ms: u64, unanswered: u32) -> Self {
        self.heartbeat(|h| {
            h.waiting_since = Some(END - ms * MS);
            h.silent_since = h.waiting_since;
            h.unanswered = unanswered;
        })
    }

    pub(crate) fn no_kernel(mut self, source: KernelSource) -> Self {
        self.0.kernel = KernelFacts::absent(source);
        self
    }
}
