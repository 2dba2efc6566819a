//! `t3-bench`: memory and CPU of t3-dispatch, compared with HAProxy.

use clap::Parser as _;
use t3_testkit::bench;

fn main() -> anyhow::Result<()> {
    Ok(bench::run(&bench::options::Options::parse())?)
}
