//! Properties of routes, such as the rate limit and the error format. They are declared where a route is registered.
//!
//! Authentication, rate limits, the request middleware and the OpenAPI document use these properties.

use actix_web::HttpMessage;
use metrics::SharedString;
use tracing::{Span, field::display};

/// Properties of one route. The named constructors cover the common cases; the methods change single properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteFacts {
    pub(crate) identification: Identification,
    pub(crate) rate_class: RateClass,
    pub(crate) min_revision: MinRevision,
    pub(crate) query_string: QueryString,
    pub(crate) preconditions: Preconditions,
    pub(crate) idempotency: Idempotency,
    pub(crate) response_headers: ResponseHeaders,
    pub(crate) error_format: ErrorFormat,
    pub(crate) content_security_policy: ContentSecurityPolicy,
}

/// How the server identifies the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identification {
    /// The server does not identify the caller. The request counts against the limit of its address, but the server
    /// responds even if the limit is exceeded.
    None,
    /// By the `Authorization` header, else by the session cookie.
    Credential,
    /// By the stream token in the URL. Other credentials are ignored.
    StreamToken,
}

/// Which rate limit of a credential applies. Requests without a valid credential share the limit of their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateClass {
    /// The limit for requests that may query the database.
    Requests,
    /// The limit for evaluations, which the server computes in memory.
    Evaluations,
}

/// How a caller can require a minimum revision of the data that the response is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MinRevision {
    /// The route does not support a minimum revision.
    Unsupported,
    /// By the header `Flags-Min-Revision`.
    Header,
    /// By the header `Flags-Min-Revision`. The OpenAPI document omits the header, because OFREP does not define it.
    UndocumentedHeader,
    /// By the header `Flags-Min-Revision`, which the OpenAPI document omits, or by OFREP's query parameter
    /// `flagConfigEtag`.
    EventPosition,
}

/// Which query strings the route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryString {
    /// Only the parameters in the OpenAPI document. The handler rejects other parameters. If the document has none, the
    /// route registry rejects every query string.
    Described,
    /// No query string.
    Empty,
    /// Any query string. OpenFeature providers may send parameters of a later protocol version.
    Any,
}

/// Precondition headers that the route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preconditions {
    None,
    /// `If-Match`.
    IfMatch,
    /// `If-Match`, or `If-None-Match: *` to create the resource only if it does not exist.
    IfMatchOrNoneMatch,
}

/// Whether the route accepts the header `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idempotency {
    Unsupported,
    Key,
}

/// Headers of successful responses that the OpenAPI document adds to those of the route's own description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseHeaders {
    None,
    /// `ETag` for `If-Match`.
    Resource,
    /// `Flags-Revision` and, unless the response is empty, `ETag` for `If-Match`. With status 201 also `Location`.
    Change,
    /// `Flags-Revision`.
    BulkChange,
    /// `ETag` for `If-None-Match`.
    Evaluation,
    /// Headers that prevent caching and buffering of an event stream.
    EventStream,
}

/// Format of error responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// Problem documents (RFC 9457).
    Problem,
    /// Errors as defined by OFREP.
    Ofrep,
}

/// Content security policy of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentSecurityPolicy {
    /// Policy for data, which loads no other resources.
    Data,
    /// Policy for pages that load scripts and styles of this server.
    Page,
    /// Policy for the admin UI, which has no inline code and no inline styles.
    AdminUi,
}

impl RouteFacts {
    /// For an API operation without special properties.
    pub(crate) const fn api() -> Self {
        Self {
            identification: Identification::Credential,
            rate_class: RateClass::Requests,
            min_revision: MinRevision::Header,
            query_string: QueryString::Described,
            preconditions: Preconditions::None,
            idempotency: Idempotency::Unsupported,
            response_headers: ResponseHeaders::None,
            error_format: ErrorFormat::Problem,
            content_security_policy: ContentSecurityPolicy::Data,
        }
    }

    /// For an operation that returns one resource, with an entity tag for `If-Match`.
    pub(crate) const fn resource() -> Self {
        Self { response_headers: ResponseHeaders::Resource, ..Self::api() }
    }

    /// For an operation that creates or changes one resource.
    pub(crate) const fn change() -> Self {
        Self { response_headers: ResponseHeaders::Change, ..Self::api() }
    }

