//! The protobuf wire format, read in place. Fields that a message does not have are skipped; those that it has must
//! be coded as it says.

use super::messages::{Coding, Message};

/// Bytes of the body, and where in it they begin.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

/// The value of one field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(Part<'a>),
    Fixed32,
    /// No message that is read here has any.
    Group,
}

/// The bytes are not protobuf, or not of the message they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WireError {
    what: String,
    at: usize,
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "protobuf: {} at byte {}", self.what, self.at)
    }
}

impl<'a> Part<'a> {
    #[cold]
    pub fn error(self, what: impl Into<String>) -> WireError {
        WireError { what: what.into(), at: self.at }
    }

    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes bytes off the front.
    fn take(&mut self, len: usize) -> Option<Part<'a>> {
        let (bytes, rest) = self.bytes.split_at_checked(len)?;
        let at = self.at;
        *self = Part { bytes: rest, at: at + len };
        Some(Part { bytes, at })
    }

    /// Takes a varint off the front.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, byte) in self.bytes.iter().enumerate().take(10) {
            if i == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                *self = Part { bytes: &self.bytes[i + 1..], at: self.at + i + 1 };
                return Ok(value);
            }
        }
        Err(self.error("invalid varint"))
    }

    /// Takes a length and that many bytes off the front.
    pub fn delimited(&mut self) -> Result<Part<'a>, WireError> {
        let begin = *self;
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| begin.error("length out of range"))?;
        self.take(len).ok_or_else(|| begin.error("a length that reaches beyond the end of the message"))
    }

    fn fixed64(&mut self) -> Result<u64, WireError> {
        let (bytes, _) = self.bytes.split_first_chunk().ok_or_else(|| self.error("a cut fixed64"))?;
        self.take(8);
        Ok(u64::from_le_bytes(*bytes))
    }

    fn skip_fixed32(&mut self) -> Result<(), WireError> {
        let part = *self;
        self.take(4).map(|_| ()).ok_or_else(|| part.error("a cut fixed32"))
    }

    /// Skips fields up to the end of a group that has begun, those of groups within too.
    fn skip_group(&mut self) -> Result<(), WireError> {
        let mut depth = 1u64;
        while depth > 0 {
            let begin = *self;
            match self.varint()? & 7 {
                0 => _ = self.varint()?,
                1 => _ = self.fixed64()?,
                2 => _ = self.delimited()?,
                3 => depth += 1,
                4 => depth -= 1,
                5 => self.skip_fixed32()?,
                other => return Err(begin.error(format!("unknown wire type {other}"))),
            }
        }
        Ok(())
    }
}

/// Calls `each` with the number and value of every field that the message has.
pub(super) fn fields<'a, E: From<WireError>>(
    message: &Message,
    mut part: Part<'a>,
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), E>,
) -> Result<(), E> {
    while !part.is_empty() {
        let begin = part;
        let key = part.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| begin.error("field number out of range"))?;
        if number == 0 {
            return Err(begin.error("field number 0").into());
        }
        let value = match key & 7 {
            0 => Value::Varint(part.varint()?),
            1 => Value::Fixed64(part.fixed64()?),
            2 => Value::Bytes(part.delimited()?),
            3 => {
                part.skip_group()?;
                Value::Group
            }
            5 => {
                part.skip_fixed32()?;
                Value::Fixed32
            }
            other => return Err(begin.error(format!("unknown wire type {other}")).into()),
        };
        let Some((name, coding)) = message.field(number) else { continue };
        if !value.is(coding) {
            let (found, message) = (value.wire_type(), message.name);
            let what = format!("field {message}.{name} has wire type {found} instead of {coding}");
            return Err(begin.error(what).into());
        }
        each(number, value)?;
    }
    Ok(())
}

/// Checks a field whose content is not needed, and what is within: the nesting ends with that of the definitions.
pub(super) fn check_field(message: &Message, number: u32, value: Value<'_>) -> Result<(), WireError> {
    match message.field(number) {
        Some((_, Coding::Message(inner))) => {
            fields(inner, value.bytes(), |number, value| check_field(inner, number, value))
        }
        _ => Ok(()),
    }
}

/// Undoes zigzag coding.
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

impl<'a> Value<'a> {
    fn is(self, coding: Coding) -> bool {
        match self {
            Value::Varint(_) => matches!(coding, Coding::Varint | Coding::Varints),
            Value::Fixed64(_) => matches!(coding, Coding::Double | Coding::Doubles),
            Value::Bytes(_) => !matches!(coding, Coding::Varint | Coding::Double),
            Value::Fixed32 | Value::Group => false,
        }
    }

    fn wire_type(self) -> &'static str {
        match self {
            Value::Varint(_) => "varint",
            Value::Fixed64(_) => "64-bit",
            Value::Bytes(_) => "length-delimited",
            Value::Fixed32 => "32-bit",
            Value::Group => "group",
        }
    }

    /// What a text or a message holds.
    pub fn bytes(self) -> Part<'a> {
        match self {
            Value::Bytes(part) => part,
            _ => Part::default(),
        }
    }

    /// What a field of [`Coding::Varint`] holds.
    pub fn varint(self) -> u64 {
        match self {
            Value::Varint(value) => value,
            _ => 0,
        }
    }

    /// What a field of [`Coding::Double`] holds.
    pub fn double(self) -> f64 {
        match self {
            Value::Fixed64(bits) => f64::from_bits(bits),
            _ => 0.0,
        }
    }
}
