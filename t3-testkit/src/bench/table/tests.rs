//! Tables of a small report.

use std::collections::BTreeMap;

use super::*;
use crate::bench::{
    baseline::CallCount,
    contestant::Contestant::{Dispatch, Floor, Nginx},
    cpus::Cpus,
    metric::Workload,
    report::Cell,
    stats::spread,
};

fn row(metric: Metric, title: &str, cells: &[(Contestant, &[f64])]) -> Row {
    let cell = |(contestant, values): &(Contestant, &[f64])| Cell {
        contestant: *contestant,
        values: values.to_vec(),
        spread: spread(values.iter().copied()).unwrap(),
    };
    let (title, unit) = (title.to_owned(), metric.unit().to_owned());
    Row { metric, title, unit, cells: cells.iter().map(cell).collect() }
}

fn report() -> Report {
    let rows = vec![
        row(
            Metric::EchoCpu,
            "echo",
            &[(Nginx, &[12.0, 10.0, 11.0]), (Dispatch, &[9.0, 9.0, 11.0]), (Floor, &[6.0, 5.0, 5.5])],
        ),
        row(Metric::EchoRate, "echo", &[(Nginx, &[80_000.0]), (Dispatch, &[72_000.0])]),
    ];
    let machine = Machine {
        cores: 2,
        cpu: "a CPU".to_owned(),
        kernel: "6.18".to_owned(),
        peers: vec!["nginx/1".to_owned()],
        cpus: Cpus { proxy: 1, load: 0 },
    };
    let calls = Calls {
        workload: Workload::Echo,
        title: "echo".to_owned(),
        unit: "round trip".to_owned(),
        contestant: Dispatch,
        total: 4.62,
        by_name: BTreeMap::from([
            ("epoll_wait".to_owned(), 0.6),
            ("futex".to_owned(), 0.01),
            ("recvfrom".to_owned(), 2.0),
        ]),
    };
    let ratios = compare::all(&rows);
    Report { quick: false, machine, rounds: 3, rows, ratios, calls: vec![calls], idle: vec![], notes: vec![] }
}

#[test]
fn values_ratios_and_calls_are_tables() {
    let expected = "\
2 cores, a CPU, Linux 6.18, nginx/1; proxy on CPU 1, load on CPU 0
3 rounds; each cell: median; best

values
                              nginx   t3-dispatch       floor
  echo  CPU µs           11.0; 10.0    9.00; 9.00  5.50; 5.00
  echo  round trips/s  80000; 80000  72000; 72000           -

t3-dispatch divided by another contestant, within a round
                                         nginx       floor             goal      reached
  echo  CPU µs         t3-dispatch  0.90; 0.75  1.80; 1.50  <= 0.90 x nginx     0.90 met
  echo  round trips/s  t3-dispatch  0.90; 0.90           -  >= 1.05 x nginx  0.90 missed

system calls per unit of work
  echo  round trip  t3-dispatch  4.62  recvfrom 2.00, epoll_wait 0.60
";
    assert_eq!(render(&report()), expected);
}

#[test]
fn committed_numbers_are_next_to_those_of_the_run() {
    let report = report();
    let mut committed = Baseline::of(&report);
    for ratio in committed.ratios.iter_mut().filter(|ratio| ratio.to == Nginx) {
        ratio.spread = Spread { median: 0.70, min: 0.65, max: 0.75 };
    }
    committed.calls = vec![CallCount { workload: Workload::Echo, contestant: Dispatch, total: 4.1 }];
    let expected = "
committed on: 2 cores, a CPU, Linux 6.18, nginx/1; proxy on CPU 1, load on CPU 0

ratios of this run (committed)
                                                 nginx        floor
  echo  CPU µs         t3-dispatch   0.90 (0.70) WORSE  1.80 (1.80)
  echo  round trips/s  t3-dispatch  0.90 (0.70) better            -

system calls per unit of work (committed)
  echo  round trip  t3-dispatch  4.62 (4.10) WORSE
";
    assert_eq!(against(&report, Some(&committed)), expected);
}

#[test]
fn a_small_run_is_not_compared() {
    let report = Report { quick: true, ..report() };
    let committed = Baseline::of(&report);
    assert!(render(&report).contains("\nsmall run: its numbers mean little\n"));
    assert_eq!(
        against(&report, Some(&committed)),
        "\na small run is not compared with the committed numbers\n"
    );
    assert_eq!(against(&report, None), "\nno committed numbers; --save-baseline writes them\n");
}
