//! Bodies of OTLP in JSON as protobuf, by a table of fields (`testdata/otlp/schema.txt`), so that one set of bodies serves
//! receivers of both kinds.

use std::collections::HashMap;

use serde_json::Value;

type Fields = HashMap<String, (u64, String)>;

/// The table of messages.
pub struct Schema(HashMap<String, Fields>);

impl Schema {
    pub fn load() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/otlp/schema.txt");
        let text = std::fs::read_to_string(path).expect("the table is there");
        let message = |line: &str| {
            let (name, fields) = line.split_once(' ').expect("a message");
            let field = |text: &str| {
                let mut parts = text.split(':').map(str::to_owned);
                let mut next = || parts.next().expect("name, number, kind");
                (next(), (next().parse().expect("a number"), next()))
            };
            (name.to_owned(), fields.split(' ').map(field).collect())
        };
        Self(text.lines().filter(|l| !l.starts_with('#')).map(message).collect())
    }

    /// An export request.
    pub fn encode(&self, body: &[u8]) -> Vec<u8> {
        let json = serde_json::from_slice(body).expect("JSON");
        self.message("Export", &json)
    }

    fn message(&self, name: &str, json: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        for (field, value) in json.as_object().expect("an object") {
            let (number, kind) = self.0[name].get(field).unwrap_or_else(|| panic!("{name} has no {field}"));
            match value.as_array().filter(|_| !kind.starts_with("packed")) {
                Some(values) => values.iter().for_each(|v| self.field(*number, kind, v, &mut out)),
                None => self.field(*number, kind, value, &mut out),
            }
        }
        out
    }

    fn field(&self, number: u64, kind: &str, value: &Value, out: &mut Vec<u8>) {
        let mut tag = |wire: u64| varint((number << 3) | wire, out);
        match kind {
            "varint" => {
                tag(0);
                varint(whole(value) as u64, out);
            }
            "zigzag" => {
                tag(0);
                let n = whole(value);
                varint(((n << 1) ^ (n >> 63)) as u64, out);
            }
            "fixed" => {
                tag(1);
                out.extend(whole(value).to_le_bytes());
            }
            "double" => {
                tag(1);
                out.extend(double(value).to_le_bytes());
            }
            _ => {
                tag(2);
                let bytes = self.bytes(kind, value);
                varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
        }
    }

    fn bytes(&self, kind: &str, value: &Value) -> Vec<u8> {
        let text = || value.as_str().expect("a text");
        let list = || value.as_array().expect("a list").iter();
        match kind {
            "text" => text().into(),
            "hex" => text().as_bytes().chunks(2).map(hex).collect(),
            "packed-fixed" => list().flat_map(|v| whole(v).to_le_bytes()).collect(),
            "packed-double" => list().flat_map(|v| double(v).to_le_bytes()).collect(),
            "packed-varint" => {
                let mut out = Vec::new();
                list().for_each(|v| varint(whole(v) as u64, &mut out));
                out
            }
            message => self.message(message, value),
        }
    }
}

fn hex(two: &[u8]) -> u8 {
    std::str::from_utf8(two).ok().and_then(|t| u8::from_str_radix(t, 16).ok()).expect("hexadecimal digits")
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n > 127 {
        out.push((n as u8 & 127) | 128);
        n >>= 7;
    }
    out.push(n as u8);
}

fn whole(value: &Value) -> i64 {
    match value {
        Value::Bool(yes) => i64::from(*yes),
        Value::String(text) if text == "AGGREGATION_TEMPORALITY_DELTA" => 1,
        Value::String(text) if text == "AGGREGATION_TEMPORALITY_CUMULATIVE" => 2,
        Value::String(text) => text.parse().expect("a whole number"),
        value => value.as_i64().expect("a whole number"),
    }
}

fn double(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).expect("a number")
}
