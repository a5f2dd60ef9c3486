//! The protobuf wire format, read in place.

/// The value of one field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The bytes are not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireError(pub &'static str);

/// Reads a varint off the front.
pub(super) fn varint(input: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for (i, byte) in input.iter().enumerate().take(10) {
        if i == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Ok(value);
        }
    }
    Err(WireError("invalid varint"))
}

/// Reads a length and that many bytes off the front.
pub(super) fn delimited<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let len = varint(input)?;
    let len = usize::try_from(len).map_err(|_| WireError("length out of range"))?;
    let (bytes, rest) =
        input.split_at_checked(len).ok_or(WireError("a length reaches beyond the end of the message"))?;
    *input = rest;
    Ok(bytes)
}

/// Calls `each` with the number and value of every field of a message.
pub(super) fn fields<'a, E: From<WireError>>(
    mut message: &'a [u8],
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), E>,
) -> Result<(), E> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let number = u32::try_from(key >> 3).map_err(|_| WireError("field number out of range"))?;
        if number == 0 {
            return Err(WireError("field number 0").into());
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut message)?),
            1 => {
                let (bytes, rest) = message.split_first_chunk().ok_or(WireError("a fixed64 is cut"))?;
                message = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => Value::Bytes(delimited(&mut message)?),
            5 => {
                let (bytes, rest) = message.split_first_chunk().ok_or(WireError("a fixed32 is cut"))?;
                message = rest;
                Value::Fixed32(u32::from_le_bytes(*bytes))
            }
            _ => return Err(WireError("unknown wire type").into()),
        };
        each(number, value)?;
    }
    Ok(())
}

/// Undoes zigzag coding.
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field, empty otherwise.
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The value of a varint, 0 otherwise.
    pub(super) fn varint(self) -> u64 {
        match self {
            Value::Varint(value) => value,
            Value::Fixed32(value) => u64::from(value),
            _ => 0,
        }
    }

    /// The value of a double, 0 otherwise.
    pub(super) fn double(self) -> f64 {
        match self {
            Value::Fixed64(bits) => f64::from_bits(bits),
            _ => 0.0,
        }
    }
}
