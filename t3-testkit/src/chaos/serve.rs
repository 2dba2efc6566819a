//! A serve for tens of thousands of short sessions: one thread, one task per session; each follows
//! the plan in its request target.
//!
//! Prints one line per session to stdout, `ID ACTED ENDED`: the times of its act and of the seen
//! end in nanoseconds of `CLOCK_MONOTONIC`, 0 for none.

use std::{io::Write as _, net::Ipv4Addr};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use super::{
    clock::now,
    plan::{Act, Plan},
    socket::{GO, Peer},
};
use crate::{
    error::{Attempt, Result},
    frame::{self, opcode},
    handshake,
};

/// What serve reports about one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServeReport {
    pub id: u32,
    /// Time of its act, or 0.
    pub acted: u64,
    /// When it saw the end of the stream; 0: it did not.
    pub ended: u64,
}

impl ServeReport {
    /// From a line of stdout.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let (id, acted, ended) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { id: id.parse().ok()?, acted: acted.parse().ok()?, ended: ended.parse().ok()? })
    }
}

/// Serves until it is killed.
pub fn run(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.attempt(|| "start a runtime".to_owned())?.block_on(async {
        let what = || format!("listen on port {port}");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).attempt(what)?;
        rustix::net::listen(&listener, 4096).attempt(what)?;
        listener.set_nonblocking(true).attempt(what)?;
        let listener = TcpListener::from_std(listener).attempt(what)?;
        let (sender, mut reports) = unbounded_channel::<ServeReport>();
        std::thread::spawn(move || {
            let mut out = std::io::stdout().lock();
            while let Some(ServeReport { id, acted, ended }) = reports.blocking_recv() {
                if writeln!(out, "{id} {acted} {ended}").is_err() {
                    std::process::exit(0);
                }
            }
        });
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(session(stream, sender.clone()))),
                // Out of descriptors: some come back.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    })
}

async fn session(stream: TcpStream, sender: UnboundedSender<ServeReport>) {
    let mut peer = Peer::new(stream, true);
    let Ok(Some(head)) = peer.head().await else { return };
    let Some(plan) = head.split(' ').nth(1).and_then(Plan::from_target) else { return };
    let mut report = ServeReport { id: plan.id, ..ServeReport::default() };
    live(peer, &plan, &head, &mut report).await;
    let _ = sender.send(report);
}

async fn live(mut peer: Peer, plan: &Plan, head: &str, report: &mut ServeReport) {
    let answer = match plan.act {
        Act::Gone => return report.ended = ended(&mut peer).await,
        Act::EofAtOpen => {
            report.acted = now();
            peer.fin().await;
            return report.ended = ended(&mut peer).await;
        }
        Act::ResetAtOpen => {
            report.acted = now();
            return peer.reset();
        }
        Act::Status(status) => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"),
        Act::Garbage => "\u{1}\u{2}not HTTP\r\n\r\n".to_owned(),
        Act::BadAccept => handshake::response("another key"),
        _ => handshake::response(handshake::field(head, "sec-websocket-key").unwrap_or_default()),
    };
    if !plan.act.opens() {
        report.acted = now();
    }
    if peer.write(answer.as_bytes()).await.is_err() {
        return;
    }
    if !plan.act.opens() {
        return report.ended = ended(&mut peer).await;
    }
    loop {
        let Ok(frame) = peer.next().await else {
            return report.ended = now();
        };
        match frame.opcode {
            opcode::TEXT if frame.payload == GO => break,
            opcode::TEXT if frame.payload == frame::HEARTBEAT.as_bytes() => {
                drop(peer.text(frame::HEARTBEAT_ANSWER.as_bytes()).await);
            }
            opcode::TEXT => drop(peer.text(&frame.payload).await),
            opcode::CLOSE => {
                report.ended = now();
                let _ = peer.close_frame(&frame.payload).await;
                peer.fin().await;
                peer.drain().await;
                return;
            }
            _ => {}
        }
    }
    tokio::time::sleep(plan.life).await;
    report.acted = now();
    match plan.act {
        Act::ServeClose(code) => {
            let _ = peer.close_frame(&frame::close_payload(Some(code), "")).await;
            // The browser's answer; then the server closes first.
            let _ = peer.next().await;
            peer.fin().await;
            peer.drain().await;
        }
        Act::ServeFin => {
            peer.fin().await;
            peer.drain().await;
        }
        Act::ServeMidFrame => {
            let _ = peer.half_a_frame().await;
            peer.fin().await;
            peer.drain().await;
        }
        _ => peer.reset(),
    }
}

async fn ended(peer: &mut Peer) -> u64 {
    peer.drain().await;
    now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        assert_eq!(ServeReport::from_line("7 0 12"), Some(ServeReport { id: 7, acted: 0, ended: 12 }));
        assert_eq!(ServeReport::from_line("7 x"), None);
    }
}
