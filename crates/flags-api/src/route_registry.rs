//! Registration of routes: each handler with its path, method, OpenAPI description and [`RouteFacts`].

use std::rc::Rc;

use actix_web::{
    Error, HttpResponse, Route,
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
use metrics::SharedString;
use utoipa::{
    __dev::{SchemaReferences, Tags},
    openapi::{HttpMethod, RefOr, path::ParameterIn},
};

use crate::{
    auth::{authenticate, is_authenticated},
    openapi::DescribedOperation,
    problem::Problem,
    route_facts::{MatchedRoute, QueryString, RouteFacts},
};

/// Collects handlers with their paths, methods, OpenAPI descriptions and [`RouteFacts`].
///
/// Path, method and description come from `#[utoipa::path]`, so the server and the OpenAPI document cannot disagree.
#[derive(Default)]
pub(crate) struct RouteRegistry {
    /// In registration order. The router tries paths in this order, so register frequently used paths first.
    resources: Vec<Resource>,
    operations: Vec<DescribedOperation>,
}

/// Handlers of one path.
struct Resource {
    path: String,
    handlers: Vec<Handler>,
}

struct Handler {
    method: Method,
    route: Route,
    facts: RouteFacts,
}

impl RouteRegistry {
    /// Adds a handler. `P` is the type that `#[utoipa::path]` generates for the handler.
    pub(crate) fn add<P: utoipa::Path + SchemaReferences + Tags<'static>>(&mut self, route: Route, facts: RouteFacts) {
        let http_method = described_method::<P>();
        let mut operation = P::operation();
        operation.tags = Some(P::tags().into_iter().map(ToOwned::to_owned).collect());
        let mut parameters = operation.parameters.iter().flatten();
        let has_query_parameters = parameters.any(|p| matches!(p, RefOr::T(p) if p.parameter_in == ParameterIn::Query));
        let facts = match facts.query_string {
            QueryString::Described if !has_query_parameters => facts.with_query_string(QueryString::Empty),
            _ => facts,
        };
        let handler = Handler { method: actix_method(&http_method), route, facts };
        match self.resources.iter_mut().find(|resource| resource.path == P::path()) {
            Some(resource) => resource.handlers.push(handler),
            None => self.resources.push(Resource { path: P::path(), handlers: vec![handler] }),
        }
        let mut schemas = Vec::new();
        P::schemas(&mut schemas);
        let path = P::path();
        self.operations.push(DescribedOperation { path, method: http_method, operation, schemas, facts });
    }

    pub(crate) fn into_operations(self) -> Vec<DescribedOperation> {
        self.operations
    }

    /// Registers all handlers with the router.
    ///
    /// GET handlers also serve HEAD. Other methods get 405 with `Allow`. Operations without query parameters reject
    /// requests that have a query string.
    pub(crate) fn configure(self, config: &mut ServiceConfig) {
        for Resource { path, handlers } in self.resources {
            let routes = Rc::new(ResourceRoutes::new(&path, &handlers));
            let allow = allowed_methods(&handlers);
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
            config.service(resource.wrap(from_fn(move |request, next| serve(Rc::clone(&routes), request, next))));
        }
    }
}

/// Returns the value of `Allow`.
#[expect(clippy::expect_used, reason = "names of methods and commas are valid in a header")]
fn allowed_methods(handlers: &[Handler]) -> HeaderValue {
    let mut methods: Vec<_> = handlers.iter().map(|handler| handler.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    HeaderValue::from_str(&methods.join(", ")).expect("method names are valid header text")
}

/// Routes of one path, with the properties of each method's route.
struct ResourceRoutes {
    template: SharedString,
    facts: Vec<(Method, RouteFacts)>,
    /// Properties for requests with any other method. The response is 405.
    other_methods: RouteFacts,
}

impl ResourceRoutes {
    fn new(path: &str, handlers: &[Handler]) -> Self {
        let facts: Vec<_> = handlers.iter().map(|handler| (handler.method.clone(), handler.facts)).collect();
        let agree = facts.windows(2).all(|pair| pair[0].1.same_for_unhandled_methods(pair[1].1));
        assert!(agree, "the routes of {path} must agree in identification, rate class and error format");
        let other_methods = match facts.first() {
            Some((_, facts)) if facts.query_string == QueryString::Any => *facts,
            Some((_, facts)) => facts.with_query_string(QueryString::Empty),
            None => RouteFacts::open(),
        };
        Self { template: SharedString::from_shared(path.into()), facts, other_methods }
    }

    fn for_method(&self, method: &Method) -> MatchedRoute {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let facts =
            self.facts.iter().find(|(other, _)| other == method).map_or(self.other_methods, |(_, facts)| *facts);
        MatchedRoute { template: self.template.clone(), facts }
    }
}

/// Identifies the caller and checks the query string, then calls the handler.
async fn serve(
    routes: Rc<ResourceRoutes>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<EitherBody<BoxBody>>, Error> {
    let route = routes.for_method(request.method());
    let facts = route.facts;
    route.store_in(&request);
    authenticate(&request, facts).await;
    match reject_query(&request, facts.query_string) {
        Some(problem) => Ok(request.error_response(problem).map_into_right_body()),
        None => next.call(request).await.map(ServiceResponse::map_into_left_body),
    }
}

/// Rejects a query string if the route accepts none. Unauthenticated requests pass this check, so that the handler
/// responds with 401 instead.
fn reject_query(request: &ServiceRequest, accepted: QueryString) -> Option<Problem> {
    if accepted != QueryString::Empty || request.query_string().is_empty() || !is_authenticated(request) {
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

#[expect(clippy::expect_used, reason = "`#[utoipa::path]` does not compile without a method")]
fn described_method<P: utoipa::Path>() -> HttpMethod {
    P::methods().into_iter().next().expect("the description of a handler names its method")
}

const fn actix_method(method: &HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Trace => Method::TRACE,
    }
}
