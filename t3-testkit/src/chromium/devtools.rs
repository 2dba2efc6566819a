//! Client of the DevTools protocol: one command at a time; events are ignored.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

/// Timeout for a reply: a command may wait for a page that waits for the network.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to a browser or to one page.
#[derive(Debug)]
pub(super) struct DevTools {
    socket: WebSocket<TcpStream>,
    last: u64,
}

impl DevTools {
    pub(super) fn connect(address: SocketAddr, path: &str) -> Result<Self> {
        let what = || format!("connect to Chromium's DevTools at {address}");
        let stream = TcpStream::connect(address).attempt(what)?;
        stream.set_read_timeout(Some(wait::scaled(ANSWER))).attempt(what)?;
        let (socket, _) = client(format!("ws://{address}{path}"), stream)
            .map_err(|error| TestError::Unexpected { what: what(), got: error.to_string() })?;
        Ok(Self { socket, last: 0 })
    }

    /// Sends a command and returns the `result` of its reply.
    pub(super) fn command(&mut self, method: &str, params: Value) -> Result<Value> {
        let failed =
            |got: String| TestError::Unexpected { what: format!("a reply of Chromium to {method}"), got };
        self.last += 1;
        let text = json!({ "id": self.last, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(text)).map_err(|error| failed(error.to_string()))?;
        loop {
            let message = self.socket.read().map_err(|error| failed(error.to_string()))?;
            let Ok(text) = message.to_text() else { continue };
            let Ok(Value::Object(mut answer)) = serde_json::from_str(text) else { continue };
            if answer.get("id").and_then(Value::as_u64) != Some(self.last) {
                continue;
            }
            return match answer.remove("result") {
                Some(result) => Ok(result),
                None => Err(failed(text.to_owned())),
            };
        }
    }
}
