//! The result of a case: one printed line per guarantee or measurement.

use std::fmt::Display;

/// Prints the lines of one case and counts the failed expectations.
pub(crate) struct CaseReport {
    case: String,
    failures: usize,
}

impl CaseReport {
    pub(crate) fn new(case: &str) -> Self {
        Self { case: case.to_owned(), failures: 0 }
    }

    /// Prints a measurement without an expectation.
    pub(crate) fn info(&mut self, description: &str, value: impl Display) {
        println!("{:<24} {:<52} {value}", self.case, description);
    }

    /// Prints both values and records a failure unless they are equal.
    pub(crate) fn expect_eq<T: Display + PartialEq>(&mut self, description: &str, expected: &T, actual: &T) {
        let holds = expected == actual;
        let outcome = if holds { "ok" } else { "FAILED" };
        self.failures += usize::from(!holds);
        let expectation = if holds { String::new() } else { format!(" (expected {expected})") };
        println!("{:<24} {:<52} {actual}{expectation}  {outcome}", self.case, description);
    }

    /// Records a failure unless `actual` is 0.
    pub(crate) fn expect_zero(&mut self, description: &str, actual: usize) {
        self.expect_eq(description, &0, &actual);
    }

    /// Records a failure if `actual` is 0: without such events, the other expectations of a case would prove nothing.
    pub(crate) fn expect_nonzero(&mut self, description: &str, actual: usize) {
        let outcome = if actual > 0 { "ok" } else { "FAILED" };
        self.failures += usize::from(actual == 0);
        println!("{:<24} {:<52} {actual}  {outcome}", self.case, description);
    }

    /// Prints median, 99th percentile and maximum of durations in milliseconds.
    pub(crate) fn print_percentiles(&mut self, description: &str, mut millis: Vec<f64>) {
        millis.sort_by(f64::total_cmp);
        let quantile =
            |share: f64| millis.get(((millis.len() as f64 * share) as usize).min(millis.len().saturating_sub(1)));
        let format = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let [p50, p99, max] = [quantile(0.5), quantile(0.99), millis.last()].map(format);
        self.info(description, format!("p50 {p50} / p99 {p99} / max {max} ms ({} values)", millis.len()));
    }

    /// Whether all expectations were met.
    pub(crate) const fn has_passed(&self) -> bool {
        self.failures == 0
    }
}
