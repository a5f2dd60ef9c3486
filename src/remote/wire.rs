//! How is protobuf read without a generator? Field by field over a byte slice: nothing is copied, every length is
//! checked against what is there. (Wire format: protobuf.dev, "Encoding".)

/// Why bytes are not a protobuf message of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends inside a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A variable-length number has more than ten bytes or more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// Field number zero, or a wire type that is not in use.
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    /// A field has another wire type than its schema says.
    #[error("proto: wrong wire type of field {0}")]
    WireType(u32),
    /// A text is not UTF-8.
    #[error("proto: field {0} contains invalid UTF-8")]
    Utf8(u32),
    /// A count or reference is out of its limits.
    #[error("proto: {0}")]
    Limit(&'static str),
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Variable-length number.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Length-delimited bytes: text, message, packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The value as bytes.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::WireType(self.number)),
        }
    }

    /// The value as text.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8(self.number))
    }

    /// The value as an unsigned number.
    pub fn unsigned(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(v) => Ok(v),
            _ => Err(WireError::WireType(self.number)),
        }
    }

    /// The value as `int64` (also `int32` and enums).
    pub fn signed(&self) -> Result<i64, WireError> {
        self.unsigned().map(|v| v as i64)
    }

    /// The value as `sint64` (zigzag).
    pub fn zigzag(&self) -> Result<i64, WireError> {
        self.unsigned().map(unzigzag)
    }

    /// The value as `sint32` (zigzag); bits above 32 are dropped, as every decoder does.
    pub fn zigzag32(&self) -> Result<i32, WireError> {
        self.unsigned().map(unzigzag32)
    }

    /// The value as `double`.
    pub fn double(&self) -> Result<f64, WireError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WireError::WireType(self.number)),
        }
    }

    /// Feeds a repeated varint field, packed or not, to `each`.
    pub fn each_varint(&self, mut each: impl FnMut(u64) -> Result<(), WireError>) -> Result<(), WireError> {
        match self.value {
            Value::Varint(v) => each(v),
            Value::Bytes(bytes) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    each(take_varint(&mut rest)?)?;
                }
                Ok(())
            }
            _ => Err(WireError::WireType(self.number)),
        }
    }

    /// Feeds a repeated `double` field, packed or not, to `each`.
    pub fn each_double(&self, mut each: impl FnMut(f64)) -> Result<(), WireError> {
        match self.value {
            Value::Fixed64(bits) => each(f64::from_bits(bits)),
            Value::Bytes(bytes) => {
                let (chunks, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(WireError::Truncated);
                }
                for chunk in chunks {
                    each(f64::from_bits(u64::from_le_bytes(*chunk)));
                }
            }
            _ => return Err(WireError::WireType(self.number)),
        }
        Ok(())
    }
}

/// Undoes zigzag over 64 bits.
#[must_use]
pub fn unzigzag(v: u64) -> i64 {
    ((v >> 1) as i64) ^ -((v & 1) as i64)
}

fn unzigzag32(v: u64) -> i32 {
    let v = v as u32;
    ((v >> 1) as i32) ^ -((v & 1) as i32)
}

/// Takes one variable-length number off the front.
#[inline]
pub fn take_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    if let [first, tail @ ..] = *rest
        && *first < 0x80
    {
        *rest = tail;
        return Ok(u64::from(*first));
    }
    let mut value = 0u64;
    for (i, byte) in rest.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return Err(WireError::Overflow);
        }
        value |= bits << (7 * i);
        if *byte < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { WireError::Truncated } else { WireError::Overflow })
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], WireError> {
    let len = usize::try_from(len).map_err(|_| WireError::Truncated)?;
    let (taken, left) = rest.split_at_checked(len).ok_or(WireError::Truncated)?;
    *rest = left;
    Ok(taken)
}

/// Iterates over the fields of a message.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of this message.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field; `None` at the end.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take_varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n != 0 && *n < 1 << 29);
        let number = number.ok_or(WireError::Tag(tag))?;
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut self.rest)?),
            1 => {
                let (bytes, left) = self.rest.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
                self.rest = left;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let len = take_varint(&mut self.rest)?;
                Value::Bytes(take(&mut self.rest, len)?)
            }
            5 => {
                let (bytes, left) = self.rest.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
                self.rest = left;
                Value::Fixed32(u32::from_le_bytes(*bytes))
            }
            _ => return Err(WireError::Tag(tag)),
        };
        Ok(Some(Field { number, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some(field)) = fields.next_field() {
                let _ = (field.text(), field.signed(), field.double());
                let _ = field.each_varint(|_| Ok(()));
                let _ = field.each_double(|_| ());
            }
        }

        #[test]
        fn reads_what_prost_writes(v in any::<u64>(), s in any::<i64>(), small in any::<i32>()) {
            let mut bytes = Vec::new();
            prost::encoding::uint64::encode(1, &v, &mut bytes);
            prost::encoding::sint64::encode(2, &s, &mut bytes);
            prost::encoding::sint32::encode(3, &small, &mut bytes);
            prost::encoding::sint64::encode_packed(4, &[s, -s / 2], &mut bytes);
            let mut fields = Fields::new(&bytes);
            let mut next = || fields.next_field().unwrap().unwrap();
            prop_assert_eq!(next().unsigned(), Ok(v));
            prop_assert_eq!(next().zigzag(), Ok(s));
            prop_assert_eq!(next().zigzag32(), Ok(small));
            let mut packed = Vec::new();
            next().each_varint(|v| { packed.push(unzigzag(v)); Ok(()) }).unwrap();
            prop_assert_eq!(packed, vec![s, -s / 2]);
            prop_assert_eq!(fields.next_field(), Ok(None));
        }
    }

    #[test]
    fn refuses_broken_messages() {
        for (bytes, want) in [
            (&[0x0a][..], WireError::Truncated),
            (&[0x0a, 5, 1], WireError::Truncated),
            (&[0x09, 1, 2], WireError::Truncated),
            (&[0x00], WireError::Tag(0)),
            (&[0x0b], WireError::Tag(11)),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], WireError::Overflow),
        ] {
            assert_eq!(Fields::new(bytes).next_field(), Err(want), "{bytes:?}");
        }
    }
}
