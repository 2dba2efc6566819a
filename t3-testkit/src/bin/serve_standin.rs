//! `t3-serve-standin`: the stand-in for `t3 serve` as a process of its own, so that it can be
//! killed like one.

use clap::Parser as _;
use t3_testkit::fake_serve;

fn main() -> anyhow::Result<()> {
    fake_serve::eat_if_asked();
    Ok(fake_serve::run(&fake_serve::Options::parse())?)
}
