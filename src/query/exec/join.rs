//! Binary operations between vectors. Match groups are formed on labels once; only where a group has several
//! series on a side do the steps have to be looked at one by one.

use std::sync::Arc;

use hashbrown::HashMap;

use super::column::{Axis, Column, Meta, Point, is_absent};
use super::context::{Context, Pace};
use super::grouping::{Groups, KeyRule, drop_reserved};
use super::merge::{materialise, same_labelset};
use super::node::{BoxNode, Held, Materialised, Node, Scratch};
use super::operators::{self, Site};
use crate::model::{Labels, LabelsBuilder, METRIC_NAME};
use crate::query::QueryError;
use crate::query::functions::window::Either;
use crate::query::parse::Span;
use crate::query::parse::ast::{BinaryOp, MatchCardinality, VectorMatching};

/// The labels that pair series up.
#[must_use]
pub fn match_rule(matching: &VectorMatching) -> KeyRule {
    let mut names = matching.labels.clone();
    if !matching.on {
        names.push(METRIC_NAME.into());
    }
    names.sort_unstable();
    names.dedup();
    KeyRule { names, exclude: !matching.on, without_reserved: false }
}

/// A binary operation between vectors, arithmetic or comparison.
pub struct Join<'a> {
    /// The query.
    pub ctx: &'a Arc<Context>,
    /// Operator.
    pub op: BinaryOp,
    /// How series pair up.
    pub matching: &'a VectorMatching,
    /// `bool` modifier.
    pub return_bool: bool,
    /// Steps.
    pub axis: Axis,
    /// Place of the operation.
    pub span: Span,
}

