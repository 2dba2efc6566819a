//! `t3-bench`: CPU, latency and memory of t3-dispatch, compared with nginx and HAProxy.

use clap::Parser as _;
use t3_testkit::bench;

fn main() -> anyhow::Result<()> {
    Ok(bench::run(&bench::options::Options::parse())?)
}
