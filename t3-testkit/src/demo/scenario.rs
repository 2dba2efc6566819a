//! The eight ways in which the demo ends a session: who, what is done, and the verdict that is
//! right. Pure.

use t3_record::Verdict;

/// One way to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// The browser sends a close frame.
    CloseFrame,
    /// The browser's side ends without one: FIN.
    TabGone,
    /// The browser's side resets.
    Reset,
    /// The browser's side stops answering.
    Vanished,
    /// serve gets SIGKILL.
    Killed,
    /// serve leaves by itself and a new one comes.
    Restarted,
    /// serve answers no heartbeat until the browser gives up.
    Stalled,
    /// serve grows past the memory limit of its cgroup.
    Oom,
}

/// What an ending needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A network namespace.
    Network,
    /// A cgroup whose memory can be limited.
    MemoryLimit,
}

impl Ending {
    /// All of them, in the order of the demo.
    pub const ALL: [Self; 8] = [
        Self::CloseFrame,
        Self::TabGone,
        Self::Reset,
        Self::Vanished,
        Self::Killed,
        Self::Restarted,
        Self::Stalled,
        Self::Oom,
    ];

    /// Whose session it is: alice has trouble on the browser's side, bob with his serve.
    #[must_use]
    pub const fn user(self) -> &'static str {
        match self {
            Self::CloseFrame | Self::TabGone | Self::Reset | Self::Vanished => "alice",
            Self::Killed | Self::Restarted | Self::Stalled | Self::Oom => "bob",
        }
    }

    /// Two or three words for the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CloseFrame => "close frame",
            Self::TabGone => "tab gone (FIN)",
            Self::Reset => "reset (RST)",
            Self::Vanished => "client vanished",
            Self::Killed => "serve killed",
            Self::Restarted => "serve restarted",
            Self::Stalled => "serve stalled",
            Self::Oom => "serve OOM-killed",
        }
    }

    /// What is about to be done, for a line on the screen.
    #[must_use]
    pub const fn saying(self) -> &'static str {
        match self {
            Self::CloseFrame => "alice's browser closes with a close frame, code 1001",
            Self::TabGone => "alice's tab is gone: FIN, no close frame",
            Self::Reset => "alice's side resets the connection",
            Self::Vanished => {
                "alice's network goes dark: no FIN, no RST, no answer (probes every second, 3 s of patience)"
            }
            Self::Killed => "bob's serve gets SIGKILL",
            Self::Restarted => "bob's serve leaves with status 0, as in a restart; a new one takes its port",
            Self::Stalled => {
                "bob's serve holds its event loop; after three unanswered heartbeats his browser gives up with a clean 1000"
            }
            Self::Oom => "bob's serve takes memory past the limit of its cgroup",
        }
    }

    /// The `Cf-Ray` of its session.
    #[must_use]
    pub fn ray(self) -> String {
        format!("demo-{}", self as u8)
    }

    /// What it needs of the machine.
    #[must_use]
    pub const fn needs(self) -> Needs {
        match self {
            Self::Vanished => Needs::Network,
            Self::Oom => Needs::MemoryLimit,
            _ => Needs::Nothing,
        }
    }

    /// The right verdicts. Without eBPF programs a process's death is seen only where the kernel
    /// tells the exit status of strangers (pidfd, 6.15 and newer); elsewhere the end looks like a
    /// FIN, and `serve_left` is all that may be said.
    #[must_use]
    pub const fn right(self, kernel: bool) -> &'static [Verdict] {
        match self {
            Self::CloseFrame => &[Verdict::ClientClosed],
            Self::TabGone => &[Verdict::ClientLeft],
            Self::Reset => &[Verdict::ClientReset],
            Self::Vanished => &[Verdict::ClientVanished],
            Self::Stalled => &[Verdict::ServeStalled],
            Self::Killed if kernel => &[Verdict::ServeKilled],
            Self::Restarted if kernel => &[Verdict::ServeExited],
            Self::Oom if kernel => &[Verdict::ServeOom],
            Self::Killed => &[Verdict::ServeKilled, Verdict::ServeLeft],
            Self::Restarted => &[Verdict::ServeExited, Verdict::ServeLeft],
            // The exit status of an OOM kill is that of any SIGKILL.
            Self::Oom => &[Verdict::ServeOom, Verdict::ServeKilled, Verdict::ServeLeft],
        }
    }

    /// Whether serve is dead after it.
    #[must_use]
    pub const fn ends_serve(self) -> bool {
        matches!(self, Self::Killed | Self::Restarted | Self::Oom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn with_the_kernel_each_ending_has_a_verdict_of_its_own() {
        let verdicts: BTreeSet<_> = Ending::ALL.map(|ending| ending.right(true)).into();
        let rays: BTreeSet<_> = Ending::ALL.map(Ending::ray).into();
        assert_eq!((verdicts.len(), rays.len()), (8, 8));
    }

    #[test]
    fn without_the_kernel_a_death_may_look_like_a_fin_and_nothing_else_changes() {
        for ending in Ending::ALL {
            let (with, without) = (ending.right(true), ending.right(false));
            assert!(without.contains(&with[0]), "{ending:?}");
            assert_eq!(without.contains(&Verdict::ServeLeft), ending.ends_serve(), "{ending:?}");
        }
    }
}
