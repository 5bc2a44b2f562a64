//! The OpenAPI document, made of what stands at the handlers.

use utoipa::{
    PartialSchema as _, ToResponse as _, ToSchema as _,
    openapi::{
        Components, ComponentsBuilder, Header, HeaderBuilder, HttpMethod, InfoBuilder, LicenseBuilder, Object, OpenApi,
        OpenApiBuilder, PathItem, PathsBuilder, RefOr, Schema, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    problem::{ProblemBody, ProblemResponse},
    routes::{
        self, Described,
        ofrep::{EvaluationFailure, EvaluationFailureResponse},
    },
};

/// The whole document. The committed copy is `docs/openapi.json`; a test compares them.
pub fn openapi() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    let mut routes = routes::all();
    routes::system::metrics_route(&mut routes);
    for mut described in routes.into_described() {
        describe_common(&mut described);
        let item = PathItem::new(described.method, described.operation);
        paths = paths.path(described.path, item);
        schemas.extend(described.schemas);
    }
    let info = InfoBuilder::new()
        .title("Feature flags with user overrides")
        .description(Some(
            "Every answer carries `X-Request-Id`; errors are `application/problem+json` (RFC 9457) with a stable `code`; below `/ofrep` they have the shape of that protocol.",
        ))
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components(schemas)))
        .security(Some([BEARER, SESSION].map(|scheme| SecurityRequirement::new::<_, [&str; 0], &str>(scheme, []))))
        .tags(Some(tags()))
        .build()
}

/// What holds for whole kinds of operations: preconditions, tags, revisions, and the second media type of PATCH.
fn describe_common(described: &mut Described) {
    let Described { path, method, operation, .. } = described;
    if path.starts_with("/api/") {
        describe_requests(path, operation);
    }
    if !path.starts_with("/api/admin/") || path.ends_with("/stream") {
        return;
    }
    let acts_on_one = ["/archive", "/restore", "/cancel", "/rotate"].iter().any(|end| path.ends_with(end));
    let changes_one = matches!(method, HttpMethod::Put | HttpMethod::Patch | HttpMethod::Delete) || acts_on_one;
    if changes_one {
        let text = "Change only what was last changed at this revision; `*`: only what is there";
        operation.parameters.get_or_insert_default().push(header_parameter("If-Match", text).into());
    }
    if *method == HttpMethod::Put && path.ends_with("/flag-overrides/{flag_name}") {
        let text = "`*`: create only";
        operation.parameters.get_or_insert_default().push(header_parameter("If-None-Match", text).into());
    }
    if *method == HttpMethod::Post && !path.contains("/api-tokens") {
        let text =
            "1 to 255 visible characters: the request is carried out once, however often it is sent within 24 hours";
        operation.parameters.get_or_insert_default().push(header_parameter("Idempotency-Key", text).into());
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if *method != HttpMethod::Get {
            response.headers.insert("Flags-Revision".to_owned(), header("`<epoch>:<number>`"));
        }
        if status != "204" && !path.ends_with("/bulk") && (*method != HttpMethod::Get || path.ends_with('}')) {
            response.headers.insert("ETag".to_owned(), header("`\"<epoch>:<revision>\"`, for `If-Match`"));
        }
        if status == "201" {
            response.headers.insert("Location".to_owned(), header("Where it stands"));
        }
    }
    if *method == HttpMethod::Patch
        && let Some(RefOr::T(body)) = &mut operation.request_body
        && let Some(content) = body.content.get("application/json").cloned()
    {
        body.content.insert("application/merge-patch+json".to_owned(), content);
    }
}

/// What holds for every request to the API.
fn describe_requests(path: &str, operation: &mut Operation) {
    let text = "`<epoch>:<number>`: answer from that state or a later one (waits up to 2 s, else 503)";
    operation.parameters.get_or_insert_default().push(header_parameter("Flags-Min-Revision", text).into());
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if path.starts_with("/api/flags/me") && status != "default" && !path.ends_with("/overrides") {
            response.headers.insert("ETag".to_owned(), header("For `If-None-Match`"));
        }
        if path.ends_with("/stream") {
            response.headers.insert("Cache-Control".to_owned(), header("`no-cache`"));
            response.headers.insert("X-Accel-Buffering".to_owned(), header("`no`"));
        }
    }
}

fn header(text: &str) -> RefOr<Header> {
    let header = HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(text));
    RefOr::T(header.build())
}

fn header_parameter(name: &str, text: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .description(Some(text))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

const BEARER: &str = "bearer";
const SESSION: &str = "session";

fn components(mut schemas: Vec<(String, RefOr<Schema>)>) -> Components {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("flg_…")
        .description(Some("An API token"))
        .build();
    let text = "Set by `login`; over plain HTTP on the same machine its name is `flags_session`. Changes must come from the \
                same origin";
    let session = ApiKey::Cookie(ApiKeyValue::with_description("__Host-flags_session", text));
    let (problem, response) = ProblemResponse::response();
    let (failure, failure_response) = EvaluationFailureResponse::response();
    EvaluationFailure::schemas(&mut schemas);
    schemas.push((EvaluationFailure::name().into_owned(), EvaluationFailure::schema()));
    ProblemBody::schemas(&mut schemas);
    schemas.push((ProblemBody::name().into_owned(), ProblemBody::schema()));
    ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .response(problem, response)
        .response(failure, failure_response)
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .security_scheme(SESSION, SecurityScheme::ApiKey(session))
        .build()
}

fn tags() -> Vec<utoipa::openapi::Tag> {
    let tags = [
        ("my flags", "What the caller gets; for applications"),
        ("OpenFeature", "The OpenFeature Remote Evaluation Protocol (OFREP 0.3.0), for providers of any language"),
        ("overrides", "What one user gets, whatever the other layers say"),
        ("flags", "Flags, their variants and targeting rules"),
        ("scheduled changes", "Changes of a flag's default or switch at an instant"),
        ("explanations", "What one user gets, and why, now or later"),
        ("users", "Whom flags are evaluated for"),
        ("API tokens", "What programs show to be let in"),
        ("session", "Signing in and out, and who one is"),
        ("audit", "Who did what, when, to what, and why"),
        ("system", "For operators"),
    ];
    tags.into_iter().map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build()).collect()
}
