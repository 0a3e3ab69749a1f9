//! [`JsonLines`]: log lines for machines, with the identity of the context they are logged in.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use mainstay_core::Context;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{self, Layer};

use super::known::Known;
use super::repeats::{LEFT_OUT, LeftOut, Repeats, TOLD};

/// Writes each event as one line, at once, and before it what was left out since the last one.
///
/// A layer of its own and no format of `tracing_subscriber::fmt`, which copies each line and keeps the fields of spans, of
/// which no line shows any.
pub(super) struct JsonLines<W> {
    pub(super) writer: W,
    pub(super) repeats: Arc<Repeats>,
}

thread_local! {
    /// Where lines are made, so that none has to be allocated.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let written = LINE.try_with(|line| line.try_borrow_mut().map(|mut line| self.write(&mut line, event)).is_ok());
        if !written.unwrap_or(false) {
            // The thread ends, or a value that is being written logs itself.
            self.write(&mut Vec::new(), event);
        }
    }
}

impl<W: for<'a> MakeWriter<'a>> JsonLines<W> {
    fn write(&self, line: &mut Vec<u8>, event: &Event<'_>) {
        line.clear();
        // Written here and not logged: while a thread logs, tracing throws away what it logs besides.
        self.repeats.in_passing(|left_out| tell(line, &left_out));
        Context::current(|context| json(line, event, context));
        if let Err(error) = self.writer.make_writer_for(event.metadata()).write_all(line) {
            let _ = writeln!(io::stderr(), "a log line can't be written: {error}");
        }
    }
}

fn tell(line: &mut Vec<u8>, left_out: &LeftOut<'_>) {
    let LeftOut { lines, of, level, place, limit } = left_out;
    begin(line, "WARN");
    let _ = write!(line, ",\"message\":\"{LEFT_OUT}\",\"left_out\":{lines},\"limit\":{limit}");
    for (name, value) in [("of", of), ("of_level", level), ("place", &place.as_str()), ("target", &TOLD)] {
        text(line, name, value);
    }
    line.extend_from_slice(b"}\n");
}

/// `{"timestamp":…,"level":…,"message":…,…,"target":…}`: the fields stand beside the message, not in an object of their own.
fn json(line: &mut Vec<u8>, event: &Event<'_>, context: Option<&Context>) {
    let metadata = event.metadata();
    begin(line, metadata.level().as_str());
    let mut fields = Fields { line, known: Known::default() };
    event.record(&mut fields);
    let Fields { line, known } = fields;
    if let Some(context) = context {
        identify(line, context, &known);
    }
    text(line, "target", metadata.target());
    line.extend_from_slice(b"}\n");
}

fn begin(line: &mut Vec<u8>, level: &str) {
    line.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(line);
    line.extend_from_slice(b"\",\"level\":\"");
    line.extend_from_slice(level.as_bytes());
    line.push(b'"');
}

/// Whom the line belongs to, as far as it doesn't say so itself.
fn identify(line: &mut Vec<u8>, context: &Context, known: &Known) {
    if let Some(trace) = context.trace() {
        if !known.trace {
            line.extend_from_slice(b",\"trace_id\":\"");
            hex(line, (trace.trace_id >> 64) as u64);
            hex(line, trace.trace_id as u64);
            line.push(b'"');
        }
        if !known.span {
            line.extend_from_slice(b",\"span_id\":\"");
            hex(line, trace.span_id);
            line.push(b'"');
        }
    }
    if let (Some(id), false) = (context.request_id(), known.request) {
        text(line, "request_id", id.as_str());
    }
    if let (Some(principal), false) = (context.principal(), known.principal) {
        text(line, "principal", &principal.subject);
    }
}

/// `number` in sixteen digits.
fn hex(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    while at > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    line.extend_from_slice(&digits);
}

