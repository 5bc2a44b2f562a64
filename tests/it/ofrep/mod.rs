//! The OpenFeature Remote Evaluation Protocol.

pub(crate) mod evaluate;
pub(crate) mod event_stream;
mod requests;
mod stream_tokens;
