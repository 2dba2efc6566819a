//! `t3-serve-standin`: the stand-in for `t3 serve` as a process of its own, so that it can be
//! killed like one.

use clap::Parser as _;
use t3_testkit::standin;

fn main() -> anyhow::Result<()> {
    standin::eat_if_asked();
    Ok(standin::run(&standin::Options::parse())?)
}
