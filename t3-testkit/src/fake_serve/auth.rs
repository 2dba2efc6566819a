//! Sessions of the fake serve: one-time credentials, cookies, session checks, and their failures on
//! request. Pure; `http` has the connection.

use std::collections::BTreeSet;

use super::{PairingAnswer, SessionAnswer};

/// Session check.
pub(super) const SESSION: &str = "/api/auth/session";
/// Exchange of a credential.
pub(super) const BROWSER_SESSION: &str = "/api/auth/browser-session";
/// The same before 0.0.25.
pub(super) const BOOTSTRAP: &str = "/api/auth/bootstrap";
/// Requests to the three paths above, one path per line.
pub(super) const ASKED: &str = "/standin/asked";

/// A credential with this prefix is valid once.
pub const CREDENTIAL_PREFIX: &str = "one-time-";

/// Response to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A JSON response.
    Page {
        status: u16,
        /// Values of Set-Cookie.
        cookies: Vec<String>,
        body: String,
    },
    /// No response, on an open connection.
    Silent,
    /// FIN.
    Eof,
}

/// Sessions and credentials.
#[derive(Debug)]
pub(super) struct Auth {
    pub(super) session: SessionAnswer,
    pub(super) pairing: PairingAnswer,
    used: BTreeSet<String>,
    /// Number of created sessions, `session-1` and on.
    given: usize,
    asked: String,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            session: SessionAnswer::Honest,
            pairing: PairingAnswer::Accept,
            used: BTreeSet::new(),
            given: 0,
            asked: String::new(),
        }
    }
}

impl Auth {
    /// Responds to a request for one of the paths above.
    pub(super) fn answer(&mut self, path: &str, cookie: &str, body: &[u8]) -> Answer {
        self.asked.push_str(path);
        self.asked.push('\n');
        if path == SESSION { self.say(cookie) } else { self.take(path, body) }
    }

    /// The requests so far.
    pub(super) fn asked(&self) -> String {
        self.asked.clone()
    }

    fn say(&self, cookie: &str) -> Answer {
        let authenticated =
            |value: bool| format!(r#"{{"authenticated":{value},"auth":{{"policy":"standin"}}}}"#);
        match self.session {
            SessionAnswer::Honest => page(200, authenticated(self.knows(cookie))),
            SessionAnswer::Fixed(value) => page(200, authenticated(value)),
            SessionAnswer::Status(status) => page(status, authenticated(false)),
            SessionAnswer::Garbage => page(200, "<html>authenticated:false</html>".to_owned()),
            SessionAnswer::Silent => Answer::Silent,
            SessionAnswer::Eof => Answer::Eof,
        }
    }

    fn knows(&self, cookies: &str) -> bool {
        cookies
            .split(';')
            .filter_map(|cookie| cookie.trim().strip_prefix("t3_session=session-"))
            .filter_map(|number| number.parse::<usize>().ok())
            .any(|number| (1..=self.given).contains(&number))
    }

    fn take(&mut self, path: &str, body: &[u8]) -> Answer {
        let old = match self.pairing {
            PairingAnswer::Accept => false,
            PairingAnswer::Bootstrap => true,
            // An error that contains the input, as in careless programs.
            PairingAnswer::Status(status) => return page(status, String::from_utf8_lossy(body).into_owned()),
            PairingAnswer::NoCookie => return page(200, r#"{"authenticated":true}"#.to_owned()),
            PairingAnswer::Silent => return Answer::Silent,
            PairingAnswer::Eof => return Answer::Eof,
        };
        if (path == BOOTSTRAP) != old {
            return page(404, r#"{"error":"not found"}"#.to_owned());
        }
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let credential =
            body.get("credential").and_then(|credential| credential.as_str()).unwrap_or_default();
        if !credential.starts_with(CREDENTIAL_PREFIX) || !self.used.insert(credential.to_owned()) {
            return page(401, format!(r#"{{"error":"no good: {credential}"}}"#));
        }
        self.given += 1;
        Answer::Page {
            status: 200,
            cookies: vec![
                format!("t3_session=session-{}; HttpOnly; Path=/; SameSite=Lax", self.given),
                "t3_seen=1; Path=/".to_owned(),
            ],
            body: r#"{"authenticated":true,"sessionMethod":"browser-session-cookie"}"#.to_owned(),
        }
    }
}

fn page(status: u16, body: String) -> Answer {
    Answer::Page { status, cookies: Vec::new(), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(answer: &Answer) -> u16 {
        match answer {
            Answer::Page { status, .. } => *status,
            _ => 0,
        }
    }

    #[test]
    fn a_credential_is_valid_once_and_its_session_is_known() {
        let mut auth = Auth::default();
        let first = br#"{"credential":"one-time-1"}"#;
        let taken = auth.answer(BROWSER_SESSION, "", first);
        assert!(
            matches!(&taken, Answer::Page { status: 200, cookies, .. } if cookies[0].contains("session-1"))
        );
        assert_eq!(status(&auth.answer(BROWSER_SESSION, "", first)), 401);
        assert_eq!(status(&auth.answer(BROWSER_SESSION, "", br#"{"credential":"other"}"#)), 401);
        assert_eq!(status(&auth.answer(BROWSER_SESSION, "", b"no JSON")), 401);
        assert_eq!(status(&auth.answer(BOOTSTRAP, "", first)), 404);
        for (cookie, known) in
            [("a=b; t3_session=session-1", true), ("t3_session=session-2", false), ("", false)]
        {
            let expected = format!("\"authenticated\":{known}");
            let answer = auth.answer(SESSION, cookie, b"");
            assert!(
                matches!(answer, Answer::Page { status: 200, body, .. } if body.contains(&expected)),
                "{cookie}"
            );
        }
        auth.pairing = PairingAnswer::Bootstrap;
        assert_eq!(status(&auth.answer(BROWSER_SESSION, "", br#"{"credential":"one-time-2"}"#)), 404);
        assert_eq!(status(&auth.answer(BOOTSTRAP, "", br#"{"credential":"one-time-2"}"#)), 200);
    }
}