thread_local! {
    /// A second since 1970, and how its timestamps begin: nearly every line is of the same second as the one before.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Now, as `2026-11-25T22:05:13.123456Z`.
fn timestamp(line: &mut Vec<u8>) {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let known = SECOND.try_with(|known| {
        let Ok(known) = known.try_borrow() else { return false };
        let same = known.0 == now.as_secs();
        if same {
            line.extend_from_slice(known.1.as_bytes());
        }
        same
    });
    if known.unwrap_or(false) {
        decimal(line, now.subsec_micros().into(), 6);
        return line.push(b'Z');
    }
    let mut whole = String::with_capacity(32);
    let _ = SystemTime.format_time(&mut Writer::new(&mut whole)); // a text takes whatever it is given
    line.extend_from_slice(whole.as_bytes());
    let after = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if after.as_secs() == now.as_secs()
        && let Some(point) = whole.find('.')
    {
        whole.truncate(point + 1);
        let _ = SECOND.try_with(|known| known.replace((now.as_secs(), whole)));
    }
}

/// `number` in at least `width` digits.
fn decimal(line: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let first = at.min(digits.len() - width);
    line.extend_from_slice(&digits[first..]);
}

/// As `{number}` writes it. What has at most nine digits behind the point and fifteen in all, as durations have, is its own
/// shortest form, and doesn't have to be searched for.
fn fraction(line: &mut Vec<u8>, number: f64) {
    const BILLION: f64 = 1e9;
    let billionths = (number * BILLION).round();
    if !(0.0..1e15).contains(&billionths) || billionths / BILLION != number || number.is_sign_negative() {
        let _ = write!(line, "{number}"); // a text takes whatever it is given
        return;
    }
    let billionths = billionths as u64;
    decimal(line, billionths / 1_000_000_000, 1);
    let fraction = billionths % 1_000_000_000;
    if fraction > 0 {
        line.push(b'.');
        decimal(line, fraction, 9);
        let zeros = line.iter().rev().take_while(|digit| **digit == b'0').count();
        line.truncate(line.len() - zeros);
    }
}

fn key(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    escape(line, name);
    line.extend_from_slice(b"\":");
}

fn text(line: &mut Vec<u8>, name: &str, value: &str) {
    key(line, name);
    line.push(b'"');
    escape(line, value);
    line.push(b'"');
}

/// Writes the fields of an event.
struct Fields<'a> {
    line: &'a mut Vec<u8>,
    known: Known,
}

impl Fields<'_> {
    /// The line, behind the key of `field`.
    fn key(&mut self, field: &Field) -> &mut Vec<u8> {
        self.known.note(field.name());
        key(self.line, field.name());
        self.line
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let line = self.key(field);
        line.push(b'"');
        let _ = Escaped(line).write_fmt(value); // a text takes whatever it is given
        line.push(b'"');
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.known.note(field.name());
        text(self.line, field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field).extend_from_slice(if value { &b"true"[..] } else { b"false" });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let line = self.key(field);
        if value < 0 {
            line.push(b'-');
        }
        decimal(line, value.unsigned_abs(), 1);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        decimal(self.key(field), value, 1);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        if value.is_finite() {
            fraction(self.key(field), value);
        } else {
            self.text(field, format_args!("{value}"));
        }
    }
}

/// Writes the inside of a JSON string.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

fn escape(line: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        return line.extend_from_slice(text.as_bytes());
    }
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        line.extend_from_slice(&text.as_bytes()[written..at]);
        match byte {
            b'"' => line.extend_from_slice(b"\\\""),
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            _ => {
                let _ = write!(line, "\\u{byte:04x}");
            }
        }
        written = at + 1;
    }
    line.extend_from_slice(&text.as_bytes()[written..]);
}

/// Whether nothing in `text` has to be escaped, as in nearly all there is. Looks at eight bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks();
    for word in words {
        if has_special(u64::from_le_bytes(*word)) {
            return false;
        }
    }
    let mut last = u64::from_le_bytes([b' '; 8]);
    for byte in rest {
        last = last << 8 | u64::from(*byte);
    }
    !has_special(last)
}

/// Whether one of eight bytes is below a space, a quote or a backslash. A byte that is less than another borrows from its own
/// highest bit when that is taken away; one that is equal to another is 0, which is less than 1, by exclusive or.
fn has_special(word: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = EACH << 7;
    let (quote, backslash) = (word ^ (EACH * b'"' as u64), word ^ (EACH * b'\\' as u64));
    let control = word.wrapping_sub(EACH * 0x20) & !word;
    (control | quote.wrapping_sub(EACH) & !quote | backslash.wrapping_sub(EACH) & !backslash) & HIGHEST != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_needs_it_is_found_wherever_it_stands() {
        for byte in 0..128_u8 {
            let special = byte < 0x20 || byte == b'"' || byte == b'\\';
            for at in 0..20 {
                let mut text = "é§ plain text ∀ 0~".repeat(2).into_bytes();
                text.insert(at * 2, byte);
                assert_eq!(is_plain(&text), !special, "{byte} at {at}");
            }
        }
        assert!(is_plain(b""));
    }

    #[test]
    fn numbers_are_written_as_display_writes_them() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut line = Vec::new();
            write(&mut line);
            String::from_utf8(line).unwrap()
        };
        for number in [0, 7, 10, 123_456, u64::MAX] {
            assert_eq!(written(&|line| decimal(line, number, 1)), number.to_string());
        }
        assert_eq!(written(&|line| decimal(line, 42, 6)), "000042");
        let odd = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1 + 0.2,
            1e-9,
            1.5e-9,
            1e-10,
            999_999.999_999_999,
            1e6,
            1e15,
            1e300,
            f64::MIN_POSITIVE,
        ];
        let durations =
            (0..100_000_u64).map(|step| std::time::Duration::from_nanos(step * step * 97 + step).as_secs_f64());
        for number in durations.chain(odd) {
            assert_eq!(written(&|line| fraction(line, number)), number.to_string());
        }
    }
}
