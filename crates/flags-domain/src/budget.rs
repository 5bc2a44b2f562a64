//! Budgets: bounds on the work of an evaluation.

/// Maximum work of the targeting rules of one flag for one context, in units. The most expensive operations take about
/// one nanosecond per unit, so this is about 2 ms.
pub const MAX_UNITS_PER_FLAG: u64 = 2_000_000;
/// Maximum work of the targeting rules of all flags that one request evaluates, in units. About 20 ms. See
/// [`RESERVED_UNITS_PER_FLAG`] for the flags that follow once it is spent.
pub const MAX_UNITS_PER_REQUEST: u64 = 20_000_000;
/// Work that each flag may do even if the other flags of the request have spent the budget, in units. About 1 us. Flags
/// with simple rules therefore do not depend on the cost of other flags.
pub const RESERVED_UNITS_PER_FLAG: u64 = 1_000;

/// Work that the evaluations of one request may still do.
///
/// Every comparison of a condition is charged before it is made: the compiled size of a regular expression, the lengths
/// of texts, each value and each array item. The charge depends on the definition and the context only, never on time
/// measurements, so an evaluation is deterministic. The result of a flag whose charges exceed its share is
/// [`Source::EvaluationTooExpensive`](crate::Source::EvaluationTooExpensive).
///
/// A flag may spend [`MAX_UNITS_PER_FLAG`] or what remains of [`MAX_UNITS_PER_REQUEST`], whichever is less, but at least
/// [`RESERVED_UNITS_PER_FLAG`].
#[derive(Clone, Debug)]
pub struct EvaluationBudget {
    remaining: u64,
}

impl Default for EvaluationBudget {
    /// The budget of one request.
    fn default() -> Self {
        Self { remaining: MAX_UNITS_PER_REQUEST }
    }
}

impl EvaluationBudget {
    /// Units that were charged so far, at most [`MAX_UNITS_PER_REQUEST`].
    pub const fn spent(&self) -> u64 {
        MAX_UNITS_PER_REQUEST - self.remaining
    }

    /// Charges work other than that of rules: hashing a text for a percentage split.
    pub(crate) fn charge(&mut self, units: u64) -> Result<(), BudgetExhausted> {
        if units > self.remaining.max(RESERVED_UNITS_PER_FLAG) {
            return Err(BudgetExhausted);
        }
        self.remaining = self.remaining.saturating_sub(units);
        Ok(())
    }

    /// Share of one flag.
    pub(crate) fn for_flag(&mut self) -> FlagBudget<'_> {
        let remaining = self.remaining.clamp(RESERVED_UNITS_PER_FLAG, MAX_UNITS_PER_FLAG);
        FlagBudget { request: self, remaining }
    }
}

/// Work that the evaluation of one flag may still do.
#[derive(Debug)]
pub(crate) struct FlagBudget<'b> {
    request: &'b mut EvaluationBudget,
    remaining: u64,
}

/// The next comparison would exceed the budget and was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

impl FlagBudget<'_> {
    /// Charges `units` of work. On failure, the caller must not do the work.
    pub(crate) fn charge(&mut self, units: u64) -> Result<(), BudgetExhausted> {
        self.remaining = self.remaining.checked_sub(units).ok_or(BudgetExhausted)?;
        self.request.remaining = self.request.remaining.saturating_sub(units);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_stops_at_its_share_and_leaves_the_rest_to_other_flags() {
        let mut request = EvaluationBudget::default();
        let mut flag = request.for_flag();
        assert_eq!(flag.charge(MAX_UNITS_PER_FLAG), Ok(()));
        assert_eq!(flag.charge(1), Err(BudgetExhausted));
        assert_eq!(request.spent(), MAX_UNITS_PER_FLAG);
        assert_eq!(request.for_flag().charge(MAX_UNITS_PER_FLAG + 1), Err(BudgetExhausted));
        assert_eq!(request.spent(), MAX_UNITS_PER_FLAG, "work that is not done is not charged");
    }

    #[test]
    fn each_flag_keeps_its_reserved_units_when_the_request_is_exhausted() {
        let mut request = EvaluationBudget::default();
        while request.spent() < MAX_UNITS_PER_REQUEST {
            assert_eq!(request.for_flag().charge(MAX_UNITS_PER_FLAG), Ok(()));
        }
        for _ in 0..3 {
            assert_eq!(request.for_flag().charge(RESERVED_UNITS_PER_FLAG), Ok(()));
            assert_eq!(request.for_flag().charge(RESERVED_UNITS_PER_FLAG + 1), Err(BudgetExhausted));
        }
    }
}
