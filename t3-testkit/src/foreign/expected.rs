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
    /// The end that acted first.
    pub closed_by: ClosedBy,
    /// The most that the kernel's events support.
    pub confidence: Confidence,
    /// comm of the process behind the port.
    pub peer_comm: &'static str,
}

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
        let closed_by = found.closed_by.map_or("nothing", |end| end.as_str()).to_owned();
        check(
            "closed_by",
            found.closed_by == Some(self.closed_by),
            self.closed_by.as_str().to_owned(),
            closed_by,
        );
        let confidence = found.confidence.map_or("nothing", |confidence| confidence.as_str()).to_owned();
        check(
            "confidence",
            found.confidence == Some(self.confidence),
            self.confidence.as_str().to_owned(),
            confidence,
        );
        let comm = found.peer_comm.clone().unwrap_or_else(|| "nothing".to_owned());
        check("peer_comm", comm == self.peer_comm, self.peer_comm.to_owned(), comm);
        wrong
    }

    /// Whether the record claims a wrong verdict or a wrong mechanism as proven.
    #[must_use]
    pub fn is_wrong_proven(&self, found: &Leg) -> bool {
        found.confidence == Some(Confidence::Proven)
            && !(self.confidence == Confidence::Proven
                && self.verdicts.contains(&found.verdict)
                && self.hows.contains(&found.how)
                && found.closed_by == Some(self.closed_by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> ExpectedLeg {
        ExpectedLeg {
            verdicts: &[Verdict::ServeLeft, Verdict::ServeReset],
            hows: vec!["fin".to_owned(), "rst".to_owned()],
            closed_by: ClosedBy::Upstream,
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
        let sure = ExpectedLeg { confidence: Confidence::Proven, ..expected() };
        assert!(!expected().is_wrong_proven(&found()));
        assert!(expected().is_wrong_proven(&proven), "the kernel cannot know it");
        assert!(!sure.is_wrong_proven(&proven));
        assert!(sure.is_wrong_proven(&Leg { verdict: Verdict::ClientLeft, ..proven.clone() }));
        assert!(sure.is_wrong_proven(&Leg { how: "signal:9".to_owned(), ..proven }));
    }
}