impl Join<'_> {
    fn delayed(&self) -> bool {
        self.ctx.rules.delayed_name_removal
    }

    /// Whether the sides were swapped so that the many are on the left.
    fn swapped(&self) -> bool {
        self.matching.cardinality == MatchCardinality::OneToMany
    }

    fn one_to_one(&self) -> bool {
        self.matching.cardinality == MatchCardinality::OneToOne
    }

    /// Labels of the result of a pair; `None` stands for a filled side.
    fn result(&self, left: Option<&Meta>, right: Option<&Meta>) -> Meta {
        let delayed = self.delayed();
        let rule = match_rule(self.matching);
        let base = match (left, right) {
            (Some(left), _) => left.seen(delayed),
            (None, Some(right)) => rule.labels(right, delayed),
            (None, None) => Labels::empty(),
        };
        let drop_name = operators::changes_meaning(self.op) || self.return_bool;
        let mut out = LabelsBuilder::new(&if drop_name && !delayed { drop_reserved(&base) } else { base });
        if self.one_to_one() {
            if self.matching.on {
                out.retain(|l| self.matching.labels.iter().any(|n| **n == *l.name));
            } else {
                out.retain(|l| !self.matching.labels.iter().any(|n| **n == *l.name));
            }
        }
        if let Some(right) = right {
            let right = right.seen(delayed);
            for name in &self.matching.include {
                out.set(name, right.value(name));
            }
        }
        let inherited = left.is_some_and(|m| m.drop_name);
        let mut labels = out.build();
        if drop_name && !delayed {
            labels = drop_reserved(&labels);
        }
        Meta { labels, drop_name: delayed && (drop_name || inherited) }
    }

    fn point(&self, left: Either<'_>, right: Either<'_>) -> Point {
        let site = Site { ctx: self.ctx, span: self.span };
        let (a, b) = if self.swapped() { (right, left) } else { (left, right) };
        match operators::combine(self.op, a, b, &site) {
            None => Point::None,
            Some((_, keep)) if self.return_bool => Point::Float(f64::from(u8::from(keep))),
            Some((_, false)) => Point::None,
            Some((point, true)) => point,
        }
    }

    /// Evaluates `left op right`.
    pub fn run(self, left: BoxNode, right: BoxNode) -> Result<BoxNode, QueryError> {
        let (left, right) = if self.swapped() { (right, left) } else { (left, right) };
        let mut groups = Groups::new(match_rule(self.matching), self.delayed());
        let right_ids = groups.ids(self.ctx, right.metas())?;
        let left_ids = groups.ids(self.ctx, left.metas())?;
        if self.matching.fill_left.is_none()
            && self.matching.fill_right.is_none()
            && let Some(pairs) = self.plain_pairs(&*left, &*right, &left_ids, &right_ids, groups.len())?
        {
            return self.lazy(left, right, pairs);
        }
        drop((left_ids, right_ids, groups));
        self.step_by_step(&*left, &*right)
    }

    /// Pairs of series and the labels of their results, if no step can hold a surprise: no match group has two
    /// series on the "one" side (with one-to-one on either side), and all results have different labels.
    fn plain_pairs(
        &self,
        left: &dyn Node,
        right: &dyn Node,
        left_ids: &[u32],
        right_ids: &[u32],
        groups: usize,
    ) -> Result<Option<Vec<(u32, u32, Meta)>>, QueryError> {
        const NONE: u32 = u32::MAX;
        let mut one = vec![NONE; groups];
        for (i, id) in right_ids.iter().enumerate() {
            let slot = &mut one[*id as usize];
            if *slot != NONE {
                return Ok(None);
            }
            *slot = i as u32;
        }
        let mut taken = vec![false; groups];
        let mut results: hashbrown::HashSet<Labels, foldhash::fast::RandomState> = Default::default();
        let mut pairs = Vec::new();
        let mut pace = Pace::default();
        for (i, id) in left_ids.iter().enumerate() {
            pace.step(self.ctx, 1024)?;
            let r = one[*id as usize];
            if r == NONE {
                continue;
            }
            if self.one_to_one() && std::mem::replace(&mut taken[*id as usize], true) {
                return Ok(None);
            }
            let meta = self.result(Some(&left.metas()[i]), Some(&right.metas()[r as usize]));
            if !results.insert(meta.labels.clone()) {
                return Ok(None);
            }
            pairs.push((i as u32, r, meta));
        }
        Ok(Some(pairs))
    }

    fn lazy(
        self,
        left: BoxNode,
        right: BoxNode,
        pairs: Vec<(u32, u32, Meta)>,
    ) -> Result<BoxNode, QueryError> {
        let right = if self.one_to_one() {
            Other::Lazy(right)
        } else {
            // The "one" side is used many times.
            let mut columns = Vec::with_capacity(right.metas().len());
            let mut held = Held::new(self.ctx);
            super::parallel::each_column(self.ctx, &*right, self.axis, |_, column| {
                held.grow(column.bytes(), column.count())?;
                columns.push(std::mem::take(column));
                Ok(())
            })?;
            Other::Ready(columns, held)
        };
        let (mut sources, mut metas) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
        for (l, r, meta) in pairs {
            sources.push((l, r));
            metas.push(meta);
        }
        Ok(Box::new(JoinNode {
            ctx: Arc::clone(self.ctx),
            op: self.op,
            return_bool: self.return_bool,
            swapped: self.swapped(),
            span: self.span,
            axis: self.axis,
            left,
            right,
            sources,
            metas,
        }))
    }

    fn step_by_step(self, left: &dyn Node, right: &dyn Node) -> Result<BoxNode, QueryError> {
        let (left_metas, left_columns, _left_held) = materialise(self.ctx, left, self.axis)?;
        let (right_metas, right_columns, _right_held) = materialise(self.ctx, right, self.axis)?;
        let mut groups = Groups::new(match_rule(self.matching), self.delayed());
        let wide = |ids: Vec<u32>| ids.into_iter().map(|id| id as usize).collect::<Vec<_>>();
        let right_ids = wide(groups.ids(self.ctx, &right_metas)?);
        let left_ids = wide(groups.ids(self.ctx, &left_metas)?);
        let mut walk = Walk {
            join: &self,
            left: Side { metas: left_metas, columns: left_columns, ids: left_ids },
            right: Side { metas: right_metas, columns: right_columns, ids: right_ids },
            groups: groups.len(),
            pairs: HashMap::default(),
            outputs: HashMap::default(),
            metas: Vec::new(),
            columns: Vec::new(),
            last_step: Vec::new(),
        };
        let (mut pace, work) =
            (Pace::default(), 16 * (walk.left.ids.len() + walk.right.ids.len()) + walk.groups);
        for step in 0..self.axis.n {
            pace.step(self.ctx, work)?;
            walk.step(step)?;
        }
        let mut held = Held::new(self.ctx);
        for column in &walk.columns {
            held.grow(column.bytes(), column.count())?;
        }
        Ok(Box::new(Materialised::new(walk.metas, walk.columns, held)))
    }
}

