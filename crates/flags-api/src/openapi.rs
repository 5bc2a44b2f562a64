//! OpenAPI document, generated from the `#[utoipa::path]` attributes of the handlers.

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
        self, DescribedOperation,
        ofrep::{EvaluationFailure, EvaluationFailureResponse},
    },
};

/// Builds the OpenAPI document. `docs/openapi.json` is a committed copy; a test checks that the two are equal.
pub fn openapi() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    let mut routes = routes::all();
    routes::system::metrics_route(&mut routes);
    for mut described in routes.into_operations() {
        add_shared_headers(&mut described);
        let item = PathItem::new(described.method, described.operation);
        paths = paths.path(described.path, item);
        schemas.extend(described.schemas);
    }
    let info = InfoBuilder::new()
        .title("Feature flags with user overrides")
        .description(Some(DESCRIPTION))
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

const DESCRIPTION: &str = "\
API of the feature-flag server: flags with targeting rules, overrides for single users, scheduled changes and \
evaluation.

Every response has the header `X-Request-Id`. Errors are problem documents (RFC 9457, `application/problem+json`) \
with a stable `code`. Errors of paths below `/ofrep` follow the OpenFeature Remote Evaluation Protocol instead.";

/// Adds the headers and media types that whole groups of operations share: preconditions, entity tags, revisions,
/// idempotency keys and JSON merge patch.
fn add_shared_headers(described: &mut DescribedOperation) {
    let DescribedOperation { path, method, operation, .. } = described;
    if path.starts_with("/api/") {
        add_api_headers(path, operation);
    }
    if !path.starts_with("/api/admin/") || path.ends_with("/stream") {
        return;
    }
    let is_action = ["/archive", "/restore", "/cancel", "/rotate"].iter().any(|end| path.ends_with(end));
    let changes_one_resource = matches!(method, HttpMethod::Put | HttpMethod::Patch | HttpMethod::Delete) || is_action;
    if changes_one_resource {
        let text = "Entity tag of the resource as last read. The change fails with 412 if the resource has another \
                    tag. `*` requires only that the resource exists.";
        operation.parameters.get_or_insert_default().push(header_parameter("If-Match", text).into());
    }
    if *method == HttpMethod::Put && path.ends_with("/flag-overrides/{flag_name}") {
        let text = "`*` creates the override only if it does not exist; otherwise the request fails with 412.";
        operation.parameters.get_or_insert_default().push(header_parameter("If-None-Match", text).into());
    }
    if *method == HttpMethod::Post && !path.contains("/api-tokens") {
        let text = "Key of 1 to 255 visible ASCII characters. The server executes the request at most once per key and \
                    replays the stored response to retries within 24 hours.";
        operation.parameters.get_or_insert_default().push(header_parameter("Idempotency-Key", text).into());
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if *method != HttpMethod::Get {
            response.headers.insert("Flags-Revision".to_owned(), header("Revision of the change: `<epoch>:<number>`"));
        }
        if status != "204" && !path.ends_with("/bulk") && (*method != HttpMethod::Get || path.ends_with('}')) {
            response.headers.insert("ETag".to_owned(), header("Entity tag for `If-Match`: `\"<epoch>:<number>\"`"));
        }
        if status == "201" {
            response.headers.insert("Location".to_owned(), header("Path of the created resource"));
        }
    }
    if *method == HttpMethod::Patch
        && let Some(RefOr::T(body)) = &mut operation.request_body
        && let Some(content) = body.content.get("application/json").cloned()
    {
        body.content.insert("application/merge-patch+json".to_owned(), content);
    }
}

/// Adds the headers of all operations below `/api`.
fn add_api_headers(path: &str, operation: &mut Operation) {
    let text = "Minimum revision (`<epoch>:<number>`) of the data that the response is based on. The server waits up \
                to 2 seconds for this revision and then returns 503.";
    operation.parameters.get_or_insert_default().push(header_parameter("Flags-Min-Revision", text).into());
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if path.starts_with("/api/flags/me") && status != "default" && !path.ends_with("/overrides") {
            response.headers.insert("ETag".to_owned(), header("Entity tag for `If-None-Match`"));
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
        .description(Some("API token or, if the server is configured for an issuer, a JWT"))
        .build();
    let text = "Session cookie, set by the sign-in operation. Over plain HTTP on the same machine its name is \
                `flags_session`. Requests that change something must come from the server's own origin.";
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
        ("my flags", "Flag values and overrides of the caller, for applications"),
        (
            "OpenFeature",
            "OpenFeature Remote Evaluation Protocol (OFREP 0.3.0), for OpenFeature providers in any language",
        ),
        ("overrides", "Values of flags for single users, which take precedence over targeting rules and defaults"),
        ("flags", "Flags with their variants and targeting rules"),
        ("scheduled changes", "Changes to a flag's default or enabled state that take effect at a set time"),
        ("explanations", "Evaluation results of a user with the reason for each value, now or at a later time"),
        ("users", "Users that flags are evaluated for, with their roles and attributes"),
        ("API tokens", "Credentials for programs"),
        ("session", "Sign-in, sign-out, password change and the caller's identity"),
        ("audit", "Audit log: who changed what, when and why"),
        ("system", "Health, readiness and metrics, for operators"),
    ];
    tags.into_iter().map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build()).collect()
}
