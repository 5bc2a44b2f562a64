//! The routes: one file a resource, its request and response types first, then its handlers.

mod answer;
mod flags;
mod me;
mod overrides;
mod schedules;
pub(crate) mod system;
mod users;

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse, Route,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
    web::{self, ServiceConfig},
};
use utoipa::{
    __dev::{SchemaReferences, Tags},
    openapi::{HttpMethod, OpenApi, PathItem, RefOr, Schema, path::PathItemBuilder},
};
use utoipa_swagger_ui::SwaggerUi;

use crate::problem::Problem;

/// Handlers with their paths, methods and descriptions, all of which come from `#[utoipa::path]`: what is served and what
/// is described cannot differ.
#[derive(Default)]
pub(crate) struct Routes {
    resources: BTreeMap<String, Vec<(Method, Route)>>,
    described: Vec<Described>,
}

/// What the OpenAPI document says of one operation.
pub(crate) struct Described {
    pub(crate) path: String,
    pub(crate) item: PathItem,
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
}

impl Routes {
    /// Adds the handler that `P` describes.
    pub(crate) fn add<P: utoipa::Path + SchemaReferences + Tags<'static>>(&mut self, route: Route) {
        let mut schemas = Vec::new();
        P::schemas(&mut schemas);
        let mut item = PathItemBuilder::new();
        for method in P::methods() {
            let mut operation = P::operation();
            operation.tags = Some(P::tags().into_iter().map(ToOwned::to_owned).collect());
            item = item.operation(method, operation);
        }
        self.described.push(Described { path: P::path(), item: item.build(), schemas });
        let Some(method) = P::methods().first().map(actix_method) else { return };
        self.resources.entry(P::path()).or_default().push((method.clone(), route.method(method)));
    }

    pub(crate) fn described(&self) -> &[Described] {
        &self.described
    }

    /// Serves them. A method that a path does not have gets 405 with `Allow`.
    fn configure(self, config: &mut ServiceConfig) {
        for (path, routes) in self.resources {
            let methods: Vec<_> = routes.iter().map(|(method, _)| method.to_string()).collect();
            let allow = HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static(""));
            let mut resource = web::resource(&path);
            for (_, route) in routes {
                resource = resource.route(route);
            }
            config.service(resource.default_service(web::to(move || {
                let allow = allow.clone();
                async move { Err::<HttpResponse, _>(method_not_allowed(allow)) }
            })));
        }
    }
}

fn method_not_allowed(allow: HeaderValue) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not have this method")
        .with_header(header::ALLOW, allow)
}

fn actix_method(method: &HttpMethod) -> Method {
    match method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
        _ => Method::GET,
    }
}

/// All routes.
pub(crate) fn all() -> Routes {
    let mut routes = Routes::default();
    me::routes(&mut routes);
    overrides::routes(&mut routes);
    flags::routes(&mut routes);
    schedules::routes(&mut routes);
    users::routes(&mut routes);
    system::routes(&mut routes);
    routes
}

pub(crate) fn configure(config: &mut ServiceConfig, document: OpenApi, metrics: bool) {
    all().configure(config);
    if metrics {
        configure_metrics(config);
    }
    config.service(web::redirect("/docs", "/docs/"));
    config.service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", document));
}

pub(crate) fn configure_metrics(config: &mut ServiceConfig) {
    let mut routes = Routes::default();
    system::metrics_route(&mut routes);
    routes.configure(config);
}

/// The path as the caller wrote it, for `Location`.
fn location_below(request: &HttpRequest, child: &str) -> String {
    format!("{}/{child}", request.path().trim_end_matches('/'))
}
