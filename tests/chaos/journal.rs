//! What was done and seen, in order, in a file: every request before it is sent, every answer, every event.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    sync::Mutex,
    time::Instant,
};

use serde_json::{Value, json};

/// One case's file, `target/chaos/<case>.jsonl`.
pub(crate) struct Journal {
    begun: Instant,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    pub(crate) fn new(case: &str) -> Self {
        let folder = format!("{}/../target/chaos", env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&folder).expect("a folder");
        let file = File::create(format!("{folder}/{case}.jsonl")).expect("a file");
        Self { begun: Instant::now(), file: Mutex::new(BufWriter::new(file)) }
    }

    pub(crate) fn write(&self, what: &str, detail: Value) {
        let line = json!({"ms": self.begun.elapsed().as_secs_f64() * 1e3, "what": what, "detail": detail});
        let mut file = self.file.lock().expect("no panic");
        writeln!(file, "{line}").expect("room on the disk");
    }
}
