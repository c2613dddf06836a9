//! Running statistics of what is no longer kept.

/// Count, sum, spread and extremes of the values seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) sum: f64,
    squares: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Tally {
    pub(super) fn add(&mut self, value: f64) {
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.most = if self.count == 0 { value } else { self.most.max(value) };
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    /// 0 where nothing was seen, as the API gives it.
    pub(super) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Of the values seen, 0 for fewer than two.
    pub(super) fn deviation(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        (self.squares / self.count as f64 - self.mean().powi(2)).max(0.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_tally_knows_mean_spread_and_extremes() {
        let mut tally = Tally::default();
        assert_eq!((tally.mean(), tally.deviation()), (0.0, 0.0));
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|value| tally.add(value));
        assert_eq!((tally.mean(), tally.deviation(), tally.least, tally.most), (5.0, 2.0, 2.0, 9.0));
    }
}
