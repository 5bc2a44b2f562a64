//! A reader of server-sent events, as a client of the service has one.

use std::{collections::VecDeque, time::Duration};

use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::timeout;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub event: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Event {
    /// The revision's number in the event's id.
    pub fn revision(&self) -> i64 {
        let id = self.id.as_deref().expect("an event with an id");
        id.split(':').nth(1).and_then(|number| number.parse().ok()).expect("a cursor")
    }

    /// The instant in the event's id, in microseconds.
    pub fn evaluated_at(&self) -> i64 {
        let id = self.id.as_deref().expect("an event with an id");
        id.split(':').nth(2).and_then(|number| number.parse().ok()).expect("a cursor")
    }
}

/// Splits bytes into events.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    /// The last `retry:`, in milliseconds.
    pub retry: Option<u64>,
}

impl Parser {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            self.read(std::str::from_utf8(&block).expect("UTF-8"));
        }
    }

    fn read(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(millis) = field("retry: ") {
            self.retry = millis.parse().ok();
        }
        if let Some(data) = field("data: ") {
            self.events.push_back(Event {
                event: field("event: ").expect("an event has a name").to_owned(),
                id: field("id: ").map(ToOwned::to_owned),
                data: serde_json::from_str(data).expect("data is JSON"),
            });
        }
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// An open stream.
pub struct Events {
    response: reqwest::Response,
    pub headers: HeaderMap,
    pub parser: Parser,
    /// Every byte that came and that nobody has taken yet.
    pub raw: Vec<u8>,
}

impl Events {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let headers = response.headers().clone();
        Self { response, headers, parser: Parser::default(), raw: Vec::new() }
    }

    /// The next event; `None` when the stream has ended or was cut.
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

    /// The next event, whatever it is; panics if none comes within half a minute.
    pub async fn next(&mut self) -> Event {
        let next = timeout(Duration::from_secs(30), self.try_next()).await;
        next.expect("an event in time").expect("the stream goes on")
    }

    /// The next event of this name; those before it must be heartbeats, however many come within half a minute.
    pub async fn expect(&mut self, name: &str) -> Event {
        let wanted = async {
            loop {
                let event = self.next().await;
                if event.event == name {
                    return event;
                }
                assert_eq!(event.event, "heartbeat", "while waiting for {name}: {event:?}");
            }
        };
        timeout(Duration::from_secs(30), wanted).await.unwrap_or_else(|_| panic!("waited in vain for {name}"))
    }

    /// Waits until the stream has ended; what comes before must be heartbeats.
    pub async fn expect_end(&mut self) {
        loop {
            match timeout(Duration::from_secs(30), self.try_next()).await.expect("an end in time") {
                None => return,
                Some(event) => assert_eq!(event.event, "heartbeat", "{event:?}"),
            }
        }
    }
}
