//! Number of `tcp close` records by port and verdict. Pure and bounded.

use std::collections::BTreeMap;

use t3_record::Verdict;

/// Ports with series of their own; more are counted together. With all verdicts, the others and
/// outgoing connections these are 816 series.
pub const PORTS: usize = 32;

/// Records of one port, in the order of [`Verdict::ALL`].
type Counts = [u64; Verdict::ALL.len()];

/// Records since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Closes {
    ports: BTreeMap<u16, Counts>,
    /// Of further ports.
    others: Counts,
    /// Of outgoing connections, to any port.
    outgoing: Counts,
}

impl Closes {
    /// Gives these ports series, so that they have them before their first record.
    pub(crate) fn watch(&mut self, ports: &[u16]) {
        for port in ports {
            if self.ports.len() < PORTS {
                self.ports.entry(*port).or_default();
            }
        }
    }

    /// Counts a record of a watched port; `None` is an outgoing connection.
    pub(crate) fn count(&mut self, port: Option<u16>, verdict: Verdict) {
        let counts = match port {
            None => &mut self.outgoing,
            Some(port) => {
                self.watch(&[port]);
                self.ports.get_mut(&port).unwrap_or(&mut self.others)
            }
        };
        let place = Verdict::ALL.iter().position(|known| *known == verdict);
        if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
    }

    /// Port, verdict and number of records; `other` and `outgoing` only if they have some.
    pub(crate) fn series(&self) -> impl Iterator<Item = (String, Verdict, u64)> {
        let rest = [("other", &self.others), ("outgoing", &self.outgoing)];
        let rest = rest.into_iter().filter(|(_, counts)| counts.iter().any(|count| *count > 0));
        let rest = rest.map(|(name, counts)| (name.to_owned(), counts));
        let ports = self.ports.iter().map(|(port, counts)| (port.to_string(), counts)).chain(rest);
        ports.flat_map(|(port, counts)| {
            Verdict::ALL.iter().zip(counts).map(move |(verdict, count)| (port.clone(), *verdict, *count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_and_the_number_of_series_is_limited() {
        let mut closes = Closes::default();
        closes.watch(&[8080]);
        assert_eq!(closes.series().map(|(.., count)| count).sum::<u64>(), 0);
        assert_eq!(closes.series().count(), Verdict::ALL.len(), "from the start");
        for port in 1..=1_000 {
            closes.count(Some(port), Verdict::ServeOom);
            closes.count(Some(8080), Verdict::ClientLeft);
            closes.count(None, Verdict::ServeReset);
        }
        let of = |port: &str, verdict| {
            let mut series = closes.series();
            series.find(|(of, v, _)| of == port && *v == verdict).map(|(.., count)| count)
        };
        assert_eq!(of("8080", Verdict::ClientLeft), Some(1_000));
        assert_eq!((of("1", Verdict::ServeOom), of("1000", Verdict::ServeOom)), (Some(1), None));
        assert_eq!(of("other", Verdict::ServeOom), Some(1_001 - PORTS as u64));
        assert_eq!(of("outgoing", Verdict::ServeReset), Some(1_000));
        assert_eq!(closes.series().count(), (PORTS + 2) * Verdict::ALL.len());
        assert_eq!(closes.series().map(|(.., count)| count).sum::<u64>(), 3_000);
    }
}
