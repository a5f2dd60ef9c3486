//! DNS messages (RFC 1035, EDNS0 of RFC 6891): one question out, the records of an answer in.

/// Kinds of record that discovery asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordType {
    A = 1,
    Ns = 2,
    Mx = 15,
    Aaaa = 28,
    Srv = 33,
}

/// What a record says; names end with a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(std::net::IpAddr),
    NameServer(String),
    MailServer(String),
    Service { target: String, port: u16 },
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Response code: 0 is success, 3 means that the name does not exist.
    pub(super) code: u8,
    /// The answer did not fit; ask again over TCP.
    pub(super) truncated: bool,
    pub(super) records: Vec<Record>,
}

/// Longest answer over UDP that is asked for.
pub(super) const UDP_SIZE: u16 = 4096;
/// Longest name, RFC 1035 §2.3.4.
const MAX_NAME: usize = 255;
/// Most pointers followed in one name.
const MAX_POINTERS: usize = 32;

/// A question for `name`, which should end with a dot.
pub(super) fn question(id: u16, name: &str, record: RecordType) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&id.to_be_bytes());
    // Recursion desired; one question, one additional record.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let start = out.len();
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len));
        out.push(len.ok_or_else(|| format!("{name:?} is not a DNS name"))?);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    if out.len() - start > MAX_NAME {
        return Err(format!("{name:?} is longer than {MAX_NAME} bytes"));
    }
    out.extend_from_slice(&(record as u16).to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    // OPT record: empty name, type 41, our UDP size, no flags, no data.
    out.extend_from_slice(&[0, 0, 41]);
    out.extend_from_slice(&UDP_SIZE.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
    Ok(out)
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn bytes(&mut self, len: usize) -> Option<&'m [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    /// A name, with pointers followed.
    fn name(&mut self) -> Option<String> {
        let mut out = String::new();
        let mut at = self.at;
        let mut end = None;
        let mut pointers = 0;
        loop {
            let len = usize::from(*self.message.get(at)?);
            match len {
                0 => {
                    self.at = end.unwrap_or(at + 1);
                    return Some(if out.is_empty() { ".".into() } else { out });
                }
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + len)?;
                    out.push_str(&String::from_utf8_lossy(label));
                    out.push('.');
                    at += 1 + len;
                }
                0xc0.. => {
                    pointers += 1;
                    end.get_or_insert(at + 2);
                    at = (len & 0x3f) << 8 | usize::from(*self.message.get(at + 1)?);
                }
                _ => return None,
            }
            if pointers > MAX_POINTERS || out.len() > MAX_NAME {
                return None;
            }
        }
    }
}

/// Reads an answer to the question with this id. `None` if it is none or is malformed.
pub(super) fn answer(id: u16, record: RecordType, message: &[u8]) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let answer_id = reader.u16()?;
    let flags = reader.u16()?;
    if answer_id != id || flags & 0x8000 == 0 {
        return None;
    }
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.bytes(4)?;
    for _ in 0..questions {
        reader.name()?;
        reader.bytes(4)?;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        reader.name()?;
        let kind = reader.u16()?;
        reader.bytes(6)?;
        let len = usize::from(reader.u16()?);
        let end = reader.at + len;
        if kind == record as u16 {
            records.push(match record {
                RecordType::A => {
                    Record::Address(<[u8; 4]>::try_from(reader.message.get(reader.at..end)?).ok()?.into())
                }
                RecordType::Aaaa => {
                    Record::Address(<[u8; 16]>::try_from(reader.message.get(reader.at..end)?).ok()?.into())
                }
                RecordType::Ns => Record::NameServer(reader.name()?),
                RecordType::Mx => {
                    reader.bytes(2)?;
                    Record::MailServer(reader.name()?)
                }
                RecordType::Srv => {
                    reader.bytes(4)?;
                    let port = reader.u16()?;
                    Record::Service { target: reader.name()?, port }
                }
            });
        }
        reader.at = end;
    }
    Some(Answer { code: (flags & 15) as u8, truncated: flags & 0x200 != 0, records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn srv_records_with_pointers_are_read() {
        let mut message = question(7, "_http._tcp.example.org.", RecordType::Srv).unwrap();
        message[2] |= 0x80;
        message[7] = 1;
        message.truncate(message.len() - 11);
        message
            .extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10, 0, 1, 0, 2, 0x23, 0x8c, 1, b'a', 0xc0, 23]);
        let answer = answer(7, RecordType::Srv, &message).unwrap();
        assert_eq!(answer.records, [Record::Service { target: "a.example.org.".into(), port: 9100 }]);
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for record in [RecordType::A, RecordType::Srv, RecordType::Mx, RecordType::Aaaa, RecordType::Ns] {
                let _ = answer(u16::from_be_bytes([*bytes.first().unwrap_or(&0), *bytes.get(1).unwrap_or(&0)]), record, &bytes);
            }
        }
    }
}
