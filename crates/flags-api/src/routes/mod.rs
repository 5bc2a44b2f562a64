//! HTTP routes. Each file holds one resource: request and response types first, then handlers.

mod audit;
mod audit_export;
mod bulk;
mod conditional;
mod explanations;
mod flags;
mod me;
pub(crate) mod ofrep;
mod override_lists;
mod overrides;
mod reply;
mod schedules;
mod session;
mod stream;
pub(crate) mod system;
mod tokens;
mod users;

use actix_web::{
    Error, HttpMessage as _, HttpResponse, Route,
    body::{BoxBody, EitherBody},
    dev::{ServiceRequest, ServiceResponse},
    guard,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
    middleware::{Next, from_fn},
    web::{self, ServiceConfig},
};
use flags_domain::Violation;
use utoipa::{
    __dev::{SchemaReferences, Tags},
    openapi::{
        HttpMethod, OpenApi, RefOr, Schema,
        path::{Operation, ParameterIn},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{auth::is_authenticated, problem::Problem, request_middleware::RouteTemplate};

/// Collects handlers with their paths, methods and OpenAPI descriptions.
///
/// All three come from `#[utoipa::path]`, so the server and the OpenAPI document cannot disagree.
#[derive(Default)]
pub(crate) struct RouteRegistry {
    /// Handlers by path, in registration order. The router tries paths in this order, so register hot paths first.
    resources: Vec<(String, Vec<Handler>)>,
    operations: Vec<DescribedOperation>,
}

struct Handler {
    method: Method,
    route: Route,
    accepts_query: bool,
}

/// One operation of the OpenAPI document.
pub(crate) struct DescribedOperation {
    pub(crate) path: String,
    pub(crate) method: HttpMethod,
    pub(crate) operation: Operation,
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
}

impl RouteRegistry {
    /// Adds a handler. `P` is the type that `#[utoipa::path]` generates for it.
    pub(crate) fn add<P: utoipa::Path + SchemaReferences + Tags<'static>>(&mut self, route: Route) {
        let Some(http_method) = P::methods().into_iter().next() else { return };
        let mut operation = P::operation();
        operation.tags = Some(P::tags().into_iter().map(ToOwned::to_owned).collect());
        let mut parameters = operation.parameters.iter().flatten();
        let accepts_query = parameters.any(|p| matches!(p, RefOr::T(p) if p.parameter_in == ParameterIn::Query));
        let method = actix_method(&http_method);
        let handler = Handler { method, route, accepts_query };
        match self.resources.iter_mut().find(|(path, _)| *path == P::path()) {
            Some((_, handlers)) => handlers.push(handler),
            None => self.resources.push((P::path(), vec![handler])),
        }
        let mut schemas = Vec::new();
        P::schemas(&mut schemas);
        self.operations.push(DescribedOperation { path: P::path(), method: http_method, operation, schemas });
    }

    pub(crate) fn into_operations(self) -> Vec<DescribedOperation> {
        self.operations
    }

    /// Registers all handlers with the router.
    ///
    /// GET handlers also serve HEAD. Other methods get 405 with `Allow`. Operations without query parameters reject
    /// requests that have a query string.
    fn configure(self, config: &mut ServiceConfig) {
        for (path, handlers) in self.resources {
            let mut methods: Vec<_> = handlers.iter().map(|handler| handler.method.to_string()).collect();
            if methods.iter().any(|method| method == "GET") {
                methods.push("HEAD".to_owned());
            }
            methods.sort();
            let allow = HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static(""));
            let mut query_methods: Vec<_> =
                handlers.iter().filter(|handler| handler.accepts_query).map(|handler| handler.method.clone()).collect();
            if query_methods.contains(&Method::GET) {
                query_methods.push(Method::HEAD);
            }
            // OpenFeature providers may send query parameters of a later protocol version.
            let accepts_any_query = ofrep::is_ofrep_path(&path);
            let template = RouteTemplate(path.as_str().into());
            let mut resource = web::resource(&path);
            for Handler { method, route, .. } in handlers {
                resource = resource.route(match method {
                    Method::GET => route.guard(guard::Any(guard::Get()).or(guard::Head())),
                    other => route.method(other),
                });
            }
            let resource = resource.default_service(web::to(move || {
                let allow = allow.clone();
                async move { Err::<HttpResponse, _>(method_not_allowed(allow)) }
            }));
            config.service(resource.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
                request.extensions_mut().insert(template.clone());
                let rejection = if accepts_any_query { None } else { reject_query(&request, &query_methods) };
                async move {
                    let response: Result<ServiceResponse<EitherBody<BoxBody>>, Error> = match rejection {
                        Some(problem) => Ok(request.error_response(problem).map_into_right_body()),
                        None => next.call(request).await.map(ServiceResponse::map_into_left_body),
                    };
                    response
                }
            })));
        }
    }
}

/// Rejects a query string for methods that accept none. Unauthenticated requests pass, so that the handler responds
/// with 401 instead.
fn reject_query(request: &ServiceRequest, query_methods: &[Method]) -> Option<Problem> {
    if request.query_string().is_empty() || query_methods.contains(request.method()) || !is_authenticated(request) {
        return None;
    }
    let name = request.query_string().split(['=', '&']).next().unwrap_or_default();
    let detail = "this operation accepts no query parameters";
    Some(Violation::new(format!("/{name}"), "unknown_parameter", detail).into())
}

fn method_not_allowed(allow: HeaderValue) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "method not allowed for this path; see the Allow header",
    )
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

/// Registers every route except `/metrics`.
pub(crate) fn all() -> RouteRegistry {
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

pub(crate) fn configure(config: &mut ServiceConfig, document: OpenApi, metrics: bool) {
    all().configure(config);
    if metrics {
        configure_metrics(config);
    }
    config.service(web::redirect("/docs", "/docs/"));
    config.service(
        SwaggerUi::new("/docs/{_:.*}").config(Config::default().validator_url("none")).url("/openapi.json", document),
    );
}

pub(crate) fn configure_metrics(config: &mut ServiceConfig) {
    let mut routes = RouteRegistry::default();
    system::metrics_route(&mut routes);
    routes.configure(config);
}

/// Path of a child resource below the request path, for the `Location` header.
fn child_location(path: &str, child: &str) -> String {
    format!("{}/{child}", path.trim_end_matches('/'))
}
