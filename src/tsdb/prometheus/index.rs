//! Prometheus's index file, versions 1 and 2, read in place.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::tsdb::block::bytes::{DecodeError, Input, Result};

pub(super) const MAGIC: u32 = 0xBAAA_D700;
pub(super) const TOC_LEN: usize = 6 * 8 + 4;
const MAX_LABELS: usize = 1 << 16;
/// Every n-th symbol's place is kept.
const SYMBOL_STEP: usize = 32;

/// A value of a label: its text in the file and where its postings are.
#[derive(Debug, Clone)]
struct ValueEntry {
    text: Range<usize>,
    postings: usize,
}

/// What is kept in memory of an index.
#[derive(Debug)]
pub struct Index {
    version: u8,
    symbols: Vec<usize>,
    symbol_count: usize,
    /// Values by label name, sorted; the empty name holds the list of all series.
    values: BTreeMap<String, Vec<ValueEntry>>,
}

/// A chunk as the index knows it.
#[derive(Debug, Clone, Copy)]
pub struct ChunkMeta {
    /// First timestamp.
    pub min_t_ms: i64,
    /// Last timestamp.
    pub max_t_ms: i64,
    /// Segment in the upper 32 bits, offset in the lower.
    pub reference: u64,
}

/// Labels as pairs of name and value, and chunks.
pub type Series = (Vec<(String, String)>, Vec<ChunkMeta>);

/// A section: big-endian length, content, checksum.
fn section(file: &[u8], at: usize) -> Result<(Input<'_>, usize)> {
    let mut input = Input::new(file.get(at..).ok_or(DecodeError("section lies outside the index"))?);
    let len = input.u32_be()? as usize;
    let content = input.bytes(len)?;
    if crc32c::crc32c(content) != input.u32_be()? {
        return Err(DecodeError("checksum of a section does not match"));
    }
    Ok((Input::new(content), at + 4))
}

fn text<'a>(input: &mut Input<'a>) -> Result<&'a str> {
    let len = input.count(input.len())?;
    std::str::from_utf8(input.bytes(len)?).map_err(|_| DecodeError("text is not UTF-8"))
}

impl Index {
    /// Reads the tables of an index file.
    pub fn open(file: &[u8]) -> Result<Self> {
        let mut header = Input::new(file);
        if header.u32_be()? != MAGIC {
            return Err(DecodeError("file does not begin as an index"));
        }
        let version = header.u8()?;
        if !(1..=2).contains(&version) {
            return Err(DecodeError("index has a version that this program does not read"));
        }
        let toc_at = file.len().checked_sub(TOC_LEN).ok_or(DecodeError("index is too short"))?;
        let toc = file.get(toc_at..).unwrap_or_default();
        let (body, crc) = toc.split_at(TOC_LEN - 4);
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return Err(DecodeError("checksum of the table of contents does not match"));
        }
        let mut body = Input::new(body);
        let mut places = [0usize; 6];
        for place in &mut places {
            *place = usize::try_from(body.u64_be()?).map_err(|_| DecodeError("impossible offset"))?;
        }
        let [symbols_at, _, _, _, _, table_at] = places;