    /// For an operation that changes or deletes one existing resource and accepts `If-Match`.
    pub(crate) const fn update() -> Self {
        Self::change().with_preconditions(Preconditions::IfMatch)
    }

    /// For an operation that changes many resources.
    pub(crate) const fn bulk_change() -> Self {
        Self { response_headers: ResponseHeaders::BulkChange, ..Self::api() }
    }

    /// For an operation that returns data of the caller's own user from memory.
    pub(crate) const fn own_data() -> Self {
        Self { rate_class: RateClass::Evaluations, ..Self::api() }
    }

    /// For an operation that evaluates flags for the caller's own user.
    pub(crate) const fn own_evaluation() -> Self {
        Self { response_headers: ResponseHeaders::Evaluation, ..Self::own_data() }
    }

    /// For an operation of OFREP.
    pub(crate) const fn ofrep() -> Self {
        Self {
            rate_class: RateClass::Evaluations,
            min_revision: MinRevision::UndocumentedHeader,
            query_string: QueryString::Any,
            error_format: ErrorFormat::Ofrep,
            ..Self::api()
        }
    }

    /// For a route that needs no credential, for operators and browsers.
    pub(crate) const fn open() -> Self {
        Self { identification: Identification::None, min_revision: MinRevision::Unsupported, ..Self::api() }
    }

    /// Marks the response as an event stream.
    pub(crate) const fn event_stream(self) -> Self {
        Self { response_headers: ResponseHeaders::EventStream, ..self }
    }

    pub(crate) const fn identified_by(self, identification: Identification) -> Self {
        Self { identification, ..self }
    }

    pub(crate) const fn with_min_revision(self, min_revision: MinRevision) -> Self {
        Self { min_revision, ..self }
    }

    pub(crate) const fn with_query_string(self, query_string: QueryString) -> Self {
        Self { query_string, ..self }
    }

    pub(crate) const fn with_preconditions(self, preconditions: Preconditions) -> Self {
        Self { preconditions, ..self }
    }

    /// Makes the route accept the header `Idempotency-Key`.
    pub(crate) const fn idempotent(self) -> Self {
        Self { idempotency: Idempotency::Key, ..self }
    }

    /// Whether both routes treat requests with an unsupported method (405) alike: they have the same identification,
    /// rate class and error format.
    pub(crate) fn same_for_unhandled_methods(self, other: Self) -> bool {
        (self.identification, self.rate_class, self.error_format)
            == (other.identification, other.rate_class, other.error_format)
    }

    pub(crate) const fn with_content_security_policy(self, content_security_policy: ContentSecurityPolicy) -> Self {
        Self { content_security_policy, ..self }
    }
}

/// Route of a request. Stored in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct MatchedRoute {
    /// Path template, such as `/api/admin/feature-flags/{flag_name}`: the label of metrics and log lines.
    pub(crate) template: SharedString,
    pub(crate) facts: RouteFacts,
}

/// Path prefix of all OFREP endpoints.
const OFREP_ROOT: &str = "/ofrep";

impl MatchedRoute {
    /// Stores the route in the request's extensions and span.
    pub(crate) fn store_in(self, request: &impl HttpMessage) {
        Span::current().record("route", display(&self.template));
        request.extensions_mut().insert(self);
    }

    /// For a request that no route handles: its path matches no route, or the server rejected the request before
    /// routing.
    pub(crate) fn unmatched(path: &str) -> Self {
        // Clients of OFREP expect its error format even if they use a wrong path.
        let is_ofrep = path.strip_prefix(OFREP_ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let facts = if is_ofrep { RouteFacts::ofrep() } else { RouteFacts::open() };
        Self { template: SharedString::const_str("unmatched"), facts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmatched_paths_below_ofrep_use_the_ofrep_error_format() {
        for path in ["/ofrep", "/ofrep/", "/ofrep/v2/x"] {
            assert_eq!(MatchedRoute::unmatched(path).facts.error_format, ErrorFormat::Ofrep, "{path}");
        }
        for path in ["/", "/api/flags/me", "/ofreps", "/api/ofrep/v1"] {
            assert_eq!(MatchedRoute::unmatched(path).facts.error_format, ErrorFormat::Problem, "{path}");
        }
    }
}
