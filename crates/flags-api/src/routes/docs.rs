//! Public pages: the OpenAPI document, and Swagger UI, which displays the document. If the admin UI was not built, the
//! server also has a welcome page with links.

use actix_web::{
    HttpResponse, Resource,
    body::BoxBody,
    dev::{HttpServiceFactory, ServiceRequest},
    guard::{self, Guard},
    http::header::{CONTENT_ENCODING, ContentEncoding},
    middleware::{Next, from_fn},
    web::{self, Bytes, Data, Path, Redirect, ServiceConfig},
};
use metrics::SharedString;
use utoipa_swagger_ui::{Config, serve};

use super::{
    admin_ui::{self, has_admin_ui},
    reply::HandlerResult,
    system::unmatched,
};
use crate::{
    problem::Problem,
    route_facts::{ContentSecurityPolicy, MatchedRoute, RouteFacts},
};

const WELCOME_PATH: &str = "/";
const DOCUMENT_PATH: &str = "/openapi.json";
const SWAGGER_PATH: &str = "/docs/";

const WELCOME: &str = include_str!("welcome.html");

/// Adds the routes. The OpenAPI document does not describe them. `document` is the serialized OpenAPI document.
pub(super) fn configure(config: &mut ServiceConfig, document: Bytes) {
    let page = RouteFacts::open().with_content_security_policy(ContentSecurityPolicy::Page);
    let welcome = web::resource(WELCOME_PATH).guard(read_method()).to(get_welcome_page);
    let redirect = web::resource("/docs").to(redirect_to_swagger);
    let document = web::resource(DOCUMENT_PATH).guard(read_method()).app_data(Data::new(document)).to(get_document);
    let swagger_config = Data::new(Config::new([DOCUMENT_PATH]).validator_url("none"));
    let swagger = web::resource("/docs/{file:.*}").guard(read_method()).app_data(swagger_config).to(get_swagger_file);
    if has_admin_ui() {
        admin_ui::configure(config);
    } else {
        config.service(declare(welcome, WELCOME_PATH, RouteFacts::open()));
    }
    config
        .service(declare(redirect, SWAGGER_PATH, page))
        .service(declare(document, DOCUMENT_PATH, RouteFacts::open()))
        .service(declare(swagger, SWAGGER_PATH, page));
}

/// Stores a [`MatchedRoute`] with this path template and these facts in every request to the resource.
pub(super) fn declare(resource: Resource, label: &'static str, facts: RouteFacts) -> impl HttpServiceFactory {
    let route = MatchedRoute { template: SharedString::const_str(label), facts };
    resource.wrap(from_fn(move |request: ServiceRequest, next: Next<BoxBody>| {
        route.clone().store_in(&request);
        next.call(request)
    }))
}

pub(super) fn read_method() -> impl Guard {
    guard::Any(guard::Get()).or(guard::Head())
}

async fn get_welcome_page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(WELCOME)
}

async fn redirect_to_swagger() -> Redirect {
    Redirect::to(SWAGGER_PATH)
}

async fn get_document(document: Data<Bytes>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(Bytes::clone(&document))
}

async fn get_swagger_file(file: Path<String>, config: Data<Config<'static>>) -> HandlerResult {
    let file = serve(&file, config.into_inner()).map_err(|error| Problem::internal(error.to_string()))?;
    let Some(file) = file else { return unmatched().await };
    let mut response = HttpResponse::Ok();
    if file.gzpipped {
        response.insert_header((CONTENT_ENCODING, ContentEncoding::Gzip));
    }
    Ok(response.content_type(file.content_type).body(file.bytes.into_owned()))
}
