//! The routes: one file a resource, its request and response types first, then its handlers.

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

use crate::{auth::is_known_caller, problem::Problem, request_middleware::RouteTemplate};

/// Handlers with their paths, methods and descriptions, all of which come from `#[utoipa::path]`: what is served and what
/// is described cannot differ.
#[derive(Default)]
pub(crate) struct Routes {
    /// In the order of their registration, which is the order in which the router tries them: the hot ones first.
    resources: Vec<(String, Vec<Handler>)>,
    described: Vec<Described>,
}

struct Handler {
    method: Method,
    route: Route,
    takes_query: bool,
}

/// What the OpenAPI document says of one operation.
pub(crate) struct Described {
    pub(crate) path: String,
    pub(crate) method: HttpMethod,
    pub(crate) operation: Operation,
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
}

impl Routes {
    /// Adds the handler that `P` describes.
    pub(crate) fn add<P: utoipa::Path + SchemaReferences + Tags<'static>>(&mut self, route: Route) {
        let Some(http_method) = P::methods().into_iter().next() else { return };
        let mut operation = P::operation();
        operation.tags = Some(P::tags().into_iter().map(ToOwned::to_owned).collect());
        let mut parameters = operation.parameters.iter().flatten();
        let takes_query = parameters.any(|p| matches!(p, RefOr::T(p) if p.parameter_in == ParameterIn::Query));
        let method = actix_method(&http_method);
        let handler = Handler { method, route, takes_query };
        match self.resources.iter_mut().find(|(path, _)| *path == P::path()) {
            Some((_, handlers)) => handlers.push(handler),
            None => self.resources.push((P::path(), vec![handler])),
        }
        let mut schemas = Vec::new();
        P::schemas(&mut schemas);
        self.described.push(Described { path: P::path(), method: http_method, operation, schemas });
    }

    pub(crate) fn into_described(self) -> Vec<Described> {
        self.described
    }

    /// Serves them. GET answers HEAD as well; a method that a path does not have gets 405 with `Allow`; query parameters
    /// where there are none to give are refused, as they would be in a list.
    fn configure(self, config: &mut ServiceConfig) {
        for (path, handlers) in self.resources {
            let mut methods: Vec<_> = handlers.iter().map(|handler| handler.method.to_string()).collect();
            if methods.iter().any(|method| method == "GET") {
                methods.push("HEAD".to_owned());
            }
            methods.sort();
            let allow = HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static(""));
            let mut with_query: Vec<_> =
                handlers.iter().filter(|handler| handler.takes_query).map(|handler| handler.method.clone()).collect();
            if with_query.contains(&Method::GET) {
                with_query.push(Method::HEAD);
            }
            // Providers of OpenFeature may add to any query what the next version of the protocol has.
            let takes_any_query = ofrep::is_below(&path);
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
                let refusal = if takes_any_query { None } else { refuse_query(&request, &with_query) };
                async move {
                    let answer: Result<ServiceResponse<EitherBody<BoxBody>>, Error> = match refusal {
                        Some(problem) => Ok(request.error_response(problem).map_into_right_body()),
                        None => next.call(request).await.map(ServiceResponse::map_into_left_body),
                    };
                    answer
                }
            })));
        }
    }
}

/// Whoever is nobody is told so by the handler, whatever the query.
fn refuse_query(request: &ServiceRequest, with_query: &[Method]) -> Option<Problem> {
    if request.query_string().is_empty() || with_query.contains(request.method()) || !is_known_caller(request) {
        return None;
    }
    let name = request.query_string().split(['=', '&']).next().unwrap_or_default();
    let detail = "this operation takes no query parameters";
    Some(Violation::new(format!("/{name}"), "unknown_parameter", detail).into())
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
    let mut routes = Routes::default();
    system::metrics_route(&mut routes);
    routes.configure(config);
}

/// The path as the caller wrote it, for `Location`.
fn location_below(path: &str, child: &str) -> String {
    format!("{}/{child}", path.trim_end_matches('/'))
}
