//! Tests of the parser as a whole: cases as data, every query of the conformance scripts, and round trips of
//! generated trees.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::ast::*;
use super::*;
use crate::model::{METRIC_NAME, MatchOp, Matcher};

const ALL: ParseOptions =
    ParseOptions { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true };

fn cases(file: &str) -> Vec<(String, Option<String>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/promql/parse").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let unfold = |s: &str| s.replace('↵', "\n");
    text.lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once('⇒') {
            Some((query, want)) => {
                (unfold(query.strip_suffix(' ').unwrap_or(query)), Some(unfold(want.trim_start())))
            }
            None => (unfold(line), None),
        })
        .collect()
}

#[test]
fn valid_queries_print_canonically_and_read_back_equal() {
    let mut wrong = Vec::new();
    for (query, want) in cases("valid.txt") {
        let want = want.unwrap_or_else(|| query.clone());
        match parse_expr(&query, &ALL) {
            Err(e) => wrong.push(format!("{query}: {e}")),
            Ok(expr) => {
                let printed = expr.to_string();
                if printed != want {
                    wrong.push(format!("{query}: printed {printed}, want {want}"));
                }
                match parse_expr(&printed, &ALL) {
                    Err(e) => wrong.push(format!("{query}: printed {printed}: {e}")),
                    Ok(again) => {
                        if placeless(again.clone()) != placeless(expr) && !printed.contains("NaN") {
                            wrong.push(format!("{query}: reads back as another tree"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn assert_errors(file: &str, options: &ParseOptions) {
    let mut wrong = Vec::new();
    for (query, want) in cases(file) {
        let got = parse_expr(&query, options).map_or_else(|e| e.to_string(), |e| format!("parsed as {e}"));
        let want = want.expect("an error for each query");
        if got != want {
            wrong.push(format!("{query}\n  got  {got}\n  want {want}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_read_as_those_of_prometheus() {
    assert_errors("errors.txt", &ALL);
}

#[test]
fn experimental_features_are_gated() {
    assert_errors("gates.txt", &ParseOptions::default());
}

#[test]
fn every_query_of_the_conformance_scripts_parses_and_round_trips() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/promqltest");
    let Ok(entries) = fs::read_dir(&dir) else {
        eprintln!("skipped: ../shared/conformance/promqltest is missing");
        return;
    };
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in entries.flatten().filter(|e| e.path().extension().is_some_and(|e| e == "test")) {
        let text = fs::read_to_string(entry.path()).unwrap();
        for line in text.lines().map(str::trim).filter(|l| l.starts_with("eval")) {
            let words: Vec<&str> = line.split_whitespace().take(8).collect();
            let skip = if words[1] == "instant" { 4 } else { 8 };
            let mut rest = line;
            for _ in 0..skip {
                rest = rest.trim_start().split_once(char::is_whitespace).map_or("", |(_, r)| r);
            }
            seen += 1;
            let query = rest.trim_start();
            match parse_expr(query, &ALL) {
                Err(e) => wrong.push(format!("{query}: {e}")),
                Ok(expr) => {
                    let printed = expr.to_string();
                    match parse_expr(&printed, &ALL) {
                        Ok(again) if again.to_string() == printed => {}
                        Ok(again) => wrong.push(format!("{query}: {printed} became {again}")),
                        Err(e) => wrong.push(format!("{query}: {printed}: {e}")),
                    }
                    let formatted = pretty(&expr);
                    match parse_expr(&formatted, &ALL) {
                        Ok(again) if again.to_string() == printed => {}
                        _ => wrong.push(format!("{query}: formatted as {formatted}")),
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 2000, "only {seen} queries found");
}

#[test]
fn places_are_byte_ranges() {
    let text = "sum by (a) (rate(foo{x=\"é\"}[5m] offset 1m)) + 1";
    let expr = parse_expr(text, &ALL).unwrap();
    let at = |span: Span| &text[span.start as usize..span.end as usize];
    let Expr::Binary(sum) = &expr else { panic!("{expr:?}") };
    assert_eq!(at(expr.span()), text);
    assert_eq!(at(sum.lhs.span()), "sum by (a) (rate(foo{x=\"é\"}[5m] offset 1m))");
    let Expr::Aggregate(aggregate) = &*sum.lhs else { panic!() };
    let Expr::Call(call) = &*aggregate.expr else { panic!() };
    let Expr::Matrix(matrix) = &call.args[0] else { panic!() };
    assert_eq!(at(matrix.span), "foo{x=\"é\"}[5m] offset 1m");
    assert_eq!(at(matrix.selector.span), "foo{x=\"é\"}");
    let error = parse_expr("a\n +é", &ALL).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
}

#[test]
fn hostile_input_meets_limits() {
    for text in [
        "(".repeat(100_000),
        "-".repeat(100_000) + "1",
        "1^".repeat(100_000) + "1",
        "sum(".repeat(50_000),
        format!("foo[{}1{}]", "(".repeat(10_000), ")".repeat(10_000)),
        format!("foo[{}1]", "-".repeat(10_000)),
        "1+".repeat(100_000) + "1",
        format!("foo[{}1]", "1+".repeat(10_000)),
        "x".repeat(MAX_QUERY_BYTES + 1),
    ] {
        let error = parse_expr(&text, &ALL).unwrap_err();
        assert!(
            error.message.contains("levels deep") || error.message.contains("limit"),
            "{}: {error}",
            &text[..20]
        );
    }
    let chain = "a or ".repeat(3_500) + "a";
    let expr = parse_expr(&chain, &ALL).unwrap();
    assert_eq!(expr.to_string(), chain);
    assert_eq!(pretty(&expr).matches("or").count(), 3_500);
}

#[test]
fn long_queries_are_split() {
    let long = "x".repeat(60);
    let text = format!(
        "sum by (a) (rate({long}[5m])) / on (b) group_left () histogram_quantile(0.9, rate({long}[5m:1m]))"
    );
    let want = format!(
        "  sum by (a) (rate({long}[5m]))\n/ on (b) group_left ()\n  histogram_quantile(0.9, rate({long}[5m:1m]))"
    );
    assert_eq!(pretty(&parse_expr(&text, &ALL).unwrap()), want);
    let text = format!("topk(3, ({long} + {long}))");
    let want = format!("topk(\n  3,\n  (\n      {long}\n    +\n      {long}\n  )\n)");
    assert_eq!(pretty(&parse_expr(&text, &ALL).unwrap()), want);
}

#[test]
fn match_parameters_are_selectors() {
    let texts = |s: &str| {
        parse_metric_selector(s)
            .map(|m| m.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|e| e.to_string())
    };
    assert_eq!(texts("up{job=\"x\"}").unwrap(), ["job=\"x\"", "__name__=\"up\""]);
    assert_eq!(texts("{}").unwrap(), Vec::<String>::new());
    assert_eq!(texts("sum").unwrap(), ["__name__=\"sum\""]);
    assert_eq!(texts("up + 1").unwrap_err(), "1:4: parse error: unexpected <op:+>");
    assert_eq!(texts("").unwrap_err(), "unknown position: parse error: unexpected end of input");
    assert!(texts("up{a=~\"(\"}").unwrap_err().starts_with("1:4: parse error: error parsing regexp: "));
}

/// The tree with every place set to zero.
fn placeless(mut expr: Expr) -> Expr {
    fn duration(e: &mut DurationExpr) {
        match e {
            DurationExpr::Number(n) => n.span = Span::default(),
            DurationExpr::Step(s) | DurationExpr::Range(s) => *s = Span::default(),
            DurationExpr::Unary(_, a, s) | DurationExpr::Paren(a, s) => {
                *s = Span::default();
                duration(a);
            }
            DurationExpr::Binary(_, a, b, s)
            | DurationExpr::MinOf(a, b, s)
            | DurationExpr::MaxOf(a, b, s) => {
                *s = Span::default();
                duration(a);
                duration(b);
            }
        }
    }
    fn value(v: Option<&mut DurationValue>) {
        if let Some(DurationValue::Expr(e)) = v {
            duration(e);
        }
    }
    fn walk(e: &mut Expr) {
        let zero = Span::default();
        match e {
            Expr::Number(e) => e.span = zero,
            Expr::String(e) => e.span = zero,
            Expr::Paren(e) => {
                e.span = zero;
                walk(&mut e.expr);
            }
            Expr::Unary(e) => {
                e.span = zero;
                walk(&mut e.expr);
            }
            Expr::Binary(e) => {
                e.span = zero;
                walk(&mut e.lhs);
                walk(&mut e.rhs);
            }
            Expr::Aggregate(e) => {
                e.span = zero;
                walk(&mut e.expr);
                if let Some(p) = &mut e.param {
                    walk(p);
                }
            }
            Expr::Call(e) => {
                e.span = zero;
                e.args.iter_mut().for_each(walk);
            }
            Expr::Vector(e) => {
                e.span = zero;
                e.matchers.sort_by_key(ToString::to_string);
                value(e.offset.as_mut());
            }
            Expr::Matrix(e) => {
                e.span = zero;
                e.selector.span = zero;
                e.selector.matchers.sort_by_key(ToString::to_string);
                value(e.selector.offset.as_mut());
                value(Some(&mut e.range));
            }
            Expr::Subquery(e) => {
                e.span = zero;
                walk(&mut e.expr);
                value(e.offset.as_mut());
                value(e.step.as_mut());
                value(Some(&mut e.range));
            }
        }
    }
    walk(&mut expr);
    expr
}

fn label() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,3}",
        Just("by".to_owned()),
        Just("group_left".to_owned()),
        Just("a.b\"\n".to_owned()),
        Just("é".to_owned())
    ]
    .prop_map(Into::into)
}

fn labels() -> impl Strategy<Value = Vec<Arc<str>>> {
    prop::collection::vec(label(), 0..3)
}

fn number() -> impl Strategy<Value = NumberLiteral> {
    let plain = prop_oneof![
        any::<f64>().prop_filter("NaN is unequal to itself", |v| !v.is_nan()),
        (0u32..100).prop_map(f64::from),
    ]
    .prop_map(|value| (value.abs(), false));
    let duration = (1i64..100_000_000_000).prop_map(|ms| (ms as f64 / 1000.0, true));
    prop_oneof![plain, duration].prop_map(|(value, is_duration)| NumberLiteral {
        value,
        is_duration,
        span: Span::default(),
    })
}

fn duration_expr() -> impl Strategy<Value = DurationExpr> {
    let zero = Span::default();
    let small = prop_oneof![
        (0u32..100).prop_map(|v| (f64::from(v), false)),
        (1i64..1_000_000).prop_map(|ms| (ms as f64 / 1000.0, true))
    ]
    .prop_map(move |(value, is_duration)| {
        DurationExpr::Number(NumberLiteral { value, is_duration, span: zero })
    });
    let leaf = prop_oneof![small, Just(DurationExpr::Step(zero)), Just(DurationExpr::Range(zero))];
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let op = prop_oneof![
            Just(BinaryOp::Add),
            Just(BinaryOp::Sub),
            Just(BinaryOp::Mul),
            Just(BinaryOp::Div),
            Just(BinaryOp::Mod),
            Just(BinaryOp::Pow)
        ];
        // Parentheses around every operation keep its grouping; around literals they are not kept.
        prop_oneof![
            (op, inner.clone(), inner.clone()).prop_map(move |(op, a, b)| {
                let all = DurationExpr::Binary(op, Box::new(a), Box::new(b), zero);
                DurationExpr::Paren(Box::new(all), zero)
            }),
            (inner.clone(), inner.clone()).prop_map(move |(a, b)| DurationExpr::MinOf(
                Box::new(a),
                Box::new(b),
                zero
            )),
            (inner.clone(), inner).prop_map(move |(a, b)| DurationExpr::MaxOf(
                Box::new(a),
                Box::new(b),
                zero
            )),
        ]
    })
}

fn window() -> impl Strategy<Value = DurationValue> {
    let not_a_literal =
        duration_expr().prop_filter("literals become constants", |e| !matches!(e, DurationExpr::Number(_)));
    prop_oneof![
        (1i64..1_000_000_000).prop_map(DurationValue::Constant),
        not_a_literal.prop_map(|e| DurationValue::Expr(Box::new(e)))
    ]
}

fn shift() -> impl Strategy<Value = Option<DurationValue>> {
    prop_oneof![
        Just(None),
        (-1_000_000i64..1_000_000)
            .prop_filter("zero is none", |ms| *ms != 0)
            .prop_map(|ms| Some(DurationValue::Constant(ms))),
        window().prop_map(Some)
    ]
}

fn at() -> impl Strategy<Value = Option<AtModifier>> {
    prop_oneof![
        Just(None),
        Just(Some(AtModifier::Start)),
        Just(Some(AtModifier::End)),
        (-10_000_000_000i64..10_000_000_000).prop_map(|ms| Some(AtModifier::Timestamp(ms)))
    ]
}

fn selector() -> impl Strategy<Value = VectorSelector> {
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    let matcher = (label(), op, "[a-z\"\\n]{1,4}").prop_map(|(n, op, v)| Matcher::new(&n, op, &v).unwrap());
    let name = prop_oneof![
        Just(None),
        "[a-z:_]{1,4}".prop_map(Some),
        Just(Some("sum".to_owned())),
        Just(Some("offset".to_owned()))
    ];
    let reserved = ["inf", "nan", "on", "bool"];
    (name, prop::collection::vec(matcher, 0..3), shift(), at(), 0..3u8).prop_map(
        move |(name, mut matchers, offset, at, ext)| {
            let name: Option<Arc<str>> = name.filter(|n| !reserved.contains(&n.as_str())).map(Into::into);
            match &name {
                Some(name) => matchers.push(Matcher::equal(METRIC_NAME, name)),
                None => matchers.push(Matcher::equal("must", "match")),
            }
            let extension =
                [RangeExtension::None, RangeExtension::Anchored, RangeExtension::Smoothed][usize::from(ext)];
            VectorSelector { name, matchers, offset, at, extension, span: Span::default() }
        },
    )
}

fn vector() -> impl Strategy<Value = Expr> {
    let span = Span::default();
    selector().prop_map(Expr::Vector).prop_recursive(4, 24, 3, move |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let op = prop_oneof![
            Just(BinaryOp::Add),
            Just(BinaryOp::Pow),
            Just(BinaryOp::Atan2),
            Just(BinaryOp::Eql),
            Just(BinaryOp::Lss),
            Just(BinaryOp::TrimUpper),
            Just(BinaryOp::TrimLower),
            Just(BinaryOp::And),
            Just(BinaryOp::Unless)
        ];
        let matching =
            (any::<bool>(), labels(), 0..3u8, labels(), prop::option::of(-5..5i8), prop::option::of(-5..5i8));
        let paren = boxed.clone().prop_map(move |expr| Box::new(Expr::Paren(ParenExpr { expr, span })));
        prop_oneof![
            paren.clone().prop_map(|e| *e),
            (any::<bool>(), paren.clone()).prop_map(move |(negative, expr)| Expr::Unary(UnaryExpr {
                negative,
                expr,
                span
            })),
            (op, paren.clone(), paren.clone(), any::<bool>(), matching).prop_map(
                move |(op, lhs, rhs, return_bool, (on, labels, group, include, left, right))| {
                    let set = op.is_set();
                    let include: Vec<Arc<str>> =
                        include.into_iter().filter(|l| !labels.contains(l)).collect();
                    let cardinality = match group {
                        _ if set => MatchCardinality::ManyToMany,
                        0 => MatchCardinality::OneToOne,
                        1 => MatchCardinality::ManyToOne,
                        _ => MatchCardinality::OneToMany,
                    };
                    let grouped =
                        matches!(cardinality, MatchCardinality::ManyToOne | MatchCardinality::OneToMany);
                    Expr::Binary(BinaryExpr {
                        op,
                        lhs,
                        rhs,
                        matching: Some(VectorMatching {
                            cardinality,
                            labels,
                            on,
                            include: if grouped { include } else { Vec::new() },
                            fill_left: left.filter(|_| !set).map(f64::from),
                            fill_right: right.filter(|_| !set).map(f64::from),
                        }),
                        return_bool: return_bool && op.is_comparison(),
                        span,
                    })
                }
            ),
            (boxed.clone(), labels(), any::<bool>(), prop::option::of(number())).prop_map(
                move |(expr, grouping, without, param)| {
                    let op = if param.is_some() { AggregateOp::Topk } else { AggregateOp::Sum };
                    let param = param.map(|n| Box::new(Expr::Number(n)));
                    Expr::Aggregate(AggregateExpr { op, expr, param, grouping, without, span })
                }
            ),
            (selector(), window()).prop_map(move |(selector, range)| {
                let args = vec![Expr::Matrix(MatrixSelector { selector, range, span })];
                Expr::Call(Call { func: "rate", args, span })
            }),
            (boxed, window(), prop::option::of(window()), shift(), at()).prop_map(
                move |(expr, range, step, offset, at)| {
                    // Without parentheses a range behind a selector's offset would belong to the selector.
                    let expr = Box::new(Expr::Paren(ParenExpr { expr, span }));
                    let args = vec![Expr::Subquery(SubqueryExpr { expr, range, step, offset, at, span })];
                    Expr::Call(Call { func: "max_over_time", args, span })
                }
            ),
            (inner, number(), "\\PC{0,4}").prop_map(move |(v, n, s)| {
                let text = Expr::String(StringLiteral { value: s.into(), bytes: None, span });
                let rounded = Expr::Call(Call { func: "round", args: vec![v, Expr::Number(n)], span });
                let args = vec![rounded, text.clone(), text.clone(), text.clone(), text];
                Expr::Call(Call { func: "label_replace", args, span })
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn printed_trees_read_back_equal(expr in vector()) {
        for text in [expr.to_string(), pretty(&expr)] {
            let again = parse_expr(&text, &ALL);
            prop_assert!(again.is_ok(), "{text}: {}", again.unwrap_err());
            prop_assert_eq!(placeless(again.unwrap()), placeless(expr.clone()), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z0-9(){}\\[\\]\"'`,=~!<>/+*^%@: \\n.#-]{0,40}|\\PC{0,20}") {
        let _ = parse_expr(&text, &ALL);
        let _ = parse_metric_selector(&text);
    }

    #[test]
    fn no_order_of_tokens_makes_the_parser_panic(parts in prop::collection::vec(prop::sample::select(vec![
        "foo", "sum", "by", "(", ")", "{", "}", "[", "]", ",", "5m", "1", "\"s\"", "a=\"b\"", "offset", "@", "start()",
        "step()", "+", "-", "^", "and", "on", "group_left", "bool", "fill(", "rate(", "min_of(", ":", "anchored",
    ]), 0..16)) {
        let text = parts.join(" ");
        if let Ok(expr) = parse_expr(&text, &ALL) {
            let printed = expr.to_string();
            prop_assert_eq!(parse_expr(&printed, &ALL).map(|e| e.to_string()), Ok(printed.clone()), "{}", text);
        }
    }
}
