//! `t3-serve-standin`: the fake `t3 serve` as a separate process, so that it can be killed.

use clap::Parser as _;
use t3_testkit::fake_serve;

fn main() -> anyhow::Result<()> {
    fake_serve::eat_if_asked();
    Ok(fake_serve::run(&fake_serve::Options::parse())?)
}
