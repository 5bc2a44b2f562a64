//! Who calls: a caller is an address and a credential, and every test sends its requests the same way.

use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::events::Events;

/// Sends requests to one server with one credential, or none.
#[derive(Clone)]
pub struct Caller {
    base: String,
    credential: Credential,
    client: reqwest::Client,
    /// Without a limit on how long an answer may take to its end.
    streaming: reqwest::Client,
}

/// What a caller shows.
#[derive(Clone)]
enum Credential {
    None,
    Bearer(String),
    /// `name=value`, sent as a browser does from a page of the server itself.
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

/// An answer, read to the end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON; null if there is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The cookie that the answer sets, as `name=value`.
    pub fn cookie(&self) -> &str {
        self.header("set-cookie").split(';').next().unwrap_or_default()
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// Panics unless it is a problem with this status and code, shaped as the contract says.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Value {
        let reply = self.expect(status);
        let body = reply.json();
        assert_eq!(body["code"], code, "{}", reply.text);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        assert_eq!(body["instance"], reply.header("x-request-id"));
        assert_eq!(body["type"], format!("urn:feature-flags:problem:{code}"));
        assert!(body["title"].is_string() && body["detail"].is_string(), "{}", reply.text);
        body
    }

    /// Panics unless it is a 422 whose first violation points here with this code.
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
    pub fn new(base: &str, token: Option<&str>) -> Self {
        let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(30)).build().expect("a client");
        let streaming = reqwest::Client::builder().build().expect("a client");
        let credential = token.map_or(Credential::None, |token| Credential::Bearer(token.to_owned()));
        Self { base: base.to_owned(), credential, client, streaming }
    }

    /// A browser that has this cookie, as `name=value`.
    pub fn with_cookie(&self, cookie: &str) -> Self {
        Self { credential: Credential::Cookie(cookie.to_owned()), ..self.clone() }
    }

    /// Signs in; the caller that comes back has the cookie.
    pub async fn sign_in(&self, email: &str, password: &str) -> Self {
        let answer = self.post("/api/auth/login", &serde_json::json!({"email": email, "password": password})).await;
        self.with_cookie(answer.expect(200).cookie())
    }

    /// The same caller at another server.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// Sends a request; an error means that no answer came.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> reqwest::Result<Reply> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        request = self.credential.add_to(request);
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            request = request.header(name, HeaderValue::from_str(value).expect("a header's value"));
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Reply { status, headers, text: response.text().await? })
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Reply {
        let sent = self.try_send(method.clone(), path, headers, body).await;
        sent.unwrap_or_else(|e| panic!("{method} {path}: {e:?}"))
    }

    /// Sends JSON with further headers.
    pub async fn json(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send(method, path, &all, Some(body.to_string().into_bytes())).await
    }

    /// Opens a stream of events; panics unless the answer is one.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        self.try_stream(path, headers).await.unwrap_or_else(|e| panic!("{path}: {e:?}"))
    }

    /// Opens a stream of events; an error means that no answer came.
    pub async fn try_stream(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Result<Events> {
        let mut request = self.streaming.get(format!("{}{path}", self.base));
        request = self.credential.add_to(request);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(Events::new(request.send().await?.error_for_status()?))
    }

    /// Begins a request whose answer is read by whoever calls, as slowly as they like.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        let sent = self.credential.add_to(self.streaming.get(format!("{}{path}", self.base))).send().await;
        sent.unwrap_or_else(|e| panic!("{path}: {e:?}"))
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.json(Method::POST, path, &[], body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.json(Method::PUT, path, &[], body).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.json(Method::PATCH, path, &[], body).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], None).await
    }
}
