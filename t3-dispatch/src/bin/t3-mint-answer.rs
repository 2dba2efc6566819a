//! `t3-mint-answer`: answers one pairing request of t3-dispatch; t3-mint.socket starts it as root.
//!
//! Reads the name of one OS user from standard input and writes one line of JSON to standard
//! output: a one-time credential, or the error. Does not listen and does not log the credential.

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
    // If t3-dispatch has closed the connection, the unused credential expires.
    let written = std::io::stdout().lock().write_all(&line(&answer));
    // A read of standard input may still be pending.
    runtime.shutdown_background();
    Ok(if answer.is_ok() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
