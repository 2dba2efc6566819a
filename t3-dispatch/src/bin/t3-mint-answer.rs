//! `t3-mint-answer`: what t3-mint.socket starts, as root, for each question of t3-dispatch: one OS user's name on standard input, one line of
//! JSON with a one-time credential, or with the reason why there is none, on standard output. Never listens and never logs what it hands out.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use t3_dispatch::pairing::{
    MintCommand,
    mint::Mint,
    mint_answer::{answer, line},
};

/// Answers one question for a pairing credential: an OS user's name on standard input, one line of JSON on standard output.
///
/// t3-mint.socket starts it for each connection of t3-dispatch.
#[derive(Debug, Parser)]
#[command(
    name = "t3-mint-answer",
    version,
    max_term_width = 110,
    after_help = "Exit status: 0 a credential was given out, 1 none was, 2 bad usage."
)]
struct Options {
    /// Command that prints {"credential": "..."}; the OS user is added as its last argument.
    #[arg(long, default_value = "/usr/local/bin/t3-mint")]
    command: MintCommand,
    /// For that command to end; then it is killed. Shorter than t3-dispatch waits, so that it still hears why.
    #[arg(long, value_name = "TIME", value_parser = t3_config::value::time, default_value = "9s")]
    timeout: Duration,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let answer = runtime.block_on(answer(tokio::io::stdin(), &Mint::new(options.command, options.timeout)));
    if let Err(error) = &answer {
        eprintln!("{error}");
    }
    // One that no longer listens has given up; the credential ends with it.
    let written = std::io::stdout().lock().write_all(&line(&answer));
    // A question that never came is still being read.
    runtime.shutdown_background();
    Ok(if answer.is_ok() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
