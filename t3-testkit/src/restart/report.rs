//! Result of a session, and its deviations from a session that nobody has touched. No IO.

use super::peer::{EndReport, Kind, StreamEnd};

/// Observations of both ends of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    pub session: u32,
    pub kind: Kind,
    /// `None`: it did not end in time.
    pub client: Option<EndReport>,
    /// `None`: it did not end in time.
    pub serve: Option<EndReport>,
}

impl SessionReport {
    /// Bytes that are wrong, repeated, missing in the middle, or were not sent by a peer. A stream
    /// may end early.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let ends = [("client", &self.client), ("serve", &self.serve)];
        let mut wrong = Vec::new();
        for (name, end) in ends {
            let Some(end) = end else { continue };
            if let Some(byte) = &end.wrong {
                wrong.push(format!("session {}: {name}: {byte}", self.session));
            }
            if end.inserted_bytes > 0 && end.inserted_close.is_none() {
                let bytes = end.inserted_bytes;
                wrong.push(format!("session {}: {name}: {bytes} bytes that no peer sent", self.session));
            }
        }
        wrong
    }

    /// Whether it ended by itself, with every byte at its place in both directions.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.deviations().is_empty()
    }

    /// Deviations from a session that is relayed to its end.
    #[must_use]
    pub fn deviations(&self) -> Vec<String> {
        let (Some(client), Some(serve)) = (&self.client, &self.serve) else {
            let end = if self.client.is_none() { "client" } else { "serve" };
            return vec![format!("session {} ({:?}): {end} did not end", self.session, self.kind)];
        };
        let mut found = self.wrong();
        let mut expect = |name: &str, is_right: bool, got: String| {
            if !is_right {
                found.push(format!("session {} ({:?}): {name}: {got}", self.session, self.kind));
            }
        };
        for (name, sender, receiver) in
            [("client to serve", client, serve), ("serve to client", serve, client)]
        {
            let is_equal = sender.sent == receiver.received;
            expect(name, is_equal, format!("sent {:?}, received {:?}", sender.sent, receiver.received));
            expect(name, receiver.missing_frames == 0, format!("{} frames missing", receiver.missing_frames));
            expect(name, !receiver.is_inside_frame, "ended inside a frame".to_owned());
        }
        for (name, end) in [("client", client), ("serve", serve)] {
            // A half-closed client sends no Close frame.
            let closes = name == "client" || self.kind != Kind::HalfClosed;
            expect(name, end.is_closed == closes, format!("Close frame: {}", end.is_closed));
            expect(name, end.end == Some(StreamEnd::Fin), format!("end {:?}", end.end));
            expect(name, end.inserted_bytes == 0, format!("Close of dispatch: {:?}", end.inserted_close));
            expect(name, end.send_error.is_none(), format!("write: {:?}", end.send_error));
        }
        found
    }
}

/// Deviations of all sessions.
#[must_use]
pub fn findings(reports: &[SessionReport]) -> Vec<String> {
    reports.iter().flat_map(SessionReport::deviations).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::tally::Tally;

    fn end(sent: &[u8], received: &[u8]) -> EndReport {
        let tally = |bytes: &[u8]| {
            let mut tally = Tally::default();
            tally.add(bytes);
            tally
        };
        EndReport {
            sent: tally(sent),
            received: tally(received),
            send_error: None,
            end: Some(StreamEnd::Fin),
            is_closed: true,
            inserted_close: None,
            inserted_bytes: 0,
            is_inside_frame: false,
            wrong: None,
            missing_frames: 0,
        }
    }

    fn good() -> SessionReport {
        let (client, serve) = (Some(end(b"up", b"down")), Some(end(b"down", b"up")));
        SessionReport { session: 1, kind: Kind::Both, client, serve }
    }

    #[test]
    fn each_deviation_is_found() {
        assert_eq!(good().deviations(), [""; 0]);
        let changes: [fn(&mut EndReport); 8] = [
            |end| end.received.add(b"x"),
            |end| end.sent.add(b"x"),
            |end| end.send_error = Some("EPIPE".to_owned()),
            |end| end.end = Some(StreamEnd::Reset),
            |end| end.is_closed = false,
            |end| (end.inserted_close, end.inserted_bytes) = (Some(Some(1001)), 4),
            |end| end.is_inside_frame = true,
            |end| end.missing_frames = 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            for is_client in [true, false] {
                let mut report = good();
                let end = if is_client { &mut report.client } else { &mut report.serve };
                change(end.as_mut().unwrap());
                assert_eq!(report.deviations().len(), 1, "{number} {is_client}");
                assert!(report.wrong().is_empty() && !report.is_kept());
            }
        }
        let mut report = good();
        report.serve = None;
        assert_eq!(report.deviations().len(), 1);
    }

    #[test]
    fn wrong_bytes_are_never_accepted() {
        let mut report = good();
        report.client.as_mut().unwrap().wrong = Some("byte 3".to_owned());
        assert_eq!(report.wrong().len(), 1);
        let mut report = good();
        report.serve.as_mut().unwrap().inserted_bytes = 7;
        assert_eq!(report.wrong().len(), 1);
    }

    #[test]
    fn a_half_closed_client_sends_no_close() {
        let mut report = SessionReport { kind: Kind::HalfClosed, ..good() };
        assert_eq!(report.deviations().len(), 1);
        report.serve.as_mut().unwrap().is_closed = false;
        assert_eq!(report.deviations(), [""; 0]);
    }
}
