//! Series that have to be told apart anew after their labels changed: when two series end up with the same
//! labels they are one series, and having both at one step is an error.

use std::sync::Arc;

use hashbrown::HashMap;

use super::column::{Axis, Column, Meta};
use super::context::Context;
use super::grouping::is_reserved;
use super::node::{BoxNode, Held, Materialised, Node};
use super::parallel::each_column;
use crate::model::Labels;
use crate::query::QueryError;

/// Upstream's text for two series with the same labels.
#[must_use]
pub fn same_labelset() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".into())
}

/// Whether dropping name, type and unit surely keeps all series apart: they all have the same ones.
fn share_reserved(metas: &[Meta]) -> bool {
    let Some(first) = metas.first() else { return true };
    let reserved = |meta: &Meta| {
        meta.labels.iter().filter(|l| is_reserved(l.name)).map(|l| l.value.len()).sum::<usize>()
    };
    let size = reserved(first);
    metas.iter().all(|meta| {
        reserved(meta) == size
            && meta
                .labels
                .iter()
                .filter(|l| is_reserved(l.name))
                .all(|l| first.labels.value(l.name) == l.value)
    })
}

/// Makes labels unique after the name was dropped. Costs little when all series have the same name.
pub fn after_drop(ctx: &Arc<Context>, node: BoxNode, axis: Axis) -> Result<BoxNode, QueryError> {
    if ctx.rules.delayed_name_removal || share_reserved(node.metas()) {
        return Ok(node);
    }
    by_labels(ctx, node, axis)
}

/// Merges series whose labels (as the next operator sees them) are equal.
pub fn by_labels(ctx: &Arc<Context>, node: BoxNode, axis: Axis) -> Result<BoxNode, QueryError> {
    let delayed = ctx.rules.delayed_name_removal;
    let mut ids: HashMap<Labels, usize, foldhash::fast::RandomState> = HashMap::default();
    let mut metas: Vec<Meta> = Vec::new();
    let mut targets = Vec::with_capacity(node.metas().len());
    let mut held = Held::new(ctx);
    for meta in node.metas() {
        let seen = meta.with_seen(delayed);
        held.labels(&seen.labels)?;
        let next = metas.len();
        let target = *ids.entry(seen.labels.clone()).or_insert(next);
        if target == next {
            metas.push(seen);
        }
        targets.push(target);
    }
    if metas.len() == targets.len() {
        return Ok(node);
    }
    let mut columns = vec![Column::default(); metas.len()];
    each_column(ctx, &*node, axis, |i, column| {
        let into = &mut columns[targets[i]];
        if column.is_empty() {
            if into.values.is_empty() {
                into.reset(axis.n);
            }
            return Ok(());
        }
        held.grow(column.bytes(), column.count())?;
        if into.values.is_empty() {
            std::mem::swap(into, column);
            return Ok(());
        }
        into.merge(column).map_err(|_| same_labelset())
    })?;
    let ordered = node.ordered();
    let merged = Materialised::new(metas, columns, held);
    Ok(Box::new(if ordered { merged.in_order() } else { merged }))
}

/// Computes all columns now and leaves out series without any value.
pub fn materialise(
    ctx: &Arc<Context>,
    node: &dyn Node,
    axis: Axis,
) -> Result<(Vec<Meta>, Vec<Column>, Held), QueryError> {
    let mut held = Held::new(ctx);
    let (mut metas, mut columns) = (Vec::new(), Vec::new());
    each_column(ctx, node, axis, |i, column| {
        if !column.is_empty() {
            // The column itself, its place in the list, and once more when the list is sorted.
            held.grow(column.bytes() + 2 * size_of::<Column>() + size_of::<Meta>(), column.count())?;
            metas.push(node.metas()[i].clone());
            columns.push(std::mem::take(column));
        }
        Ok(())
    })?;
    Ok((metas, columns, held))
}
