//! `and`, `or`, `unless`: whole columns are masked by where the other side has something in the same match group.

use std::sync::Arc;

use super::column::{Axis, Column, Meta, StepSet};
use super::context::Context;
use super::grouping::Groups;
use super::join::match_rule;
use super::merge::{by_labels, materialise};
use super::node::{BoxNode, Held, Materialised, Node};
use super::parallel::each_column;
use crate::query::QueryError;
use crate::query::parse::ast::{BinaryOp, VectorMatching};

/// Where each match group has a value.
fn presence(
    ctx: &Arc<Context>,
    node: &dyn Node,
    axis: Axis,
    groups: &mut Groups,
) -> Result<Vec<StepSet>, QueryError> {
    let ids = groups.ids(ctx, node.metas())?;
    let mut sets = vec![StepSet::empty(axis.n); groups.len()];
    each_column(ctx, node, axis, |i, column| {
        sets[ids[i] as usize].add_column(column);
        Ok(())
    })?;
    Ok(sets)
}

/// The operation `left op right`.
pub fn set_operation(
    ctx: &Arc<Context>,
    op: BinaryOp,
    matching: &VectorMatching,
    left: BoxNode,
    right: BoxNode,
    axis: Axis,
) -> Result<BoxNode, QueryError> {
    let mut groups = Groups::new(match_rule(matching), ctx.rules.delayed_name_removal);
    if op == BinaryOp::Or {
        return union(ctx, left, &*right, axis, groups);
    }
    let sets = presence(ctx, &*right, axis, &mut groups)?;
    drop(right);
    let (mut metas, mut columns) = (Vec::new(), Vec::new());
    let mut held = Held::new(ctx);
    let ids = groups.ids(ctx, left.metas())?;
    each_column(ctx, &*left, axis, |i, column| {
        match (sets.get(ids[i] as usize), op) {
            (Some(set), BinaryOp::And) => column.retain(set),
            (Some(set), _) => column.retain(&set.complement(axis.n)),
            (None, BinaryOp::And) => return Ok(()),
            (None, _) => {}
        }
        keep(&mut metas, &mut columns, &mut held, &left.metas()[i], column)
    })?;
    let ordered = left.ordered();
    let out = Materialised::new(metas, columns, held);
    Ok(Box::new(if ordered { out.in_order() } else { out }))
}

fn keep(
    metas: &mut Vec<Meta>,
    columns: &mut Vec<Column>,
    held: &mut Held,
    meta: &Meta,
    column: &mut Column,
) -> Result<(), QueryError> {
    if !column.is_empty() {
        held.grow(column.bytes(), column.count())?;
        metas.push(meta.clone());
        columns.push(std::mem::take(column));
    }
    Ok(())
}

fn union(
    ctx: &Arc<Context>,
    left: BoxNode,
    right: &dyn Node,
    axis: Axis,
    mut groups: Groups,
) -> Result<BoxNode, QueryError> {
    let (mut metas, mut columns, mut held) = materialise(ctx, &*left, axis)?;
    let ids = groups.ids(ctx, &metas)?;
    let mut sets = vec![StepSet::empty(axis.n); groups.len()];
    for (id, column) in ids.iter().zip(&columns) {
        sets[*id as usize].add_column(column);
    }
    let right_ids = groups.ids(ctx, right.metas())?;
    each_column(ctx, right, axis, |i, column| {
        if let Some(set) = sets.get(right_ids[i] as usize) {
            column.retain(&set.complement(axis.n));
        }
        keep(&mut metas, &mut columns, &mut held, &right.metas()[i], column)
    })?;
    by_labels(ctx, Box::new(Materialised::new(metas, columns, held)), axis)
}
