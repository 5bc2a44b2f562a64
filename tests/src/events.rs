//! Client for server-sent events.

use std::{collections::VecDeque, time::Duration};

use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::timeout;

/// A server-sent event with a JSON payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Value of the `event` field.
    pub event: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Event {
    /// Returns the revision number of the stream position in the event id.
    pub fn revision(&self) -> i64 {
        self.parse_position_component(1)
    }

    /// Returns the instant of the stream position in the event id, in microseconds since the Unix epoch.
    pub fn evaluated_at(&self) -> i64 {
        self.parse_position_component(2)
    }

    fn parse_position_component(&self, index: usize) -> i64 {
        let id = self.id.as_deref().expect("event has an id");
        id.split(':').nth(index).and_then(|part| part.parse().ok()).expect("event id is a stream position")
    }
}

/// Parses a byte stream into events.
#[derive(Debug, Default)]
pub struct EventParser {
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    /// Most recent value of the `retry` field, in milliseconds.
    pub retry: Option<u64>,
}

impl EventParser {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            self.parse_block(std::str::from_utf8(&block).expect("event is valid UTF-8"));
        }
    }

    fn parse_block(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(millis) = field("retry: ") {
            self.retry = millis.parse().ok();
        }
        if let Some(data) = field("data: ") {
            self.events.push_back(Event {
                event: field("event: ").expect("event has a name").to_owned(),
                id: field("id: ").map(ToOwned::to_owned),
                data: serde_json::from_str(data).expect("data is valid JSON"),
            });
        }
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// An open event stream.
pub struct EventStream {
    response: reqwest::Response,
    pub headers: HeaderMap,
    pub parser: EventParser,
    /// Received bytes of the body. Callers may empty it.
    pub raw: Vec<u8>,
}

impl EventStream {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let headers = response.headers().clone();
        Self { response, headers, parser: EventParser::default(), raw: Vec::new() }
    }

    /// Waits for the next event without a timeout. Returns `None` if the stream has ended or the connection was lost.
    pub async fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.pop() {
                return Some(event);
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.raw.extend_from_slice(&chunk);
            self.parser.push(&chunk);
        }
    }

    /// Returns the next event. Panics if the stream ends or no event arrives within 30 seconds.
    pub async fn next(&mut self) -> Event {
        let next = timeout(Duration::from_secs(30), self.try_next()).await;
        next.expect("timed out waiting for an event").expect("the stream is open")
    }

    /// Skips heartbeats and returns the next event, which must have this name. Panics after 30 seconds.
    pub async fn expect(&mut self, name: &str) -> Event {
        let find = async {
            loop {
                let event = self.next().await;
                if event.event == name {
                    return event;
                }
                assert_eq!(event.event, "heartbeat", "while waiting for {name}: {event:?}");
            }
        };
        timeout(Duration::from_secs(30), find).await.unwrap_or_else(|_| panic!("timed out waiting for event {name}"))
    }

    /// Skips heartbeats and waits for the end of the stream. Panics if another event arrives, or after 30 seconds.
    pub async fn expect_end(&mut self) {
        loop {
            let next = timeout(Duration::from_secs(30), self.try_next()).await;
            match next.expect("timed out waiting for the end of the stream") {
                None => return,
                Some(event) => assert_eq!(event.event, "heartbeat", "{event:?}"),
            }
        }
    }
}