        let (mut input, start) = section(file, symbols_at)?;
        let content_len = input.len();
        let symbol_count = input.u32_be()? as usize;
        let mut symbols = Vec::new();
        for i in 0..symbol_count {
            if i % SYMBOL_STEP == 0 {
                symbols.push(start + content_len - input.len());
            }
            text(&mut input)?;
        }
        let (mut input, start) = section(file, table_at)?;
        let content_len = input.len();
        let mut values: BTreeMap<String, Vec<ValueEntry>> = BTreeMap::new();
        let mut last: Option<(String, Vec<ValueEntry>)> = None;
        for _ in 0..input.u32_be()? {
            if input.varint()? != 2 {
                return Err(DecodeError("postings table has an entry without two keys"));
            }
            let name = text(&mut input)?;
            let value_len = text(&mut input)?.len();
            let end = start + content_len - input.len();
            let postings = usize::try_from(input.varint()?).map_err(|_| DecodeError("impossible offset"))?;
            let entry = ValueEntry { text: end - value_len..end, postings };
            match &mut last {
                Some((known, entries)) if known == name => entries.push(entry),
                _ => {
                    values.extend(last.take());
                    last = Some((name.to_owned(), vec![entry]));
                }
            }
        }
        values.extend(last);
        Ok(Self { version, symbols, symbol_count, values })
    }

    /// The symbol a series refers to.
    fn symbol<'a>(&self, file: &'a [u8], reference: u64) -> Result<&'a str> {
        let reference = usize::try_from(reference).map_err(|_| DecodeError("unknown symbol"))?;
        let at = |at: usize| file.get(at..).map(Input::new).ok_or(DecodeError("unknown symbol"));
        if self.version == 1 {
            return text(&mut at(reference)?);
        }
        if reference >= self.symbol_count {
            return Err(DecodeError("unknown symbol"));
        }
        let place = self.symbols.get(reference / SYMBOL_STEP).ok_or(DecodeError("unknown symbol"))?;
        let mut input = at(*place)?;
        for _ in 0..reference % SYMBOL_STEP {
            text(&mut input)?;
        }
        text(&mut input)
    }

    /// Label names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str).filter(|n| !n.is_empty())
    }

    /// Values of a label, sorted, with the place of their postings.
    pub fn values<'a>(&'a self, file: &'a [u8], name: &str) -> impl Iterator<Item = (&'a str, usize)> {
        self.values.get(name).into_iter().flatten().map(move |entry| {
            // Was checked to be UTF-8 at opening; the map does not change.
            let text = file.get(entry.text.clone()).and_then(|b| std::str::from_utf8(b).ok());
            (text.unwrap_or_default(), entry.postings)
        })
    }

    /// The place of the postings of one value.
    pub fn find(&self, file: &[u8], name: &str, value: &str) -> Option<usize> {
        let entries = self.values.get(name)?;
        let at =
            entries.binary_search_by(|e| file.get(e.text.clone()).unwrap_or_default().cmp(value.as_bytes()));
        at.ok().and_then(|at| entries.get(at)).map(|e| e.postings)
    }

    /// Appends the series of a posting list.
    pub fn postings(file: &[u8], at: usize, out: &mut Vec<u32>) -> Result<()> {
        let (mut input, _) = section(file, at)?;
        let count = input.u32_be()? as usize;
        let bytes = input.bytes(count.checked_mul(4).ok_or(DecodeError("too many postings"))?)?;
        out.extend(bytes.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])));
        Ok(())
    }

    /// Labels and chunks of a series.
    pub fn series(&self, file: &[u8], id: u32) -> Result<Series> {
        let at = if self.version == 1 { id as usize } else { id as usize * 16 };
        let mut input = Input::new(file.get(at..).ok_or(DecodeError("series lies outside the index"))?);
        let len = input.count(input.len())?;
        let content = input.bytes(len)?;
        if crc32c::crc32c(content) != input.u32_be()? {
            return Err(DecodeError("checksum of a series does not match"));
        }
        let mut input = Input::new(content);
        let mut labels = Vec::new();
        for _ in 0..input.count(MAX_LABELS)? {
            let (name, value) = (input.varint()?, input.varint()?);
            labels.push((self.symbol(file, name)?.to_owned(), self.symbol(file, value)?.to_owned()));
        }
        let mut chunks: Vec<ChunkMeta> = Vec::new();
        for i in 0..input.count(content.len())? {
            let (min, reference) = match chunks.last() {
                None => (input.zigzag()?, None),
                Some(last) => {
                    (last.max_t_ms.wrapping_add(input.varint()?.cast_signed()), Some(last.reference))
                }
            };
            let max = min.wrapping_add(input.varint()?.cast_signed());
            let reference = match reference {
                None => input.varint()?,
                Some(last) => last.wrapping_add(input.zigzag()?.cast_unsigned()),
            };
            debug_assert!(i == chunks.len());
            chunks.push(ChunkMeta { min_t_ms: min, max_t_ms: max, reference });
        }
        Ok((labels, chunks))
    }
}
