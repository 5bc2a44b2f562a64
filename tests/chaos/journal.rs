//! A file with all requests, responses and events of a case, in order. Each request is written before it is sent.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    sync::Mutex,
    time::Instant,
};

use serde_json::{Value, json};

/// Writer of `target/chaos/<case>.jsonl`.
pub(crate) struct Journal {
    started_at: Instant,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    /// Creates the file, or empties an existing one.
    pub(crate) fn new(case: &str) -> Self {
        let folder = format!("{}/../target/chaos", env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&folder).expect("target/chaos can be created");
        let file = File::create(format!("{folder}/{case}.jsonl")).expect("journal file can be created");
        Self { started_at: Instant::now(), file: Mutex::new(BufWriter::new(file)) }
    }

    /// Appends a line. Its field `ms` is the time since the start of the case.
    pub(crate) fn write(&self, kind: &str, detail: Value) {
        let line = json!({"ms": self.started_at.elapsed().as_secs_f64() * 1e3, "kind": kind, "detail": detail});
        let mut file = self.file.lock().expect("lock is not poisoned");
        writeln!(file, "{line}").expect("journal file can be written");
    }
}
