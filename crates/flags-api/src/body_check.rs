//! Second permission check, which the body extractors run after the request's body has arrived.
//!
//! A client may send the body long after the headers. By then, the permission that the first check granted may have
//! been revoked.

use std::rc::Rc;

use actix_web::{HttpMessage as _, HttpRequest};
use futures_util::future::LocalBoxFuture;

use crate::problem::Problem;

/// Permission check to run after the body has arrived. Stored in the request's extensions.
#[derive(Clone)]
pub(crate) struct BodyCheck(Rc<dyn Fn(HttpRequest) -> LocalBoxFuture<'static, Result<(), Problem>>>);

impl BodyCheck {
    pub(crate) fn new(check: impl Fn(HttpRequest) -> LocalBoxFuture<'static, Result<(), Problem>> + 'static) -> Self {
        Self(Rc::new(check))
    }
}

/// Runs the request's [`BodyCheck`], if it has one.
pub(crate) async fn run_body_check(request: &HttpRequest) -> Result<(), Problem> {
    let check = request.extensions_mut().remove::<BodyCheck>();
    match check {
        Some(check) => check.0(request.clone()).await,
        None => Ok(()),
    }
}
