//! What a case found: one line a promise, with its counts.

use std::fmt::Display;

/// The lines of one case.
pub(crate) struct Verdict {
    case: String,
    failed: usize,
}

impl Verdict {
    pub(crate) fn new(case: &str) -> Self {
        Self { case: case.to_owned(), failed: 0 }
    }

    /// A figure that is only told.
    pub(crate) fn tell(&mut self, what: &str, value: impl Display) {
        println!("{:<24} {:<52} {value}", self.case, what);
    }

    /// A count that must be as expected.
    pub(crate) fn must_be<T: Display + PartialEq>(&mut self, what: &str, expected: &T, found: &T) {
        let kept = expected == found;
        let mark = if kept { "ok" } else { "BROKEN" };
        self.failed += usize::from(!kept);
        let wanted = if kept { String::new() } else { format!(" (must be {expected})") };
        println!("{:<24} {:<52} {found}{wanted}  {mark}", self.case, what);
    }

    /// A count of what must never happen.
    pub(crate) fn never(&mut self, what: &str, found: usize) {
        self.must_be(what, &0, &found);
    }

    /// A count of what must have happened, for a case that saw nothing proves nothing.
    pub(crate) fn some(&mut self, what: &str, found: usize) {
        let mark = if found > 0 { "ok" } else { "BROKEN" };
        self.failed += usize::from(found == 0);
        println!("{:<24} {:<52} {found}  {mark}", self.case, what);
    }

    /// Median, 99th percentile and greatest of durations, in milliseconds.
    pub(crate) fn spread(&mut self, what: &str, mut millis: Vec<f64>) {
        millis.sort_by(f64::total_cmp);
        let at = |share: f64| millis.get(((millis.len() as f64 * share) as usize).min(millis.len().saturating_sub(1)));
        let show = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        let text = format!("p50 {} / p99 {} / max {} ms", show(at(0.5)), show(at(0.99)), show(millis.last()));
        self.tell(what, format!("{text} of {}", millis.len()));
    }

    /// Whether every promise was kept.
    pub(crate) const fn is_kept(&self) -> bool {
        self.failed == 0
    }
}
