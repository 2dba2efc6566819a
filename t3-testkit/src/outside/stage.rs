//! The host's side: plays scenes with a real client and the monitor of qemu.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use super::{GUEST, Scene, Step};
use crate::{
    client::{Client, Config},
    error::{Attempt, Result, TestError},
    harness, sys, wait,
};

const PROMPT: &[u8] = b"(qemu) ";
const START: Duration = Duration::from_secs(20);

/// The hypervisor of one guest.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    /// Socket of its monitor.
    pub monitor: PathBuf,
    /// Its process.
    pub pid: u32,
}

impl Hypervisor {
    /// Executes a command of the human monitor; returns its output.
    fn order(&self, order: &str) -> Result<String> {
        let what = || format!("send `{order}` to {}", self.monitor.display());
        let mut monitor = UnixStream::connect(&self.monitor).attempt(what)?;
        monitor.set_read_timeout(Some(START)).attempt(what)?;
        until_prompt(&mut monitor).attempt(what)?;
        writeln!(monitor, "{order}").attempt(what)?;
        until_prompt(&mut monitor).attempt(what)
    }

    /// Stops the guest; it continues after `time`, whatever happens meanwhile.
    fn pause(&self, time: Duration, way: Way) -> Result<JoinHandle<Result<()>>> {
        self.set_running(false, way)?;
        let own = self.clone();
        Ok(std::thread::spawn(move || {
            std::thread::sleep(time);
            own.set_running(true, way)
        }))
    }

    fn set_running(&self, runs: bool, way: Way) -> Result<()> {
        match way {
            Way::Monitor => self.order(if runs { "cont" } else { "stop" }).map(drop),
            Way::Signal => sys::signal(self.pid, if runs { libc::SIGCONT } else { libc::SIGSTOP })
                .attempt(|| format!("signal process {}", self.pid)),
        }
    }

    /// Forwards a free port of this host to `port` of the guest; returns its address.
    fn forward(&self, port: u16) -> Result<SocketAddr> {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, harness::free_port()?));
        let output = self.order(&format!("hostfwd_add tcp:{}:{}-{GUEST}:{port}", here.ip(), here.port()))?;
        match output.lines().find(|line| line.contains("rror") || line.contains("nvalid")) {
            None => Ok(here),
            Some(error) => {
                Err(TestError::Unexpected { what: "a forwarded port".to_owned(), got: error.to_owned() })
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Monitor,
    Signal,
}

fn until_prompt(monitor: &mut UnixStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(PROMPT) {
        monitor.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Plays the scenes that a guest sends over this socket, until it powers off.
pub fn play_all(hypervisor: &Hypervisor, requests: &Path) -> Result<()> {
    let what = || format!("read {}", requests.display());
    let socket = wait::until("the socket of the guest", START, || UnixStream::connect(requests).ok())?;
    let mut answers = socket.try_clone().attempt(what)?;
    for line in BufReader::new(socket).lines() {
        let line = line.attempt(what)?;
        let scene = line.parse::<Scene>();
        let is_reset = scene.as_ref().is_ok_and(|scene| scene.0.contains(&Step::Reset));
        let answer = match scene.and_then(|scene| play(hypervisor, &scene)) {
            // The port would keep an answer for the next request, of the next boot.
            Ok(()) if is_reset => {
                eprintln!("{line}: done");
                continue;
            }
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("error: {}", error.to_string().replace('\n', " ")),
        };
        eprintln!("{line}: {answer}");
        writeln!(answers, "{answer}").attempt(what)?;
    }
    Ok(())
}

fn play(hypervisor: &Hypervisor, scene: &Scene) -> Result<()> {
    let mut client: Option<Client> = None;
    let mut paused = None;
    let mut outcome = Ok(());
    for step in &scene.0 {
        outcome = play_step(hypervisor, step, &mut client, &mut paused);
        if outcome.is_err() {
            break;
        }
    }
    outcome.and(runs(&mut paused))
}

fn play_step(
    hypervisor: &Hypervisor,
    step: &Step,
    client: &mut Option<Client>,
    paused: &mut Option<JoinHandle<Result<()>>>,
) -> Result<()> {
    match (step, client.as_ref()) {
        (Step::Open { port, user, period }, _) => {
            let mut config =
                Config::new(hypervisor.forward(*port)?, user).header("Cf-Ray", &format!("ray-{user}"));
            config.heartbeat = Some(Duration::from_millis(*period));
            *client = Some(Client::connect(config.header("X-Forwarded-For", "203.0.113.7"))?);
        }
        (Step::Wait(time), _) => std::thread::sleep(Duration::from_millis(*time)),
        (Step::Stop(time), _) => {
            *paused = Some(hypervisor.pause(Duration::from_millis(*time), Way::Monitor)?);
        }
        (Step::Unscheduled(time), _) => {
            *paused = Some(hypervisor.pause(Duration::from_millis(*time), Way::Signal)?);
        }
        (Step::Run, _) => runs(paused)?,
        (Step::Reset, _) => hypervisor.order("system_reset").map(drop)?,
        (_, None) => {
            return Err(TestError::Unexpected { what: "an open client".to_owned(), got: "none".to_owned() });
        }
        (Step::Beats(count), Some(client)) => client.heartbeats(*count)?,
        (Step::Close(code), Some(client)) => client.close(Some(*code), ""),
        (Step::Drop, Some(client)) => client.drop_socket(),
        (Step::End, Some(client)) => client.wait_end().map(drop)?,
    }
    Ok(())
}

fn runs(paused: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    let Some(thread) = paused.take() else { return Ok(()) };
    let panicked =
        |_| TestError::Unexpected { what: "a running guest".to_owned(), got: "a panic".to_owned() };
    thread.join().map_err(panicked)?
}
