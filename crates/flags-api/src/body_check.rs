//! Check that the body extractors run after the body of a request has arrived.
//!
//! A client may send the body long after the head. The permission that was granted for the head is then checked again.

use std::rc::Rc;

use actix_web::{HttpMessage as _, HttpRequest};
use futures_util::future::LocalBoxFuture;

use crate::problem::Problem;

/// Check of a request, stored in its extensions.
#[derive(Clone)]
pub(crate) struct BodyCheck(Rc<dyn Fn(HttpRequest) -> LocalBoxFuture<'static, Result<(), Problem>>>);

impl BodyCheck {
    pub(crate) fn new(check: impl Fn(HttpRequest) -> LocalBoxFuture<'static, Result<(), Problem>> + 'static) -> Self {
        Self(Rc::new(check))
    }
}

/// Runs the check of the request, if it has one.
pub(crate) async fn run_body_check(request: &HttpRequest) -> Result<(), Problem> {
    let check = request.extensions_mut().remove::<BodyCheck>();
    match check {
        Some(check) => check.0(request.clone()).await,
        None => Ok(()),
    }
}
