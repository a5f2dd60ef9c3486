//! How are JSON texts written without a tree in between? By appending to a byte buffer: strings escaped, numbers
//! as Prometheus prints them.

use crate::model::Labels;
use crate::model::number::{extend_short, put_integer, write_api, write_integer};

/// Appends `text` as a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (i, byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f | 0x7f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain_from..i]);
        plain_from = i + 1;
        if escaped.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escaped);
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

/// Appends a whole number.
pub fn integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_integer(out, number.unsigned_abs());
}

/// Appends a float as a JSON number; what JSON has no number for becomes 0.
pub fn float(out: &mut Vec<u8>, number: f64) {
    let number = if number.is_finite() { number } else { 0.0 };
    write_api(out, number);
}

/// Bytes that hold every timestamp.
pub const TIMESTAMP_BYTES: usize = 24;

/// Appends milliseconds as seconds: `1435781451`, or `1435781451.781` with exactly three decimals.
pub fn timestamp(out: &mut Vec<u8>, t_ms: i64) {
    let mut room = [0; TIMESTAMP_BYTES];
    let len = put_timestamp(&mut room, t_ms);
    extend_short(out, &room, len);
}

/// Puts a [`timestamp`] at the beginning of `room` and answers how long it is.
#[inline]
pub fn put_timestamp(room: &mut [u8; TIMESTAMP_BYTES], t_ms: i64) -> usize {
    let t = t_ms.unsigned_abs();
    let mut digits = [0; 20];
    let mut len = put_integer(&mut digits, t / 1000);
    let sign = usize::from(t_ms < 0);
    room[0] = b'-';
    room[sign..sign + 20].copy_from_slice(&digits);
    len += sign;
    if !t.is_multiple_of(1000) {
        let ms = t % 1000;
        let decimals = [b'.', b'0' + (ms / 100) as u8, b'0' + (ms / 10 % 10) as u8, b'0' + (ms % 10) as u8];
        room[len..len + 4].copy_from_slice(&decimals);
        len += 4;
    }
    len
}

/// Appends a sample value: a number inside quotes.
pub fn sample_value(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    write_api(out, value);
    out.push(b'"');
}

/// Appends a label set as an object.
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    pairs(out, labels.iter().map(|l| (l.name, l.value)));
}

/// Appends an object of strings.
pub fn pairs<'a>(out: &mut Vec<u8>, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    out.push(b'{');
    for (i, (name, value)) in pairs.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// Appends an array of strings.
pub fn strings<'a>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    list(out, texts, string);
}

/// Appends an array whose elements `write` appends.
pub fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes the fields of one object, commas included.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens the object.
    pub fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Starts a field and hands out the buffer for its value.
    pub fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A field with a string.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        string(self.key(name), value);
        self
    }

    /// A field with a whole number.
    pub fn integer(&mut self, name: &str, value: i64) -> &mut Self {
        integer(self.key(name), value);
        self
    }

    /// A field with a float.
    pub fn float(&mut self, name: &str, value: f64) -> &mut Self {
        float(self.key(name), value);
        self
    }

    /// A field with a boolean.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.key(name).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// Closes the object.
    pub fn close(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn escapes_what_json_must_escape() {
        for text in ["", "plain", "\"\\\n\r\t", "\u{0}\u{1f}\u{7f}", "é漢😀<>&"] {
            let json = written(|out| string(out, text));
            assert_eq!(serde_json::from_str::<String>(&json).expect("valid JSON"), text);
        }
    }

    #[test]
    fn timestamps_have_no_or_three_decimals() {
        for (t_ms, want) in [
            (0, "0"),
            (1_435_781_451_781, "1435781451.781"),
            (1_500, "1.500"),
            (1_005, "1.005"),
            (-1_500, "-1.500"),
            (-1, "-0.001"),
        ] {
            assert_eq!(written(|out| timestamp(out, t_ms)), want);
        }
    }
}
