//! `label_replace` and `label_join`.

use std::sync::Arc;

use super::column::{Axis, Meta};
use super::context::Context;
use super::map::MapNode;
use super::merge::by_labels;
use super::node::{BoxNode, Held};
use crate::model::regex::AnchoredRegex;
use crate::model::{Labels, LabelsBuilder, METRIC_NAME};
use crate::query::QueryError;

fn relabel(
    ctx: &Arc<Context>,
    input: BoxNode,
    axis: Axis,
    dst: &str,
    value: impl Fn(&Labels) -> Option<String>,
) -> Result<BoxNode, QueryError> {
    let delayed = ctx.rules.delayed_name_removal;
    let mut changed = false;
    let mut held = Held::new(ctx);
    let mut metas = Vec::with_capacity(input.metas().len());
    for meta in input.metas() {
        let mut seen = meta.with_seen(delayed);
        if let Some(value) = value(&seen.labels) {
            changed = true;
            let mut labels = LabelsBuilder::new(&seen.labels);
            labels.set(dst, &value);
            // A name that is written anew stays.
            seen = Meta { labels: labels.build(), drop_name: seen.drop_name && dst != METRIC_NAME };
        }
        held.labels(&seen.labels)?;
        metas.push(seen);
    }
    let node = Box::new(MapNode::relabelled(ctx, input, axis, (metas, held)));
    if changed { by_labels(ctx, node, axis) } else { Ok(node) }
}

fn check_name(function: &str, what: &str, name: &str) -> Result<(), QueryError> {
    if name.is_empty() || name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(QueryError::Execution(format!("invalid {what} label name in {function}(): {name}")));
    }
    Ok(())
}

/// `label_replace(input, dst, replacement, src, pattern)`.
pub fn label_replace(
    ctx: &Arc<Context>,
    input: BoxNode,
    axis: Axis,
    [dst, replacement, src, pattern]: [&str; 4],
) -> Result<BoxNode, QueryError> {
    let regex = AnchoredRegex::new(pattern).map_err(|_| {
        QueryError::Execution(format!("invalid regular expression in label_replace(): {pattern}"))
    })?;
    check_name("label_replace", "destination", dst)?;
    relabel(ctx, input, axis, dst, |labels| regex.expand(labels.value(src), replacement))
}

/// `label_join(input, dst, separator, src…)`.
pub fn label_join(
    ctx: &Arc<Context>,
    input: BoxNode,
    axis: Axis,
    dst: &str,
    separator: &str,
    sources: &[Arc<str>],
) -> Result<BoxNode, QueryError> {
    for src in sources {
        check_name("label_join", "source", src)?;
    }
    check_name("label_join", "destination", dst)?;
    relabel(ctx, input, axis, dst, |labels| {
        let parts: Vec<&str> = sources.iter().map(|src| labels.value(src)).collect();
        Some(parts.join(separator))
    })
}
