//! Percentiles over a handful of measurements.

/// Median and near-worst of some measurements, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half of the runs took at most this.
    pub p50: f64,
    /// Nineteen of twenty did.
    pub p95: f64,
}

impl Percentiles {
    /// By nearest rank, so that each figure is one that was really measured. `None` without measurements.
    pub fn of(measured: &[f64]) -> Option<Self> {
        let mut sorted = measured.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { p50: rank(&sorted, 50)?, p95: rank(&sorted, 95)? })
    }
}

fn rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted.get(place.saturating_sub(1)).copied()
}

/// A figure as it is reported: no more digits than were measured.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_measuring_does_not_matter_and_no_figure_is_made_up() {
        let measured: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(Percentiles::of(&measured), Some(Percentiles { p50: 10.0, p95: 19.0 }));
        assert_eq!(Percentiles::of(&[7.0]), Some(Percentiles { p50: 7.0, p95: 7.0 }));
        assert_eq!(Percentiles::of(&[]), None);
    }
}
