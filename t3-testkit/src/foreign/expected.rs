//! Expected record of each port of a fault: the truth about who ended the connection there, and how
//! much of it the kernel can prove.

use t3_record::{ClosedBy, Confidence, Verdict};

use super::legs::Leg;

/// Expected record of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedLeg {
    /// The correct verdicts; more than one where the proxy chooses between FIN and RST.
    pub verdicts: &'static [Verdict],
    /// The correct mechanisms.
    pub hows: Vec<String>,
    /// The end that acted first; more than one where both ends act at the same time.
    pub closed_by: &'static [ClosedBy],
    /// What the kernel's events support.
    pub confidence: Confidence,
    /// comm of the process behind the port; may be missing where that process did not close.
    pub peer_comm: &'static str,
}

/// Verdicts that kernel evidence can prove.
const PROVABLE: [Verdict; 5] = [
    Verdict::ClientVanished,
    Verdict::ServeExited,
    Verdict::ServeKilled,
    Verdict::ServeOom,
    Verdict::AdminKilled,
];

/// Expected records of both ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// On the proxy's port; `None` without a proxy.
    pub proxy: Option<ExpectedLeg>,
    /// On serve's port.
    pub serve: ExpectedLeg,
}

impl ExpectedLeg {
    /// Differences of a record, each as one text; empty if it is as expected.
    #[must_use]
    pub fn mismatches(&self, found: Option<&Leg>) -> Vec<String> {
        let Some(found) = found else { return vec!["no record".to_owned()] };
        let mut wrong = Vec::new();
        let mut check = |key: &str, holds: bool, expected: String, got: String| {
            if !holds {
                wrong.push(format!("{key}: expected {expected}, got {got}"));
            }
        };
        let verdicts: Vec<&str> = self.verdicts.iter().map(|verdict| verdict.as_str()).collect();
        check(
            "verdict",
            self.verdicts.contains(&found.verdict),
            verdicts.join("|"),
            found.verdict.as_str().to_owned(),
        );
        check("how", self.hows.contains(&found.how), self.hows.join("|"), found.how.clone());
        let ends: Vec<&str> = self.closed_by.iter().map(|end| end.as_str()).collect();
        let closed_by = found.closed_by.map_or("nothing", |end| end.as_str()).to_owned();
        check(
            "closed_by",
            found.closed_by.is_some_and(|end| self.closed_by.contains(&end)),
            ends.join("|"),
            closed_by,
        );
        let confidence = found.confidence.map_or("nothing", |confidence| confidence.as_str()).to_owned();
        // A process that closes its connections and then exits is not provably the same act.
        let is_either = self.verdicts.len() > 1 && self.confidence == Confidence::Proven;
        let is_likely = found.confidence == Some(Confidence::Likely);
        let can_be_proven = PROVABLE.contains(&found.verdict);
        let is_as_expected = found.confidence == Some(self.confidence) && (is_likely || can_be_proven);
        check(
            "confidence",
            is_as_expected || (is_either && is_likely),
            self.confidence.as_str().to_owned(),
            confidence,
        );
        let may_miss = !self.closed_by.starts_with(&[ClosedBy::Upstream]) && found.peer_comm.is_none();
        let comm = found.peer_comm.clone().unwrap_or_else(|| "nothing".to_owned());
        check("peer_comm", may_miss || comm == self.peer_comm, self.peer_comm.to_owned(), comm);
        wrong
    }

    /// Whether the record claims a wrong verdict or a wrong mechanism as proven.
    #[must_use]
    pub fn is_wrong_proven(&self, found: &Leg) -> bool {
        found.confidence == Some(Confidence::Proven)
            && !(self.confidence == Confidence::Proven
                && PROVABLE.contains(&found.verdict)
                && self.verdicts.contains(&found.verdict)
                && self.hows.contains(&found.how)
                && found.closed_by.is_some_and(|end| self.closed_by.contains(&end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> ExpectedLeg {
        ExpectedLeg {
            verdicts: &[Verdict::ServeLeft, Verdict::ServeReset],
            hows: vec!["fin".to_owned(), "rst".to_owned()],
            closed_by: &[ClosedBy::Upstream],
            confidence: Confidence::Likely,
            peer_comm: "nginx",
        }
    }

    fn found() -> Leg {
        Leg {
            verdict: Verdict::ServeLeft,
            how: "fin".to_owned(),
            closed_by: Some(ClosedBy::Upstream),
            confidence: Some(Confidence::Likely),
            peer_comm: Some("nginx".to_owned()),
            ends: String::new(),
            line: String::new(),
        }
    }

    #[test]
    fn each_wrong_value_is_a_mismatch() {
        assert_eq!(expected().mismatches(Some(&found())), Vec::<String>::new());
        assert_eq!(expected().mismatches(None), ["no record"]);
        for wrong in [
            Leg { verdict: Verdict::ClientLeft, ..found() },
            Leg { how: "exit:1".to_owned(), ..found() },
            Leg { closed_by: None, ..found() },
            Leg { confidence: Some(Confidence::Proven), ..found() },
            Leg { peer_comm: Some("node".to_owned()), ..found() },
        ] {
            assert_eq!(expected().mismatches(Some(&wrong)).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn only_a_false_claim_of_proof_is_a_wrong_proven() {
        let proven = Leg { confidence: Some(Confidence::Proven), ..found() };
        assert!(!expected().is_wrong_proven(&found()));
        assert!(expected().is_wrong_proven(&proven), "the kernel cannot know it");
        let killed = ExpectedLeg {
            verdicts: &[Verdict::ServeKilled, Verdict::ServeLeft],
            hows: vec!["signal:9".to_owned(), "fin".to_owned()],
            confidence: Confidence::Proven,
            ..expected()
        };
        let right = Leg { verdict: Verdict::ServeKilled, how: "signal:9".to_owned(), ..proven.clone() };
        assert!(!killed.is_wrong_proven(&right));
        for wrong in [
            Leg { verdict: Verdict::ClientLeft, ..right.clone() },
            Leg { how: "signal:15".to_owned(), ..right.clone() },
            Leg { closed_by: Some(ClosedBy::Downstream), ..right },
            // Expected, but nothing that a Close frame could refute is proven.
            proven,
        ] {
            assert!(killed.is_wrong_proven(&wrong), "{wrong:?}");
            assert!(!killed.mismatches(Some(&wrong)).is_empty(), "{wrong:?}");
        }
        assert!(killed.mismatches(Some(&found())).is_empty(), "closed, and killed later");
    }

    #[test]
    fn the_name_of_a_process_that_did_not_close_may_be_unknown() {
        let by_client = ExpectedLeg {
            verdicts: &[Verdict::ClientReset],
            hows: vec!["rst".to_owned()],
            closed_by: &[ClosedBy::Downstream],
            ..expected()
        };
        let unknown = Leg {
            verdict: Verdict::ClientReset,
            how: "rst".to_owned(),
            closed_by: Some(ClosedBy::Downstream),
            peer_comm: None,
            ..found()
        };
        assert!(by_client.mismatches(Some(&unknown)).is_empty());
        let wrong = Leg { peer_comm: Some("node".to_owned()), ..unknown };
        assert_eq!(by_client.mismatches(Some(&wrong)).len(), 1);
        assert_eq!(expected().mismatches(Some(&Leg { peer_comm: None, ..found() })).len(), 1);
    }
}
