//! Explanations of evaluation results.

mod reports;
