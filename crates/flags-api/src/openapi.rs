//! The OpenAPI document, made of what stands at the handlers.

use utoipa::{
    PartialSchema as _, ToResponse as _, ToSchema as _,
    openapi::{
        Components, ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathsBuilder, RefOr,
        Schema,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    problem::{ProblemBody, ProblemResponse},
    routes,
};

/// The whole document. The committed copy is `docs/openapi.json`; a test compares them.
pub fn openapi() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    for described in routes::all().described() {
        paths = paths.path(described.path.clone(), described.item.clone());
        schemas.extend(described.schemas.iter().cloned());
    }
    let info = InfoBuilder::new()
        .title("Feature flags with user overrides")
        .description(Some(
            "Every answer carries `X-Request-Id`; errors are `application/problem+json` (RFC 9457) with a stable `code`.",
        ))
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components(schemas)))
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]))
        .tags(Some(tags()))
        .build()
}

const BEARER: &str = "bearer";

fn components(mut schemas: Vec<(String, RefOr<Schema>)>) -> Components {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("flg_…")
        .description(Some("An API token"))
        .build();
    let (problem, response) = ProblemResponse::response();
    ProblemBody::schemas(&mut schemas);
    schemas.push((ProblemBody::name().into_owned(), ProblemBody::schema()));
    ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .response(problem, response)
        .security_scheme(BEARER, SecurityScheme::Http(bearer))
        .build()
}

fn tags() -> Vec<utoipa::openapi::Tag> {
    let tags = [
        ("my flags", "What the caller gets; for applications"),
        ("overrides", "What one user gets, whatever the other layers say"),
        ("flags", "Flags, their variants and targeting rules"),
        ("scheduled changes", "Changes of a flag's default or switch at an instant"),
        ("users", "Whom flags are evaluated for"),
        ("system", "For operators"),
    ];
    tags.into_iter().map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build()).collect()
}