struct Side {
    metas: Vec<Meta>,
    columns: Vec<Column>,
    ids: Vec<usize>,
}

impl Side {
    /// Calls `visit` with the series that have a value at `step`.
    fn present(&self, step: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(move |i| self.columns[*i].has(step))
    }
}

fn either(column: &Column, step: usize) -> Either<'_> {
    match column.histogram(step) {
        Some(h) if is_absent(column.values[step]) => Either::Histogram(h),
        _ => Either::Float(column.values[step]),
    }
}

struct Walk<'a> {
    join: &'a Join<'a>,
    left: Side,
    right: Side,
    groups: usize,
    /// Output of a pair; `usize::MAX` stands for a filled side.
    pairs: HashMap<(usize, usize), usize, foldhash::fast::RandomState>,
    outputs: HashMap<Labels, usize, foldhash::fast::RandomState>,
    metas: Vec<Meta>,
    columns: Vec<Column>,
    /// Last step at which an output got a value, and the match group it came from.
    last_step: Vec<(usize, usize)>,
}

const FILLED: usize = usize::MAX;

impl Walk<'_> {
    fn output(&mut self, l: usize, r: usize) -> usize {
        if let Some(found) = self.pairs.get(&(l, r)) {
            return *found;
        }
        let meta = self.join.result(self.left.metas.get(l), self.right.metas.get(r));
        let next = self.metas.len();
        let id = *self.outputs.entry(meta.labels.clone()).or_insert(next);
        if id == next {
            self.metas.push(meta);
            let mut column = Column::default();
            column.reset(self.join.axis.n);
            self.columns.push(column);
            self.last_step.push((usize::MAX, 0));
        }
        self.pairs.insert((l, r), id);
        id
    }

    fn duplicate(&self, a: usize, b: usize) -> QueryError {
        let delayed = self.join.delayed();
        let side = if self.join.swapped() { "left" } else { "right" };
        let group = match_rule(self.join.matching).labels(&self.right.metas[a], delayed);
        let (a, b) = (&self.right.metas[a].seen(delayed), &self.right.metas[b].seen(delayed));
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        QueryError::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            with_name(a),
            with_name(b)
        ))
    }

    fn put(&mut self, step: usize, group: usize, l: usize, r: usize, point: Point) -> Result<(), QueryError> {
        if matches!(point, Point::None) {
            return Ok(());
        }
        let id = self.output(l, r);
        let (last, last_group) = self.last_step[id];
        if last == step {
            return Err(if last_group == group && !self.join.one_to_one() {
                QueryError::Execution(
                    "multiple matches for labels: grouping labels must ensure unique matches".into(),
                )
            } else {
                same_labelset()
            });
        }
        self.last_step[id] = (step, group);
        self.columns[id].push(step, point);
        Ok(())
    }

    fn step(&mut self, step: usize) -> Result<(), QueryError> {
        let (fill_left, fill_right) = (self.join.matching.fill_left, self.join.matching.fill_right);
        let lefts: Vec<usize> = self.left.present(step).collect();
        let rights: Vec<usize> = self.right.present(step).collect();
        if (lefts.is_empty() && fill_left.is_none()) || (rights.is_empty() && fill_right.is_none()) {
            return Ok(());
        }
        let mut one = vec![FILLED; self.groups];
        for r in &rights {
            let slot = &mut one[self.right.ids[*r]];
            if *slot != FILLED {
                let other = *slot;
                return Err(self.duplicate(*r, other));
            }
            *slot = *r;
        }
        let mut matched = vec![false; self.groups];
        let mut answered = vec![false; self.groups];
        for l in lefts {
            let group = self.left.ids[l];
            let r = one[group];
            matched[group] = true;
            let left = either(&self.left.columns[l], step);
            let right = match (r, fill_right) {
                (FILLED, None) => continue,
                (FILLED, Some(v)) => Either::Float(v),
                (r, _) => either(&self.right.columns[r], step),
            };
            let point = self.join.point(left, right);
            // Also when a comparison keeps neither.
            if self.join.one_to_one() && std::mem::replace(&mut answered[group], true) {
                return Err(QueryError::Execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                        .into(),
                ));
            }
            self.put(step, group, l, r, point)?;
        }
        if let Some(v) = fill_left {
            for r in rights {
                let group = self.right.ids[r];
                if !matched[group] {
                    let point = self.join.point(Either::Float(v), either(&self.right.columns[r], step));
                    self.put(step, group, FILLED, r, point)?;
                }
            }
        }
        Ok(())
    }
}

