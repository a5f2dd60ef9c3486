//! Where are trees walked that are too high for the stack of an arbitrary caller? In a thread of their own with
//! a large stack. A chain such as `a or b or c …` is as high as it is long.

use std::{io, thread};

use super::parse::ast::Expr;

/// Trees up to this height are walked on the stack of the caller.
pub const SHALLOW: u32 = 48;
/// Stack for higher trees, bytes. Only what is touched takes memory; the parser limits the height.
pub const LARGE_STACK: usize = 256 << 20;

/// Runs `work` where a tree of any height that the parser allows can be walked.
///
/// # Errors
/// If no thread can be started, or if the work panicked.
pub fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("query".into()).stack_size(LARGE_STACK);
        let handle = builder.spawn_scoped(scope, work)?;
        handle.join().map_err(|_| io::Error::other("the thread of the query panicked"))
    })
}

/// Whether the tree is too high for the stack of the caller.
#[must_use]
pub fn is_high(expr: &Expr) -> bool {
    higher_than(expr, SHALLOW)
}

fn higher_than(expr: &Expr, limit: u32) -> bool {
    let Some(below) = limit.checked_sub(1) else { return true };
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => false,
        Expr::Paren(e) => higher_than(&e.expr, below),
        Expr::Unary(e) => higher_than(&e.expr, below),
        Expr::Subquery(e) => higher_than(&e.expr, below),
        Expr::Binary(e) => higher_than(&e.lhs, below) || higher_than(&e.rhs, below),
        Expr::Aggregate(e) => {
            higher_than(&e.expr, below) || e.param.as_ref().is_some_and(|p| higher_than(p, below))
        }
        Expr::Call(e) => e.args.iter().any(|a| higher_than(a, below)),
    }
}
