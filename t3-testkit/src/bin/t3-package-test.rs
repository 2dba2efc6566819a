//! `t3-package-test`: test of the Debian packages in a guest. Exit code 1 when a step failed, 2
//! when the set-up failed.

use std::process::ExitCode;

use clap::Parser;
use t3_testkit::package_test::{self, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.knock {
        Some(role) => package_test::knock(role).map(|()| true),
        None => package_test::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("t3-package-test: {error}");
            ExitCode::from(2)
        }
    }
}
