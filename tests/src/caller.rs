//! HTTP client of the tests.

use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::events::EventStream;

/// Sends requests to one server with one credential or none.
#[derive(Clone)]
pub struct Caller {
    base_url: String,
    credential: Credential,
    client: reqwest::Client,
    /// Without a timeout, because event streams do not end.
    streaming_client: reqwest::Client,
}

#[derive(Clone)]
enum Credential {
    None,
    Bearer(String),
    /// `name=value`, sent with the headers of a same-origin request.
    Cookie(String),
}

impl Credential {
    fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Bearer(token) => request.bearer_auth(token),
            Self::Cookie(cookie) => request.header("cookie", cookie).header("sec-fetch-site", "same-origin"),
        }
    }
}

/// A response whose body was read completely.
#[derive(Debug)]
pub struct ApiResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl ApiResponse {
    /// Returns the body as JSON, or null if it is not valid JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Returns a header, or an empty string if the response does not have it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("header value is ASCII"))
    }

    /// Returns the cookie of the `Set-Cookie` header as `name=value`, without its attributes.
    pub fn cookie(&self) -> &str {
        self.header("set-cookie").split(';').next().unwrap_or_default()
    }

    /// Asserts the status and returns the response.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// Asserts that the response is a complete RFC 9457 problem with this status and code. Returns its body.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Value {
        let response = self.expect(status);
        let body = response.json();
        assert_eq!(body["code"], code, "{}", response.text);
        assert_eq!(response.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        assert_eq!(body["instance"], response.header("x-request-id"));
        assert_eq!(body["type"], format!("urn:feature-flags:problem:{code}"));
        assert!(body["title"].is_string() && body["detail"].is_string(), "{}", response.text);
        body
    }

    /// Asserts that the status is 422 and that the first violation has this JSON pointer and code.
    #[track_caller]
    pub fn expect_violation(self, pointer: &str, code: &str) {
        let body = self.expect(422).json();
        assert_eq!(
            (&body["errors"][0]["pointer"], &body["errors"][0]["code"]),
            (&pointer.into(), &code.into()),
            "{body}"
        );
    }
}

impl Caller {
    /// Returns a caller that authenticates with a bearer token, or is anonymous. The timeout of a request is 30
    /// seconds, except for event streams.
    pub fn new(base_url: &str, token: Option<&str>) -> Self {
        let timeout = std::time::Duration::from_secs(30);
        let client = reqwest::Client::builder().timeout(timeout).build().expect("HTTP client can be built");
        let streaming_client = reqwest::Client::builder().build().expect("HTTP client can be built");
        let credential = token.map_or(Credential::None, |token| Credential::Bearer(token.to_owned()));
        Self { base_url: base_url.to_owned(), credential, client, streaming_client }
    }

    /// Returns a caller that sends this cookie (`name=value`) as a browser does for same-origin requests.
    pub fn with_cookie(&self, cookie: &str) -> Self {
        Self { credential: Credential::Cookie(cookie.to_owned()), ..self.clone() }
    }

    /// Signs in and returns a caller that uses the session cookie.
    pub async fn sign_in(&self, email: &str, password: &str) -> Self {
        let response = self.post("/api/auth/login", &serde_json::json!({"email": email, "password": password})).await;
        self.with_cookie(response.expect(200).cookie())
    }

    /// Returns a caller with the same credential for another server.
    pub fn at_server(&self, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned(), ..self.clone() }
    }

    /// Sends a request. Returns an error if no complete response arrives.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> reqwest::Result<ApiResponse> {
        let mut request = self.client.request(method, format!("{}{path}", self.base_url));
        request = self.credential.add_to(request);
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("header name is valid");
            request = request.header(name, HeaderValue::from_str(value).expect("header value is valid"));
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(ApiResponse { status, headers, text: response.text().await? })
    }

    /// Like [`Self::try_send`], but panics if no complete response arrives.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> ApiResponse {
        let result = self.try_send(method.clone(), path, headers, body).await;
        result.unwrap_or_else(|e| panic!("{method} {path}: {e:?}"))
    }

    /// Sends a JSON body with `Content-Type: application/json` and the given headers.
    pub async fn send_json(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> ApiResponse {
        let mut all_headers = vec![("content-type", "application/json")];
        all_headers.extend_from_slice(headers);
        self.send(method, path, &all_headers, Some(body.to_string().into_bytes())).await
    }

    /// Opens an event stream. Panics if the server does not respond with a success status.
    pub async fn open_stream(&self, path: &str, headers: &[(&str, &str)]) -> EventStream {
        self.try_open_stream(path, headers).await.unwrap_or_else(|e| panic!("{path}: {e:?}"))
    }

    /// Opens an event stream. Returns an error if no response arrives or its status is 4xx or 5xx.
    pub async fn try_open_stream(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Result<EventStream> {
        let mut request = self.streaming_client.get(format!("{}{path}", self.base_url));
        request = self.credential.add_to(request);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(EventStream::new(request.send().await?.error_for_status()?))
    }

    /// Sends a GET request and returns the response before its body is read.
    pub async fn open_response(&self, path: &str) -> reqwest::Response {
        let request = self.credential.add_to(self.streaming_client.get(format!("{}{path}", self.base_url)));
        request.send().await.unwrap_or_else(|e| panic!("{path}: {e:?}"))
    }

    pub async fn get(&self, path: &str) -> ApiResponse {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> ApiResponse {
        self.send_json(Method::POST, path, &[], body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> ApiResponse {
        self.send_json(Method::PUT, path, &[], body).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> ApiResponse {
        self.send_json(Method::PATCH, path, &[], body).await
    }

    pub async fn delete(&self, path: &str) -> ApiResponse {
        self.send(Method::DELETE, path, &[], None).await
    }
}
