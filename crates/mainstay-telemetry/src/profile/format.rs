//! The format of `go tool pprof`: a `perftools.profiles.Profile` in protobuf, compressed with gzip, written by hand.
//!
//! The numbers are those of `github.com/google/pprof/proto/profile.proto`.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use mainstay_core::{Error, Result};
use pprof::{Report, Symbol};

use super::sampler::FREQUENCY;
use crate::proto::Proto;

/// What each number of the profile means in the end, for whoever reads it without our documentation.
const COMMENT: &str =
    "A sample's innermost function is missing: what it used is shown at its caller, in the line of the call.";

/// Nanoseconds of processor time that a sample stands for.
const PERIOD: u64 = 1_000_000_000 / FREQUENCY as u64;

pub(super) fn encode(report: &Report, length: Duration) -> Result<Vec<u8>> {
    let mut profile = Profile::default();
    let mut out = Proto::with_capacity(64 * 1024);
    let (samples, count, cpu, nanoseconds, thread) = (
        profile.text("samples"),
        profile.text("count"),
        profile.text("cpu"),
        profile.text("nanoseconds"),
        profile.text("thread"),
    );
    for (kind, unit) in [(samples, count), (cpu, nanoseconds)] {
        value_type(&mut out, 1, kind, unit);
    }
    for (stack, times) in &report.data {
        let locations: Vec<u64> = stack.frames.iter().filter_map(|frame| profile.location(frame)).collect();
        let name = profile.text(&stack.thread_name);
        let times = u64::try_from(*times).unwrap_or_default();
        out.message(2, |sample| {
            locations.iter().for_each(|location| sample.int(1, *location));
            sample.int(2, times);
            sample.int(2, times * PERIOD);
            sample.message(3, |label| {
                label.int(1, thread);
                label.int(2, name);
            });
        });
    }
    let comment = profile.text(COMMENT);
    profile.write(&mut out);
    let began = report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.int(9, nanos(began));
    out.int(10, nanos(length));
    value_type(&mut out, 11, cpu, nanoseconds);
    out.int(12, PERIOD);
    out.int(13, comment);
    out.int(14, cpu);
    compress(&out.into_bytes())
}

fn value_type(out: &mut Proto, field: u32, kind: u64, unit: u64) {
    out.message(field, |value_type| {
        value_type.int(1, kind);
        value_type.int(2, unit);
    });
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn compress(profile: &[u8]) -> Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(profile).and_then(|()| out.finish()).map_err(Error::from_any)
}

/// What samples point to by number.
#[derive(Default)]
struct Profile {
    texts: HashMap<String, u64>,
    /// By name, name as it is linked, and file.
    functions: HashMap<(u64, u64, u64), u64>,
    /// Functions and lines: more than one where some were inlined into the last.
    locations: HashMap<Vec<(u64, u64)>, u64>,
}

impl Profile {
    /// The first text is the empty one, which the format wants.
    fn text(&mut self, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        match self.texts.get(text) {
            Some(known) => *known,
            None => {
                let index = self.texts.len() as u64 + 1;
                self.texts.insert(text.to_owned(), index);
                index
            }
        }
    }

    /// The place of one return address; `None` where nothing is known about it.
    fn location(&mut self, symbols: &[Symbol]) -> Option<u64> {
        let known = symbols.iter().filter(|symbol| symbol.name.is_some());
        let lines: Vec<_> = known.map(|symbol| (self.function(symbol), u64::from(symbol.lineno()))).collect();
        if lines.is_empty() {
            return None;
        }
        let next = self.locations.len() as u64 + 1;
        Some(*self.locations.entry(lines).or_insert(next))
    }

    fn function(&mut self, symbol: &Symbol) -> u64 {
        let file = symbol.filename.as_ref().map(|file| file.to_string_lossy()).unwrap_or_default();
        // Where the two names differ, readers take the first as it is, with its `<…>`.
        let key = (self.text(&symbol.name()), self.text(&symbol.sys_name()), self.text(&file));
        let next = self.functions.len() as u64 + 1;
        *self.functions.entry(key).or_insert(next)
    }

    fn write(&self, out: &mut Proto) {
        for (lines, id) in &self.locations {
            out.message(4, |location| {
                location.int(1, *id);
                for (function, line) in lines {
                    location.message(4, |out| {
                        out.int(1, *function);
                        out.int(2, *line);
                    });
                }
            });
        }
        for ((name, linked, file), id) in &self.functions {
            out.message(5, |function| {
                function.int(1, *id);
                function.int(2, *name);
                function.int(3, *linked);
                function.int(4, *file);
            });
        }
        let mut texts: Vec<_> = self.texts.iter().collect();
        texts.sort_by_key(|(_, index)| **index);
        out.text(6, "");
        texts.iter().for_each(|(text, _)| out.text(6, text));
    }
}
