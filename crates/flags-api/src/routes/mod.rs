//! HTTP routes. Each file holds one resource: request and response types first, then handlers.

mod admin_ui;
mod audit;
mod audit_export;
mod bulk;
mod conditional;
mod docs;
mod explanations;
mod flags;
mod me;
mod ofrep;
mod override_lists;
mod overrides;
mod reply;
mod schedules;
mod session;
mod stream;
mod system;
mod tokens;
mod users;

use actix_web::web::{Bytes, ServiceConfig};
use utoipa::openapi::OpenApi;

pub use self::admin_ui::has_admin_ui;
pub(crate) use self::system::unmatched;
use crate::{openapi::build_document, route_registry::RouteRegistry};

/// Builds the OpenAPI document. `docs/openapi.json` is a committed copy; a test checks that the two are equal.
pub fn openapi() -> OpenApi {
    let mut routes = all();
    system::metrics_route(&mut routes);
    build_document(routes.into_operations())
}

/// Registers every route except `/metrics`.
fn all() -> RouteRegistry {
    let mut routes = RouteRegistry::default();
    me::routes(&mut routes);
    stream::routes(&mut routes);
    ofrep::routes(&mut routes);
    overrides::routes(&mut routes);
    override_lists::routes(&mut routes);
    bulk::routes(&mut routes);
    flags::routes(&mut routes);
    explanations::routes(&mut routes);
    schedules::routes(&mut routes);
    users::routes(&mut routes);
    tokens::routes(&mut routes);
    session::routes(&mut routes);
    audit::routes(&mut routes);
    audit_export::routes(&mut routes);
    system::routes(&mut routes);
    routes
}

/// Adds the routes of the API and of its documentation, without `/metrics`. `document` is the serialized OpenAPI
/// document.
pub(crate) fn configure(config: &mut ServiceConfig, document: Bytes) {
    all().configure(config);
    docs::configure(config, document);
}

/// Adds `/metrics`.
pub(crate) fn configure_metrics(config: &mut ServiceConfig) {
    let mut routes = RouteRegistry::default();
    system::metrics_route(&mut routes);
    routes.configure(config);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A request with an unsupported method matches no handler, so the server applies the `RouteFacts` of the path's
    /// first handler. All handlers of a path must therefore agree.
    #[test]
    fn routes_of_one_path_have_the_same_identification_rate_class_and_error_format() {
        let mut facts_by_path = HashMap::new();
        for operation in all().into_operations() {
            let facts = operation.facts;
            let shared = (facts.identification, facts.rate_class, facts.error_format, facts.content_security_policy);
            let first = *facts_by_path.entry(operation.path.clone()).or_insert(shared);
            assert_eq!(first, shared, "{}", operation.path);
        }
    }
}
