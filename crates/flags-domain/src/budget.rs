//! Limits on the work of an evaluation, counted in units.

/// Maximum work for evaluating the targeting rules of one flag, in units (about 2 ms). The most
/// expensive operations take about one nanosecond per unit.
pub const MAX_UNITS_PER_FLAG: u64 = 2_000_000;
/// Maximum work for evaluating the targeting rules of all flags of one request, in units (about 20
/// ms). Once it is used up, each further flag may still use [`RESERVED_UNITS_PER_FLAG`].
pub const MAX_UNITS_PER_REQUEST: u64 = 20_000_000;
/// Work that each flag may do even after other flags of the request have used up the budget, in units (about 1 us). The
/// result of a flag with simple rules therefore does not depend on the cost of other flags.
pub const RESERVED_UNITS_PER_FLAG: u64 = 1_000;

/// Remaining budget of one request for evaluating flags.
///
/// Each comparison is charged before it is made. The charge depends on the sizes of the condition and the attribute,
/// never on measured time, so an evaluation is deterministic. A flag that exceeds its budget serves its off variant,
/// with the source [`Source::EvaluationTooExpensive`](crate::Source::EvaluationTooExpensive).
///
/// Each flag may use at most [`MAX_UNITS_PER_FLAG`] units, and at most the rest of [`MAX_UNITS_PER_REQUEST`]. Each flag
/// may always use [`RESERVED_UNITS_PER_FLAG`] units.
#[derive(Clone, Debug)]
pub struct EvaluationBudget {
    remaining: u64,
}

impl Default for EvaluationBudget {
    /// Returns a full budget of [`MAX_UNITS_PER_REQUEST`].
    fn default() -> Self {
        Self { remaining: MAX_UNITS_PER_REQUEST }
    }
}

impl EvaluationBudget {
    /// Units charged so far, at most [`MAX_UNITS_PER_REQUEST`].
    pub const fn spent(&self) -> u64 {
        MAX_UNITS_PER_REQUEST - self.remaining
    }

    /// Charges work that does not belong to a rule, such as hashing a text for a percentage split.
    /// On failure, charges nothing.
    pub(crate) fn charge(&mut self, units: u64) -> Result<(), BudgetExhausted> {
        if units > self.remaining.max(RESERVED_UNITS_PER_FLAG) {
            return Err(BudgetExhausted);
        }
        self.remaining = self.remaining.saturating_sub(units);
        Ok(())
    }

    /// Returns the budget for the targeting rules of one flag.
    pub(crate) fn for_flag(&mut self) -> FlagBudget<'_> {
        let remaining = self.remaining.clamp(RESERVED_UNITS_PER_FLAG, MAX_UNITS_PER_FLAG);
        FlagBudget { request: self, remaining }
    }
}

/// Remaining budget for the targeting rules of one flag.
#[derive(Debug)]
pub(crate) struct FlagBudget<'b> {
    request: &'b mut EvaluationBudget,
    remaining: u64,
}

/// Error for a budget that does not suffice for the next operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

impl FlagBudget<'_> {
    /// Charges `units` of work. On failure, charges nothing, and the caller must not do the work.
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
    fn flag_cannot_exceed_its_budget_and_leaves_the_rest_to_other_flags() {
        let mut request = EvaluationBudget::default();
        let mut flag = request.for_flag();
        assert_eq!(flag.charge(MAX_UNITS_PER_FLAG), Ok(()));
        assert_eq!(flag.charge(1), Err(BudgetExhausted));
        assert_eq!(request.spent(), MAX_UNITS_PER_FLAG);
        assert_eq!(request.for_flag().charge(MAX_UNITS_PER_FLAG + 1), Err(BudgetExhausted));
        assert_eq!(request.spent(), MAX_UNITS_PER_FLAG, "work that is not done is not charged");
    }

    #[test]
    fn each_flag_keeps_its_reserved_units_when_the_request_budget_is_exhausted() {
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
