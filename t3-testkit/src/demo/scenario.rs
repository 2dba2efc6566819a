//! The eight scenarios of the demo: faults of the catalogue, each with its user and its narration.

/// The faults of alice are on the client's side, those of bob on the side of serve.
pub const USERS: [&str; 2] = ["alice", "bob"];

/// One fault and its presentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Name of the fault in the catalogue.
    pub fault: &'static str,
    pub user: &'static str,
    /// Announcement of the fault.
    pub narration: &'static str,
}

/// All scenarios, in the order of the demo.
pub const SCENARIOS: [Scenario; 8] = [
    Scenario {
        fault: "client_close_1001",
        user: "alice",
        narration: "alice leaves the page: her browser sends Close 1001",
    },
    Scenario {
        fault: "client_fin",
        user: "alice",
        narration: "alice's connection ends with a FIN and no Close frame",
    },
    Scenario { fault: "client_rst", user: "alice", narration: "alice's side sends RST" },
    Scenario {
        fault: "client_vanished_idle",
        user: "alice",
        narration: "alice's network goes down: no FIN, no RST, no ACK (keepalive every second, user timeout 3 s)",
    },
    Scenario { fault: "serve_sigkill", user: "bob", narration: "bob's serve is killed with SIGKILL" },
    Scenario {
        fault: "serve_exit_0",
        user: "bob",
        narration: "bob's serve exits with status 0, as in a restart",
    },
    Scenario {
        fault: "serve_busy",
        user: "bob",
        narration: "bob's serve blocks its event loop; his browser misses the pongs and sends Close 1000",
    },
    Scenario {
        fault: "serve_oom",
        user: "bob",
        narration: "bob's serve grows above the memory limit of its cgroup",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use t3_record::{
        KernelSource::{Off, Tracepoint},
        Verdict,
    };

    use super::*;
    use crate::faults::fault;

    #[test]
    fn with_kernel_evidence_each_scenario_has_its_own_verdict() {
        let verdicts: BTreeSet<_> =
            SCENARIOS.map(|scenario| fault(scenario.fault).unwrap().verdicts(Tracepoint)).into();
        assert_eq!(verdicts.len(), SCENARIOS.len());
        assert!(verdicts.iter().all(|verdicts| verdicts.len() == 1), "{verdicts:?}");
    }

    #[test]
    fn without_kernel_evidence_only_the_end_of_a_process_may_look_like_a_fin() {
        for scenario in SCENARIOS {
            let fault = fault(scenario.fault).unwrap();
            let (with, without) = (fault.verdicts(Tracepoint), fault.verdicts(Off));
            let ends = ["serve_sigkill", "serve_exit_0", "serve_oom"].contains(&scenario.fault);
            assert_eq!(without[0], with[0], "{scenario:?}");
            assert_eq!(without[1..].contains(&Verdict::ServeLeft), ends, "{scenario:?}");
        }
    }
}
