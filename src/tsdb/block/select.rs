//! Which series of a block satisfy matchers? Values are matched, not series: each distinct value of a label is
//! looked at once, and posting lists are intersected smallest first.

use roaring::RoaringBitmap;

use crate::model::{MatchOp, Matcher};
use crate::tsdb::StorageError;

use super::bytes::{DecodeError, Input};
use super::format::Part;
use super::page::INLINE_POSTING;
use super::postings::Postings;
use super::reader::Block;
use super::symbols::Symbols;

const NAME_ENTRY: usize = 20;
const VALUE_ENTRY: usize = 8;

/// The values of one label name: ascending symbols, each with its posting list.
#[derive(Debug, Clone, Copy)]
struct ValueTable<'a> {
    bytes: &'a [u8],
}

impl ValueTable<'_> {
    fn len(&self) -> usize {
        self.bytes.len() / VALUE_ENTRY
    }

    /// Symbol and posting reference of entry `i`.
    fn entry(&self, i: usize) -> (u32, u32) {
        let mut input = Input::new(self.bytes.get(i * VALUE_ENTRY..).unwrap_or_default());
        (input.u32().unwrap_or(u32::MAX), input.u32().unwrap_or(INLINE_POSTING))
    }

    /// First entry whose symbol is not below `symbol`.
    fn lower_bound(&self, symbol: u32) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.entry(middle).0 < symbol { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn find(&self, symbol: u32) -> Option<u32> {
        let at = self.lower_bound(symbol);
        (at < self.len() && self.entry(at).0 == symbol).then(|| self.entry(at).1)
    }
}

