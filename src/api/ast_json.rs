//! How does the tree of a query look in JSON? As Prometheus's tree view and Perses expect it.

use super::json::{self, Object};
use crate::model::Matcher;
use crate::model::number::format_plain;
use crate::query::parse::ast::{
    AtModifier, DurationValue, Expr, MatchCardinality, RangeExtension, VectorMatching, VectorSelector,
};
use crate::query::parse::functions::function;
use crate::query::plan::constant;
use crate::query::stack::{is_high, on_large_stack};

/// Writes a tree; its height is bounded by the parser.
///
/// # Errors
/// If a high tree needs a thread of its own and none can be started.
pub fn write_tree(out: &mut Vec<u8>, expr: &Expr) -> std::io::Result<()> {
    if is_high(expr) {
        return on_large_stack(|| write(out, expr));
    }
    write(out, expr);
    Ok(())
}

fn write(out: &mut Vec<u8>, expr: &Expr) {
    let mut object = Object::open(out);
    match expr {
        Expr::Aggregate(e) => {
            object.text("type", "aggregation").text("op", e.op.as_str());
            write(object.key("expr"), &e.expr);
            optional(object.key("param"), e.param.as_deref());
            json::strings(object.key("grouping"), e.grouping.iter().map(|g| &**g));
            object.boolean("without", e.without);
        }
        Expr::Binary(e) => {
            object.text("type", "binaryExpr").text("op", e.op.as_str());
            write(object.key("lhs"), &e.lhs);
            write(object.key("rhs"), &e.rhs);
            match &e.matching {
                Some(matching) => write_matching(object.key("matching"), matching),
                None => null(object.key("matching")),
            }
            object.boolean("bool", e.return_bool);
        }
        Expr::Call(e) => {
            object.text("type", "call");
            let mut func = Object::open(object.key("func"));
            func.text("name", e.func);
            if let Some(signature) = function(e.func) {
                json::strings(func.key("argTypes"), signature.args.iter().map(|a| a.as_str()));
                func.integer("variadic", i64::from(signature.variadic))
                    .text("returnType", signature.returns.as_str());
            }
            func.close();
            json::list(object.key("args"), &e.args, write);
        }
        Expr::Matrix(e) => {
            object.text("type", "matrixSelector").text("name", e.selector.name.as_deref().unwrap_or(""));
            duration(&mut object, "range", Some(&e.range));
            write_selector(&mut object, &e.selector);
        }
        Expr::Vector(e) => {
            object.text("type", "vectorSelector").text("name", e.name.as_deref().unwrap_or(""));
            write_selector(&mut object, e);
        }
        Expr::Subquery(e) => {
            object.text("type", "subquery");
            write(object.key("expr"), &e.expr);
            duration(&mut object, "range", Some(&e.range));
            duration(&mut object, "offset", e.offset.as_ref());
            duration(&mut object, "step", e.step.as_ref());
            write_at(&mut object, e.at);
        }
        Expr::Number(e) => {
            object.text("type", "numberLiteral").text("val", &format_plain(e.value));
        }
        Expr::String(e) => {
            object.text("type", "stringLiteral").text("val", &e.value);
        }
        Expr::Paren(e) => {
            object.text("type", "parenExpr");
            write(object.key("expr"), &e.expr);
        }
        Expr::Unary(e) => {
            object.text("type", "unaryExpr").text("op", if e.negative { "-" } else { "+" });
            write(object.key("expr"), &e.expr);
        }
    }
    object.close();
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn optional(out: &mut Vec<u8>, expr: Option<&Expr>) {
    match expr {
        Some(expr) => write(out, expr),
        None => null(out),
    }
}

/// A duration in milliseconds, 0 if there is none. What is only known when a query runs (`step()`, `range()`) counts
/// as 0 too; expressions are therefore also shown as text under `<name>Expr`.
fn duration(object: &mut Object<'_>, name: &str, value: Option<&DurationValue>) {
    object.integer(name, value.and_then(constant).unwrap_or(0));
    if let Some(DurationValue::Expr(expr)) = value {
        object.text(&format!("{name}Expr"), &expr.to_string());
    }
}

fn write_at(object: &mut Object<'_>, at: Option<AtModifier>) {
    match at {
        Some(AtModifier::Timestamp(ms)) => {
            object.integer("timestamp", ms);
            null(object.key("startOrEnd"));
        }
        Some(AtModifier::Start | AtModifier::End) => {
            null(object.key("timestamp"));
            object.text("startOrEnd", if at == Some(AtModifier::Start) { "start" } else { "end" });
        }
        None => {
            null(object.key("timestamp"));
            null(object.key("startOrEnd"));
        }
    }
}

fn write_selector(object: &mut Object<'_>, selector: &VectorSelector) {
    duration(object, "offset", selector.offset.as_ref());
    json::list(object.key("matchers"), &selector.matchers, write_matcher);
    write_at(object, selector.at);
    object
        .boolean("anchored", selector.extension == RangeExtension::Anchored)
        .boolean("smoothed", selector.extension == RangeExtension::Smoothed);
}

fn write_matcher(out: &mut Vec<u8>, matcher: &Matcher) {
    json::pairs(out, [("name", &*matcher.name), ("value", &*matcher.value), ("type", matcher.op.as_str())]);
}

fn write_matching(out: &mut Vec<u8>, matching: &VectorMatching) {
    let card = match matching.cardinality {
        MatchCardinality::OneToOne => "one-to-one",
        MatchCardinality::ManyToOne => "many-to-one",
        MatchCardinality::OneToMany => "one-to-many",
        MatchCardinality::ManyToMany => "many-to-many",
    };
    let mut object = Object::open(out);
    object.text("card", card);
    json::strings(object.key("labels"), matching.labels.iter().map(|l| &**l));
    object.boolean("on", matching.on);
    json::strings(object.key("include"), matching.include.iter().map(|l| &**l));
    let mut fill = Object::open(object.key("fillValues"));
    for (name, value) in [("lhs", matching.fill_left), ("rhs", matching.fill_right)] {
        match value {
            Some(value) => {
                fill.float(name, value);
            }
            None => null(fill.key(name)),
        }
    }
    fill.close();
    object.close();
}
