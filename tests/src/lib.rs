//! Holds the integration tests in `it/` and the shared vectors.