/// A label set as upstream prints it in this error: the name among the other labels.
fn with_name(labels: &Labels) -> String {
    labels.to_string()
}

enum Other {
    Lazy(BoxNode),
    Ready(Vec<Column>, #[expect(dead_code, reason = "keeps the memory charged while the columns live")] Held),
}

/// Pairs of series, computed on demand.
struct JoinNode {
    ctx: Arc<Context>,
    op: BinaryOp,
    return_bool: bool,
    swapped: bool,
    span: Span,
    axis: Axis,
    left: BoxNode,
    right: Other,
    sources: Vec<(u32, u32)>,
    metas: Vec<Meta>,
}

impl JoinNode {
    fn combine(&self, left: &Column, right: &Column, out: &mut Column) {
        out.reset(self.axis.n);
        let (a, b) = if self.swapped { (right, left) } else { (left, right) };
        if a.histograms.is_empty() && b.histograms.is_empty() && !is_trim(self.op) {
            let comparison = operators::is_comparison(self.op);
            for ((out, x), y) in out.values.iter_mut().zip(&a.values).zip(&b.values) {
                if is_absent(*x) || is_absent(*y) {
                    continue;
                }
                if !comparison {
                    *out = operators::arithmetic(self.op, *x, *y);
                    continue;
                }
                let keep = operators::compare(self.op, *x, *y);
                if self.return_bool {
                    *out = f64::from(u8::from(keep));
                } else if keep {
                    *out = *x;
                }
            }
            return;
        }
        let site = Site { ctx: &self.ctx, span: self.span };
        for step in 0..self.axis.n {
            if a.has(step) && b.has(step) {
                let (x, y) = (either(a, step), either(b, step));
                out.push(step, operators::filtered(self.op, self.return_bool, x, y, &site));
            }
        }
    }
}

fn is_trim(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower)
}

impl Node for JoinNode {
    fn metas(&self) -> &[Meta] {
        &self.metas
    }

    fn fill(&self, i: usize, scratch: &mut Scratch, out: &mut Column) -> Result<(), QueryError> {
        let (l, r) = self.sources[i];
        let mut left = scratch.take_column();
        let mut result = self.left.fill(l as usize, scratch, &mut left);
        match &self.right {
            Other::Ready(columns, _) => self.combine(&left, &columns[r as usize], out),
            Other::Lazy(node) => {
                let mut right = scratch.take_column();
                result = result.and_then(|()| node.fill(r as usize, scratch, &mut right));
                if result.is_ok() {
                    self.combine(&left, &right, out);
                }
                scratch.give_column(right);
            }
        }
        scratch.give_column(left);
        result
    }

    fn cost(&self) -> usize {
        let right = if let Other::Lazy(node) = &self.right { node.cost() } else { 0 };
        self.left.cost() + right + self.axis.n
    }
}
