//! Number of `tcp close` records by port and verdict. Pure and bounded.

use std::collections::BTreeMap;

use t3_record::Verdict;

/// Ports with series of their own; more are counted together. With all verdicts these are 792
/// series.
pub const PORTS: usize = 32;

/// Records of one port, in the order of [`Verdict::ALL`].
type Counts = [u64; Verdict::ALL.len()];

/// Records since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Closes {
    ports: BTreeMap<u16, Counts>,
    /// Of further ports.
    others: Counts,
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

    pub(crate) fn count(&mut self, port: u16, verdict: Verdict) {
        self.watch(&[port]);
        let counts = self.ports.get_mut(&port).unwrap_or(&mut self.others);
        let place = Verdict::ALL.iter().position(|known| *known == verdict);
        if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
    }

    /// Port, verdict and number of records; the port `other` only if it has some.
    pub(crate) fn series(&self) -> impl Iterator<Item = (String, Verdict, u64)> {
        let others = self.others.iter().any(|count| *count > 0).then_some(("other".to_owned(), &self.others));
        let ports = self.ports.iter().map(|(port, counts)| (port.to_string(), counts)).chain(others);
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
            closes.count(port, Verdict::ServeOom);
            closes.count(8080, Verdict::ClientLeft);
        }
        let of = |port: &str, verdict| {
            let mut series = closes.series();
            series.find(|(of, v, _)| of == port && *v == verdict).map(|(.., count)| count)
        };
        assert_eq!(of("8080", Verdict::ClientLeft), Some(1_000));
        assert_eq!((of("1", Verdict::ServeOom), of("1000", Verdict::ServeOom)), (Some(1), None));
        assert_eq!(of("other", Verdict::ServeOom), Some(1_001 - PORTS as u64));
        assert_eq!(closes.series().count(), (PORTS + 1) * Verdict::ALL.len());
        assert_eq!(closes.series().map(|(.., count)| count).sum::<u64>(), 2_000);
    }
}
