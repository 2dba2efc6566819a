//! `t3-mint-answer`: what t3-mint.socket starts, as root, for each question of t3-dispatch: one OS
//! user's name on standard input, one line of JSON with a one-time credential, or with the reason
//! why there is none, on standard output. Never listens and never logs what it hands out.

use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser as _;
use t3_dispatch::{
    cli::MintAnswer,
    pairing::{
        mint::Mint,
        mint_answer::{answer, line},
    },
};

fn main() -> anyhow::Result<ExitCode> {
    let options = MintAnswer::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
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
