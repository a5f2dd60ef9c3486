//! `promql`: how is an expression printed, and how are its selectors changed, without a server? As in promtool these
//! commands ask for `--experimental`.

use clap::{Arg, ArgMatches, Command};

use super::output::{say, tell};
use super::{code, experimental, features, parse_options, text};
use crate::cli::flags::EXIT_USAGE;
use crate::model::Matcher;
use crate::model::matcher::MatchOp;
use crate::query::parse::ast::{Expr, VectorSelector};
use crate::query::parse::{parse_expr, pretty};
use crate::query::stack::on_large_stack;

fn argument(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).value_name(name.to_uppercase()).help(help)
}

pub(super) fn command() -> Command {
    let query = || argument("query", "The expression.");
    let name = || argument("name", "The label.");
    let set = Command::new("set")
        .about("Set a matcher in all selectors of an expression")
        .arg(
            Arg::new("type")
                .long("type")
                .short('t')
                .value_parser(["=", "!=", "=~", "!~"])
                .default_value("=")
                .help("The comparison."),
        )
        .args([query(), name(), argument("value", "What to compare with.")]);
    let delete = Command::new("delete")
        .about("Remove the matchers on a label from all selectors of an expression")
        .args([query(), name()]);
    let matchers = Command::new("label-matchers")
        .about("Edit the matchers of an expression")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([set, delete]);
    Command::new("promql")
        .about("Format and edit expressions (with --experimental)")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(experimental())
        .arg(features().global(true))
        .subcommand(Command::new("format").about("Print an expression in its canonical form").arg(query()))
        .subcommand(matchers)
}

pub(super) fn run(name: &str, matches: &ArgMatches) -> u8 {
    if !matches.try_get_one("experimental").is_ok_and(|v| v == Some(&true)) {
        tell!("This command is experimental and requires the --experimental flag to be set.");
        return EXIT_USAGE;
    }
    let edited = match (name, matches.subcommand()) {
        ("label-matchers", Some(("set", m))) => set_matcher(m),
        ("label-matchers", Some(("delete", m))) => edit(m, |selector| {
            selector.matchers.retain(|matcher| *matcher.name != *text(m, "name"));
            if text(m, "name") == "__name__" {
                selector.name = None;
            }
        }),
        _ => edit(matches, |_| {}),
    };
    code(edited.map(|expression| say!("{expression}")))
}

fn set_matcher(matches: &ArgMatches) -> Result<String, String> {
    let op = match text(matches, "type") {
        "!=" => MatchOp::NotEqual,
        "=~" => MatchOp::Regex,
        "!~" => MatchOp::NotRegex,
        _ => MatchOp::Equal,
    };
    let wanted =
        Matcher::new(text(matches, "name"), op, text(matches, "value")).map_err(|e| e.to_string())?;
    edit(matches, |selector| {
        let mut found = false;
        for matcher in selector.matchers.iter_mut().filter(|m| m.name == wanted.name) {
            *matcher = wanted.clone();
            found = true;
        }
        if !found {
            selector.matchers.push(wanted.clone());
        }
        if &*wanted.name == "__name__" {
            selector.name = None;
        }
    })
}

/// The expression, printed after `change` was made to each of its selectors.
fn edit(matches: &ArgMatches, change: impl Fn(&mut VectorSelector)) -> Result<String, String> {
    let mut root = parse_expr(text(matches, "query"), &parse_options(matches)).map_err(|e| e.to_string())?;
    let mut pending: Vec<&mut Expr> = vec![&mut root];
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Vector(selector) => change(selector),
            Expr::Matrix(matrix) => change(&mut matrix.selector),
            Expr::Paren(e) => pending.push(&mut e.expr),
            Expr::Unary(e) => pending.push(&mut e.expr),
            Expr::Subquery(e) => pending.push(&mut e.expr),
            Expr::Binary(e) => pending.extend([&mut *e.lhs, &mut *e.rhs]),
            Expr::Aggregate(e) => {
                pending.extend(e.param.as_deref_mut());
                pending.push(&mut e.expr);
            }
            Expr::Call(e) => pending.extend(&mut e.args),
        }
    }
    on_large_stack(|| pretty(&root)).map_err(|e| e.to_string())
}
