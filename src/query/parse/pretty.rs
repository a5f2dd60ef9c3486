//! The formatted text of a tree, as Prometheus's `/api/v1/format_query` prints it: what fits into 100 columns
//! stays on one line, the rest is split at its operators and parentheses and indented by two blanks.

use std::fmt::{self, Write};

use super::ast::Expr;
use super::print::{sign, write_aggregate_head, write_operator, write_subquery_suffix};

const MAX_COLUMNS: usize = 100;

/// Deeper levels are indented no further: in a chain of thousands of operators each would be a level of its own, and
/// the blanks would make megabytes out of kilobytes.
const MAX_INDENT: usize = 200;

/// Formats a tree for people.
#[must_use]
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_pretty(&mut out, expr, 0);
    out
}

/// Takes text until there is too much of it, so that measuring a big subtree costs no more than a small one.
struct Ruler(usize);

impl Write for Ruler {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(s.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

fn fits(expr: &Expr) -> bool {
    write!(Ruler(MAX_COLUMNS), "{expr}").is_ok()
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level.min(MAX_INDENT)));
}

fn write_pretty(out: &mut String, expr: &Expr, level: usize) -> fmt::Result {
    match expr {
        // Subqueries that fit are not indented by Prometheus either.
        Expr::Subquery(_) if fits(expr) => return write!(out, "{expr}"),
        Expr::Subquery(e) => {
            write_pretty(out, &e.expr, level)?;
            return write_subquery_suffix(out, e);
        }
        Expr::Unary(e) => {
            indent(out, level);
            out.push(sign(e));
            let mut operand = String::new();
            write_pretty(&mut operand, &e.expr, level)?;
            out.push_str(operand.trim());
            return Ok(());
        }
        Expr::Binary(_) if !fits(expr) => {
            // Links come off from the outside in: a loop, so that long chains need no stack.
            let (mut links, mut rest) = (Vec::new(), expr);
            while let Expr::Binary(link) = rest {
                if fits(rest) {
                    break;
                }
                links.push(link);
                rest = &link.lhs;
            }
            write_pretty(out, rest, level + links.len())?;
            for (depth, link) in links.into_iter().enumerate().rev() {
                out.push('\n');
                indent(out, level + depth);
                write_operator(out, link)?;
                out.push('\n');
                write_pretty(out, &link.rhs, level + depth + 1)?;
            }
            return Ok(());
        }
        _ => {}
    }
    indent(out, level);
    match expr {
        Expr::Aggregate(e) if !fits(expr) => {
            write_aggregate_head(out, e)?;
            out.push_str("(\n");
            if let Some(param) = &e.param {
                write_pretty(out, param, level + 1)?;
                out.push_str(",\n");
            }
            write_pretty(out, &e.expr, level + 1)?;
        }
        Expr::Call(e) if !fits(expr) => {
            out.push_str(e.func);
            out.push_str("(\n");
            for (i, arg) in e.args.iter().enumerate() {
                if i > 0 {
                    out.push_str(",\n");
                }
                write_pretty(out, arg, level + 1)?;
            }
        }
        Expr::Paren(e) if !fits(expr) => {
            out.push_str("(\n");
            write_pretty(out, &e.expr, level + 1)?;
        }
        _ => return write!(out, "{expr}"),
    }
    out.push('\n');
    indent(out, level);
    out.push(')');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse::{ParseOptions, parse_expr};

    #[test]
    fn long_chains_grow_in_proportion_to_their_text() {
        let size = |links: usize| {
            let text = vec!["some_metric"; links].join(" + ");
            pretty(&parse_expr(&text, &ParseOptions::default()).unwrap()).len()
        };
        assert!(size(3_000) < 4 * size(1_000), "{} {}", size(1_000), size(3_000));
    }
}
