//! `/api/flags/me`.

mod values;
