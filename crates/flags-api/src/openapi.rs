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
    ofrep_failure::{EvaluationFailure, EvaluationFailureResponse},
    problem::{ProblemBody, ProblemResponse},
    route_facts::{Idempotency, MinRevision, Preconditions, ResponseHeaders, RouteFacts},
};

/// One operation of the OpenAPI document.
pub(crate) struct DescribedOperation {
    pub(crate) path: String,
    pub(crate) method: HttpMethod,
    pub(crate) operation: Operation,
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
    pub(crate) facts: RouteFacts,
}

/// Builds the document from the operations.
pub(crate) fn build_document(operations: Vec<DescribedOperation>) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    for mut described in operations {
        describe_facts(&mut described);
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

/// Adds the headers and media types that result from the method and the [`RouteFacts`] of a route.
fn describe_facts(described: &mut DescribedOperation) {
    let DescribedOperation { method, operation, facts, .. } = described;
    for parameter in header_parameters(*facts) {
        operation.parameters.get_or_insert_default().push(parameter.into());
    }
    for (status, response) in &mut operation.responses.responses {
        // The error response is a reference to a shared component, which describes its own headers.
        let RefOr::T(response) = response else { continue };
        for (name, text) in response_headers(facts.response_headers, status) {
            response.headers.insert((*name).to_owned(), header(text));
        }
    }
    if *method == HttpMethod::Patch
        && let Some(RefOr::T(body)) = &mut operation.request_body
        && let Some(content) = body.content.get("application/json").cloned()
    {
        body.content.insert("application/merge-patch+json".to_owned(), content);
    }
}

const MIN_REVISION: (&str, &str) = (
    "Flags-Min-Revision",
    "Minimum revision (`<epoch>:<number>`) of the data that the response is based on. The server waits up to 2 seconds \
     for this revision and then returns 503.",
);
const IF_MATCH: (&str, &str) = (
    "If-Match",
    "Entity tag of the resource as last read. The change fails with 412 if the resource has another tag. `*` requires \
     only that the resource exists.",
);
const IF_NONE_MATCH: (&str, &str) =
    ("If-None-Match", "`*` creates the override only if it does not exist; otherwise the request fails with 412.");
const IDEMPOTENCY_KEY: (&str, &str) = (
    "Idempotency-Key",
    "Key of 1 to 255 visible ASCII characters. The server executes the request at most once per key and replays the \
     stored response to retries within 24 hours.",
);

/// Returns the request headers that the route accepts.
fn header_parameters(facts: RouteFacts) -> impl Iterator<Item = Parameter> {
    let min_revision: &[_] = match facts.min_revision {
        MinRevision::Header => &[MIN_REVISION],
        MinRevision::Unsupported | MinRevision::UndocumentedHeader | MinRevision::EventPosition => &[],
    };
    let preconditions: &[_] = match facts.preconditions {
        Preconditions::None => &[],
        Preconditions::IfMatch => &[IF_MATCH],
        Preconditions::IfMatchOrNoneMatch => &[IF_MATCH, IF_NONE_MATCH],
    };
    let idempotency: &[_] = match facts.idempotency {
        Idempotency::Unsupported => &[],
        Idempotency::Key => &[IDEMPOTENCY_KEY],
    };
    [min_revision, preconditions, idempotency].into_iter().flatten().map(|(name, text)| header_parameter(name, text))
}

const FLAGS_REVISION: (&str, &str) = ("Flags-Revision", "Revision of the change: `<epoch>:<number>`");
const RESOURCE_TAG: (&str, &str) = ("ETag", "Entity tag for `If-Match`: `\"<epoch>:<number>\"`");
const EVALUATION_TAG: (&str, &str) = ("ETag", "Entity tag for `If-None-Match`");
const LOCATION: (&str, &str) = ("Location", "Path of the created resource");
const NO_CACHE: (&str, &str) = ("Cache-Control", "`no-cache`");
const NO_BUFFERING: (&str, &str) = ("X-Accel-Buffering", "`no`");

/// Returns the headers of a response with this status.
fn response_headers(headers: ResponseHeaders, status: &str) -> &'static [(&'static str, &'static str)] {
    match (headers, status) {
        (ResponseHeaders::None, _) => &[],
        (ResponseHeaders::Resource, _) => &[RESOURCE_TAG],
        (ResponseHeaders::Change, "201") => &[FLAGS_REVISION, RESOURCE_TAG, LOCATION],
        (ResponseHeaders::Change, "204") | (ResponseHeaders::BulkChange, _) => &[FLAGS_REVISION],
        (ResponseHeaders::Change, _) => &[FLAGS_REVISION, RESOURCE_TAG],
        (ResponseHeaders::Evaluation, _) => &[EVALUATION_TAG],
        (ResponseHeaders::EventStream, _) => &[NO_CACHE, NO_BUFFERING],
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
