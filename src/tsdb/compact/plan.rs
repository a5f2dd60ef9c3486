//! Which blocks should become one, and which should go? Pure functions over meta data; the rules are Prometheus's.

use ulid::Ulid;

use crate::tsdb::block::BlockMeta;

/// What there is to do next: blocks to merge into one (a single one is rewritten without what was deleted).
/// `skip` says which blocks must be left alone. Blocks may come in any order.
#[must_use]
pub fn next_merge(blocks: &[BlockMeta], ranges: &[i64], skip: impl Fn(&Ulid) -> bool) -> Vec<Ulid> {
    let mut sorted: Vec<&BlockMeta> = blocks.iter().filter(|b| !b.compaction.failed).collect();
    sorted.sort_by_key(|b| (b.min_time, b.max_time, b.ulid));
    let usable = |group: &[&BlockMeta]| group.iter().all(|b| !skip(&b.ulid));
    for group in overlapping(&sorted) {
        if usable(&group) {
            return group.iter().map(|b| b.ulid).collect();
        }
    }
    // The newest block is left alone: samples may still be on their way to its range.
    let Some((_, older)) = sorted.split_last() else { return Vec::new() };
    // Prometheus's rule: a range is over when a later block begins past it, the newest not counted.
    let begun = older.last().map_or(i64::MIN, |b| b.min_time);
    for range in ranges.iter().skip(1) {
        for group in aligned_groups(older, *range) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let complete = last.max_time - first.min_time == *range || last.max_time <= begun;
            if group.len() > 1 && complete && usable(&group) {
                return group.iter().map(|b| b.ulid).collect();
            }
        }
    }
    Vec::new()
}

/// Groups of blocks of which each overlaps another one of the group.
fn overlapping<'a>(sorted: &[&'a BlockMeta]) -> Vec<Vec<&'a BlockMeta>> {
    let mut groups: Vec<Vec<&BlockMeta>> = Vec::new();
    let mut end = i64::MIN;
    for block in sorted {
        match groups.last_mut() {
            Some(group) if block.min_time < end => group.push(block),
            _ => groups.push(vec![block]),
        }
        end = end.max(block.max_time);
    }
    groups.retain(|g| g.len() > 1);
    groups
}

/// Neighbouring blocks that lie in the same multiple of `range`.
fn aligned_groups<'a>(sorted: &[&'a BlockMeta], range: i64) -> Vec<Vec<&'a BlockMeta>> {
    let mut groups: Vec<(i64, Vec<&BlockMeta>)> = Vec::new();
    for block in sorted {
        let start = block.min_time.div_euclid(range) * range;
        // A block that reaches beyond is too big for this range.
        if block.max_time > start + range {
            continue;
        }
        match groups.last_mut() {
            Some((at, group)) if *at == start => group.push(block),
            _ => groups.push((start, vec![block])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// How long and how much to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds, 0 = for ever.
    pub time_ms: i64,
    /// Bytes of blocks and log together, 0 = no limit.
    pub bytes: u64,
}

impl Retention {
    /// The blocks that have to go: those whose end lies at least the retention time before the newest block's end,
    /// and, counted from the newest on top of `extra_bytes` of log, the first that exceeds the size with all older
    /// ones. Sizes stand beside the blocks.
    #[must_use]
    pub fn victims(&self, blocks: &[(&BlockMeta, u64)], extra_bytes: u64) -> Vec<Ulid> {
        let mut newest_first: Vec<&(&BlockMeta, u64)> = blocks.iter().collect();
        newest_first.sort_by_key(|(b, _)| std::cmp::Reverse((b.max_time, b.min_time, b.ulid)));
        let Some((newest, _)) = newest_first.first() else { return Vec::new() };
        let end = newest.max_time;
        let mut total = extra_bytes;
        let mut over = false;
        let mut victims = Vec::new();
        for (block, size) in newest_first {
            total = total.saturating_add(*size);
            over |= self.bytes > 0 && total > self.bytes;
            let old = self.time_ms > 0 && end.saturating_sub(block.max_time) >= self.time_ms;
            if over || old || block.compaction.deletable {
                victims.push(block.ulid);
            }
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: i64 = 3_600_000;
    const RANGES: [i64; 3] = [2 * H, 6 * H, 18 * H];

    fn block(id: u128, from: i64, to: i64) -> BlockMeta {
        BlockMeta::new(Ulid(id), from * H, to * H)
    }

    fn plan(blocks: &[BlockMeta]) -> Vec<u128> {
        next_merge(blocks, &RANGES, |_| false).iter().map(|u| u.0).collect()
    }

    #[test]
    fn merges_follow_prometheus() {
        assert_eq!(plan(&[]), [0u128; 0]);
        let mut blocks = vec![block(1, 0, 2), block(2, 2, 4), block(3, 4, 6)];
        assert!(plan(&blocks).is_empty(), "the newest is left alone and the range is not complete");
        blocks.push(block(4, 6, 8));
        assert_eq!(plan(&blocks), [1, 2, 3]);
        // A gap: the range is over because a newer block exists.
        assert_eq!(plan(&[block(1, 0, 2), block(2, 4, 6), block(4, 6, 8)]), [1, 2]);
        assert!(plan(&[block(1, 0, 2), block(4, 6, 8)]).is_empty());
        // Overlaps come first.
        blocks.push(block(5, 5, 6));
        assert_eq!(plan(&blocks), [3, 5]);
        // Next level.
        let level2 = [block(1, 0, 6), block(2, 6, 12), block(3, 12, 18), block(4, 18, 20)];
        assert_eq!(plan(&level2), [1, 2, 3]);
        let skipped = next_merge(&level2, &RANGES, |u| u.0 == 2);
        assert!(skipped.is_empty());
    }

    #[test]
    fn retention_by_time_and_size() {
        let blocks: Vec<BlockMeta> = (0..5).map(|i| block(i as u128 + 1, i * 2, i * 2 + 2)).collect();
        let sized: Vec<(&BlockMeta, u64)> = blocks.iter().map(|b| (b, 100)).collect();
        let ids = |r: Retention, extra| {
            let mut ids: Vec<u128> = r.victims(&sized, extra).iter().map(|u| u.0).collect();
            ids.sort_unstable();
            ids
        };
        assert!(ids(Retention::default(), 1 << 40).is_empty());
        assert_eq!(ids(Retention { time_ms: 6 * H, bytes: 0 }, 0), [1, 2]);
        assert_eq!(ids(Retention { time_ms: 0, bytes: 300 }, 0), [1, 2]);
        assert_eq!(ids(Retention { time_ms: 0, bytes: 300 }, 150), [1, 2, 3, 4]);
        assert!(Retention { time_ms: 1, bytes: 1 }.victims(&[], 0).is_empty());
    }
}