impl Block {
    fn value_table(&self, name_symbol: u32) -> Result<Option<ValueTable<'_>>, StorageError> {
        let names = self.part(Part::Names)?;
        let count = names.len() / NAME_ENTRY;
        let symbol_at =
            |i: usize| Input::new(names.get(i * NAME_ENTRY..).unwrap_or_default()).u32().unwrap_or(u32::MAX);
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if symbol_at(middle) < name_symbol { low = middle + 1 } else { high = middle }
        }
        if low == count || symbol_at(low) != name_symbol {
            return Ok(None);
        }
        let mut entry = Input::new(names.get(low * NAME_ENTRY + 4..).unwrap_or_default());
        let read = |e| self.corrupt(Part::Names, e);
        let len = entry.u32().map_err(read)? as usize * VALUE_ENTRY;
        let offset = entry.u64().map_err(read)? as usize;
        let crc = entry.u32().map_err(read)?;
        let bytes = self.raw_part(Part::Values).get(offset..).and_then(|b| b.get(..len));
        let bytes = bytes.filter(|b| crc32fast::hash(b) == crc);
        let bytes = bytes.ok_or_else(|| {
            self.corrupt(Part::Values, DecodeError("checksum of a value table does not match"))
        })?;
        Ok(Some(ValueTable { bytes }))
    }

    fn postings(&self, reference: u32) -> Result<Postings<'_>, StorageError> {
        let bytes = self.raw_part(Part::Postings).get(reference as usize..).unwrap_or_default();
        Postings::open(bytes).map_err(|e| self.corrupt(Part::Postings, e))
    }

    fn add_postings(&self, reference: u32, out: &mut Vec<u32>) -> Result<(), StorageError> {
        if reference & INLINE_POSTING != 0 {
            out.push(reference & !INLINE_POSTING);
            return Ok(());
        }
        self.postings(reference)?.read(out).map_err(|e| self.corrupt(Part::Postings, e))
    }

    /// The posting references of the values of a label for which `wanted` holds; `matcher` narrows the search.
    fn references(
        &self,
        symbols: Symbols<'_>,
        table: ValueTable<'_>,
        matcher: &Matcher,
        wanted: bool,
    ) -> Result<Vec<u32>, StorageError> {
        let read = |e| self.corrupt(Part::Symbols, e);
        let mut out = Vec::new();
        let mut exact = |text: &str| -> Result<(), StorageError> {
            if let Some(symbol) = symbols.find(text).map_err(read)? {
                out.extend(table.find(symbol));
            }
            Ok(())
        };
        // Whether the wanted values are those that the pattern or text itself names.
        let named = wanted == matches!(matcher.op, MatchOp::Equal | MatchOp::Regex);
        let mut range = 0..table.len();
        if named {
            let Some(regex) = matcher.regex() else {
                exact(&matcher.value)?;
                return Ok(out);
            };
            if let Some(texts) = regex.literal_set() {
                for text in texts {
                    exact(text)?;
                }
                return Ok(out);
            }
            let within = symbols.with_prefix(regex.prefix()).map_err(read)?;
            range = table.lower_bound(within.start)..table.lower_bound(within.end);
        }
        self.each_value(symbols, table, range, |text, reference| {
            if matcher.matches(text) == wanted {
                out.push(reference);
            }
            true
        })?;
        Ok(out)
    }

    /// Runs `each` over texts and posting references of a range of values until it answers false.
    fn each_value(
        &self,
        symbols: Symbols<'_>,
        table: ValueTable<'_>,
        range: std::ops::Range<usize>,
        mut each: impl FnMut(&str, u32) -> bool,
    ) -> Result<(), StorageError> {
        let read = |e| self.corrupt(Part::Symbols, e);
        let mut i = range.start;
        let mut go_on = true;
        while i < range.end && go_on {
            // Values of one name are mostly neighbours among the symbols: walk gaps of up to a group.
            let first = table.entry(i).0;
            let mut end = i + 1;
            while end < range.end && table.entry(end).0.saturating_sub(table.entry(end - 1).0) <= 16 {
                end += 1;
            }
            let last = table.entry(end - 1).0;
            symbols
                .scan(first..last.saturating_add(1), |symbol, text| {
                    if i < end && table.entry(i).0 == symbol {
                        go_on = each(text, table.entry(i).1);
                        i += 1;
                    }
                    go_on
                })
                .map_err(read)?;
            if go_on && i < end {
                return Err(self.corrupt(Part::Values, DecodeError("value table is not ascending")));
            }
        }
        Ok(())
    }

    /// Numbers of the series that satisfy all matchers, ascending, which is in order of labels.
    pub fn select_ids(&self, matchers: &[Matcher]) -> Result<Vec<u32>, StorageError> {
        let symbols = self.symbols()?;
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        for matcher in matchers {
            let table = match symbols.find(&matcher.name).map_err(|e| self.corrupt(Part::Symbols, e))? {
                Some(symbol) => self.value_table(symbol)?,
                None => None,
            };
            let needs_value = !matcher.matches_empty();
            match table {
                None if needs_value => return Ok(Vec::new()),
                None => {}
                Some(table) => {
                    let references = self.references(symbols, table, matcher, needs_value)?;
                    if needs_value { positive.push(references) } else { negative.push(references) }
                }
            }
        }
        let mut ids = self.intersect(&positive)?;
        for references in &negative {
            if ids.is_empty() {
                break;
            }
            let taken = self.union(references)?;
            ids.retain(|id| !taken.contains(*id));
        }
        Ok(ids)
    }

    fn union(&self, references: &[u32]) -> Result<RoaringBitmap, StorageError> {
        // One sort of all numbers costs far less than thousands of unions of small sets.
        let mut ids = Vec::new();
        for reference in references {
            let from = ids.len();
            self.add_postings(*reference, &mut ids)?;
            // Lists are ascending; one that is not is damaged in a way no checksum can show.
            if !ids[from..].is_sorted_by(|a, b| a < b) {
                return Err(self.corrupt(Part::Postings, DecodeError("posting list is not ascending")));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        RoaringBitmap::from_sorted_iter(ids)
            .map_err(|_| self.corrupt(Part::Postings, DecodeError("posting list is not ascending")))
    }

    fn intersect(&self, sets: &[Vec<u32>]) -> Result<Vec<u32>, StorageError> {
        let mut sized = Vec::with_capacity(sets.len());
        for references in sets {
            let mut size = 0;
            for reference in references {
                size += if reference & INLINE_POSTING != 0 { 1 } else { self.postings(*reference)?.len() };
            }
            sized.push((size, references));
        }
        sized.sort_by_key(|(size, _)| *size);
        let Some((_, first)) = sized.first() else {
            return Ok((0..self.footer().series).collect());
        };
        let mut ids: Vec<u32> = if let [reference] = first[..] {
            let mut ids = Vec::new();
            self.add_postings(reference, &mut ids)?;
            ids
        } else {
            self.union(first)?.into_iter().collect()
        };
        for (_, references) in &sized[1..] {
            if ids.is_empty() {
                break;
            }
            match references[..] {
                [reference] if reference & INLINE_POSTING == 0 => {
                    let list = self.postings(reference)?;
                    list.intersect(&mut ids).map_err(|e| self.corrupt(Part::Postings, e))?;
                }
                _ => {
                    let set = self.union(references)?;
                    ids.retain(|id| set.contains(*id));
                }
            }
        }
        Ok(ids)
    }

    /// All label names, sorted.
    pub fn all_label_names(&self) -> Result<Vec<String>, StorageError> {
        let symbols = self.symbols()?;
        self.part(Part::Names)?
            .chunks_exact(NAME_ENTRY)
            .map(|entry| {
                let symbol = Input::new(entry).u32();
                symbol.and_then(|s| symbols.get(s)).map_err(|e| self.corrupt(Part::Names, e))
            })
            .collect()
    }

    /// Values of a label, sorted, at most `limit` (0 = all): all of them, or those of the given series.
    pub fn values_of(
        &self,
        name: &str,
        ids: Option<&[u32]>,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let symbols = self.symbols()?;
        let Some(symbol) = symbols.find(name).map_err(|e| self.corrupt(Part::Symbols, e))? else {
            return Ok(Vec::new());
        };
        let Some(table) = self.value_table(symbol)? else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        let mut failed = None;
        let mut probe = Vec::new();
        self.each_value(symbols, table, 0..table.len(), |text, reference| {
            let hit = match ids {
                None => Ok(true),
                Some(ids) if reference & INLINE_POSTING != 0 => {
                    Ok(ids.binary_search(&(reference & !INLINE_POSTING)).is_ok())
                }
                Some(ids) => self.postings(reference).and_then(|list| {
                    probe.clear();
                    probe.extend_from_slice(ids);
                    list.intersect(&mut probe).map_err(|e| self.corrupt(Part::Postings, e))?;
                    Ok(!probe.is_empty())
                }),
            };
            match hit {
                Ok(true) => out.push(text.to_owned()),
                Ok(false) => {}
                Err(e) => failed = Some(e),
            }
            failed.is_none() && (limit == 0 || out.len() < limit)
        })?;
        failed.map_or(Ok(out), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use proptest::prelude::*;

    use super::*;
    use crate::model::Labels;
    use crate::tsdb::block::{BlockMeta, SeriesColumns, new_ulid, write_block};

    /// Values that the patterns below are about; the series without a value comes first.
    const VALUES: [&str; 24] = [
        "", "\n", "$", "(?i)a", ".", "A", "AB", "\\Qa\\E", "^", "a", "a\n", "a\nb", "a$", "a.b", "aXb", "aa",
        "ab", "ab|b", "abab", "b", "ba", "x", "é", "éa",
    ];

    fn labels(i: usize) -> Labels {
        let own = [("__name__", "m".to_owned()), ("n", format!("{i:02}")), ("v", VALUES[i].to_owned())];
        Labels::from_pairs(own.into_iter().filter(|(_, v)| !v.is_empty()))
    }

    static BLOCK: LazyLock<(tempfile::TempDir, Arc<Block>)> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<Labels> = (0..VALUES.len()).map(labels).collect();
        all.sort();
        let mut columns = SeriesColumns::default();
        columns.push_float(1, 0, 1.0);
        let mut source = all.into_iter().map(|labels| (labels, columns.clone()));
        let meta = BlockMeta::new(new_ulid(1), 0, 10);
        let (block, ..) = write_block(dir.path(), meta, &mut source, &|| false).unwrap().unwrap();
        let block = Block::open(block).unwrap();
        (dir, block)
    });

    /// The narrowed search against a look at every series.
    fn check(pattern: &str) {
        for op in [MatchOp::Regex, MatchOp::NotRegex, MatchOp::Equal, MatchOp::NotEqual] {
            let Ok(matcher) = Matcher::new("v", op, pattern) else { continue };
            let mut want: Vec<Labels> =
                (0..VALUES.len()).filter(|i| matcher.matches(VALUES[*i])).map(labels).collect();
            want.sort();
            let mut found = crate::tsdb::block::list::SeriesList::default();
            let ids = BLOCK.1.select_ids(std::slice::from_ref(&matcher)).unwrap();
            BLOCK.1.list_page(0, Some(&ids), &mut found).unwrap();
            let found: Vec<Labels> = (0..found.len()).map(|i| found.labels(i)).collect();
            assert_eq!(found, want, "{matcher}");
        }
    }

    #[test]
    fn go_patterns_find_what_they_match() {
        for pattern in [
            "",
            "a",
            "a|b",
            "a|",
            "|",
            "(|a)b",
            "a||b",
            r"\Qa.b\E",
            r"\Qa\E|b",
            r"\Qa|b",
            r"\Q(?i)a\E",
            "(?i)ab",
            "(?i:a)b",
            "a(?i)b",
            "(?s)a.b",
            "(?-s)a.b",
            "(?U)a.*",
            "a$",
            "^a",
            "^a$|b",
            "a$b",
            r"a\z",
            r"\Aa",
            r"a\$",
            r"\.",
            "a.b",
            "a.*",
            ".*b",
            ".+",
            ".*",
            "a?b",
            "a*b",
            "ab{0}",
            "a{2}",
            "a{,2}",
            "(ab)+",
            "(ab)*",
            "[aA]b?",
            "[^a]",
            "x*",
            "é.*",
            r"\x61",
            r"\x{e9}a?",
            r"\pL",
            r"(?P<n>a)b",
            "(?:a|b)a",
            r"a\nb",
            "(?m)a$",
            r"a\b",
        ] {
            check(pattern);
        }
    }

    proptest! {
        #[test]
        fn narrowing_changes_no_answer(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "a", "b", "ab", "x", "é", "A", ".", "|", "(", ")", "?", "*", "+", "{2}", "{0,1}", "$", "^", r"\Q", r"\E",
                    "(?i)", "(?s)", "(?-s)", "(?:", "(?i:", "[ab]", "[^a]", r"\.", r"\n", r"\$", r"\z", r"\b", ".*", ".+",
                ]),
                0..7,
            )
        ) {
            check(&parts.concat());
        }
    }
}
