//! How is protobuf written without a generator? Fields are appended to a buffer; messages inside messages are built in
//! a buffer of their own. Zero values are left out, as generated code does.

/// Appends a variable-length number.
pub fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Zigzag over 64 bits, for `sint` fields.
#[must_use]
pub fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// A field that holds bytes: text, message, packed numbers. Empty ones are written.
pub fn bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A text field.
pub fn text(out: &mut Vec<u8>, number: u32, content: &str) {
    if !content.is_empty() {
        bytes(out, number, content.as_bytes());
    }
}

/// An unsigned number, a flag or an enum.
pub fn unsigned(out: &mut Vec<u8>, number: u32, v: u64) {
    if v != 0 {
        varint(out, u64::from(number) << 3);
        varint(out, v);
    }
}

/// An `int64`.
pub fn signed(out: &mut Vec<u8>, number: u32, v: i64) {
    unsigned(out, number, v as u64);
}

/// A `fixed64`.
pub fn fixed64(out: &mut Vec<u8>, number: u32, v: u64) {
    if v != 0 {
        varint(out, u64::from(number) << 3 | 1);
        out.extend_from_slice(&v.to_le_bytes());
    }
}

/// A `double`; `always` writes zero too, as members of a `oneof` need it.
pub fn double(out: &mut Vec<u8>, number: u32, v: f64, always: bool) {
    if always || v.to_bits() != 0 {
        varint(out, u64::from(number) << 3 | 1);
        out.extend_from_slice(&v.to_le_bytes());
    }
}

/// Packed varints.
pub fn packed(out: &mut Vec<u8>, number: u32, values: impl IntoIterator<Item = u64>) {
    let mut content = Vec::new();
    values.into_iter().for_each(|v| varint(&mut content, v));
    if !content.is_empty() {
        bytes(out, number, &content);
    }
}

/// Packed doubles.
pub fn packed_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    if !values.is_empty() {
        varint(out, u64::from(number) << 3 | 2);
        varint(out, values.len() as u64 * 8);
        values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }
}
