//! The OpenFeature Remote Evaluation Protocol (OFREP): evaluation, event stream and stream tokens.

mod contexts;
mod entity_tags;
mod evaluate;
mod event_stream;
mod requests;
mod stream_tokens;

use flags_store::api_tokens::TokenGrant;
use flags_tests::{
    app::TestApp,
    caller::{ApiResponse, Caller},
    events::{Event, EventStream},
};
use serde_json::{Value, json};

/// Path for evaluating all flags; appending a flag key selects one flag.
pub(crate) const BULK_PATH: &str = "/ofrep/v1/evaluate/flags";

/// Returns a caller with scope `evaluate`, as used by backend applications; it may use every targeting key.
pub(crate) async fn backend_caller(app: &TestApp) -> Caller {
    app.caller_with_token(TokenGrant::Evaluate, None, None).await
}

/// Request body with a context that contains only a targeting key.
pub(crate) fn request_for(key: &str) -> Value {
    json!({"context": {"targetingKey": key}})
}

pub(crate) async fn evaluate(caller: &Caller, flag: &str, context: Value) -> ApiResponse {
    caller.post(&format!("{BULK_PATH}/{flag}"), &json!({"context": context})).await
}

/// Evaluates all flags for a targeting key; returns the results by flag key.
pub(crate) async fn evaluate_all(caller: &Caller, key: &str) -> serde_json::Map<String, Value> {
    let mut response = caller.post(BULK_PATH, &request_for(key)).await.expect(200).json();
    let results = response["flags"].as_array_mut().unwrap().iter_mut().map(Value::take);
    results.map(|result| (result["key"].as_str().unwrap().to_owned(), result)).collect()
}

/// Evaluates one flag for a targeting key; returns the result.
pub(crate) async fn evaluate_one(caller: &Caller, flag: &str, key: &str) -> Value {
    evaluate(caller, flag, json!({"targetingKey": key})).await.expect(200).json()
}

/// Panics unless the response is an OFREP error with this status, error code and flag key.
#[track_caller]
pub(crate) fn expect_error(response: ApiResponse, status: u16, code: &str, key: Option<&str>) -> ApiResponse {
    let response = response.expect(status);
    let body = response.json();
    assert_eq!(response.header("content-type"), "application/json", "{}", response.text);
    assert_eq!((&body["errorCode"], body["key"].as_str()), (&json!(code), key), "{}", response.text);
    assert!(body["errorDetails"].as_str().is_some_and(|text| !text.is_empty()), "{}", response.text);
    let fields = body.as_object().unwrap().len();
    assert_eq!(fields, if key.is_some() { 3 } else { 2 }, "{}", response.text);
    if [429, 503].contains(&status) {
        assert!(response.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    }
    response
}

/// Creates a flag with variants `a` and `b` of these values. It serves `a`; its off variant is `b`.
pub(crate) async fn create_two_variant_flag(app: &TestApp, name: &str, flag_type: &str, a: Value, b: Value) {
    let variants = json!([{"id": "a", "value": a}, {"id": "b", "value": b}]);
    let default = json!({"variant": "a"});
    app.create_flag(
        json!({"name": name, "flag_type": flag_type, "variants": variants, "default": default, "off_variant": "b"}),
    )
    .await;
}

/// Returns the event stream address in a bulk evaluation response.
pub(crate) fn stream_address(response: &ApiResponse) -> String {
    let streams = &response.json()["eventStreams"];
    let uri = streams[0]["endpoint"]["requestUri"].as_str().unwrap().to_owned();
    let expected = json!([{"type": "sse", "endpoint": {"requestUri": uri}, "inactivityDelaySec": 120}]);
    assert_eq!(*streams, expected);
    assert!(uri.starts_with("/ofrep/v1/stream?ticket="), "{uri}");
    uri
}

pub(crate) async fn fetch_stream_address(caller: &Caller, key: &str) -> String {
    stream_address(&caller.post(BULK_PATH, &request_for(key)).await.expect(200))
}

/// Opens the event stream without other credentials, as browsers do: the address contains the stream token.
pub(crate) async fn open_evaluation_stream(app: &TestApp, caller: &Caller, key: &str) -> EventStream {
    app.anonymous.open_stream(&fetch_stream_address(caller, key).await, &[]).await
}

/// Returns the next event other than a heartbeat; it must be a `refetchEvaluation` message.
pub(crate) async fn expect_refetch(events: &mut EventStream) -> Event {
    let event = events.expect("message").await;
    let seconds = event.evaluated_at().div_euclid(1_000_000);
    let data = json!({"type": "refetchEvaluation", "etag": event.id, "lastModified": seconds});
    assert_eq!(event.data, data, "the message has no other fields");
    event
}

/// Asserts that only heartbeats arrive until the stream has reached the current revision and time.
pub(crate) async fn expect_no_refetch(app: &TestApp, events: &mut EventStream) {
    let (head, now) = (app.replica.revision().number, app.core.now().as_micros());
    loop {
        let event = events.next().await;
        assert_eq!(event.event, "heartbeat", "{event:?}");
        if event.revision() >= head && event.evaluated_at() >= now {
            return;
        }
    }
}
