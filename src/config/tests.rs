//! Cases of `testdata/config`, each file with what it must give in its comments, and properties of reading and
//! printing.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::yaml::{Context, Value};
use super::{
    ByteSize, Config, ConfigErrors, ConfigUrl, LoadOptions, RuleFile, RuleOptions, Secret, WebConfig,
};

fn cases(folder: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config").join(folder);
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).expect("the folder is there").flatten().map(|e| e.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).expect("text"))).collect()
}

fn notes<'t>(text: &'t str, kind: &str) -> Vec<&'t str> {
    let start = format!("# {kind}: ");
    text.lines().filter_map(|l| l.strip_prefix(start.as_str())).collect()
}

/// Every `# error:` of the file must be among the errors, a place in front of it included.
fn check_errors(path: &Path, text: &str, errors: &ConfigErrors) {
    let shown = errors.to_string();
    for want in notes(text, "error") {
        let found =
            errors.0.iter().any(|e| format!("{}:{}: {}", e.at.line, e.at.column, e.message).contains(want));
        assert!(found, "{}: {want:?} is not among:\n{shown}", path.display());
    }
    for secret in notes(text, "hidden") {
        assert!(!shown.contains(secret), "{}: shows {secret:?}:\n{shown}", path.display());
    }
}

#[test]
fn bad_files_report_all_their_errors() {
    for (path, text) in cases("bad") {
        let errors = Config::load(&path, &LoadOptions::default()).expect_err(&path.display().to_string());
        check_errors(&path, &text, &errors);
    }
}

#[test]
fn good_files_have_their_effective_values_and_hide_secrets() {
    for (path, text) in cases("good") {
        let config = Config::parse(&text, Path::new("/etc/prom/prometheus.yml"), &LoadOptions::default());
        let config = config.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let value = config.to_value();
        for want in notes(&text, "expect") {
            let (place, want) = want.split_once(" = ").expect("path = value");
            let got = place.split('.').try_fold(&value, |v, step| match v {
                Value::List(items) => items.get(step.parse::<usize>().ok()?),
                _ => v.get(step),
            });
            let got = match got {
                Some(Value::Text(t) | Value::Plain(t)) => t.clone(),
                other => format!("{other:?}"),
            };
            assert_eq!(got, want, "{}: {place}", path.display());
        }
        let shown = format!("{config:?}{}", config.to_yaml());
        for secret in notes(&text, "hidden") {
            assert!(!shown.contains(secret), "{}: shows {secret:?}", path.display());
        }
    }
}

#[test]
fn web_configurations() {
    for (path, text) in cases("web") {
        match WebConfig::parse(&text, Path::new("/etc/web.yml")) {
            Ok(web) => {
                assert!(notes(&text, "error").is_empty(), "{}: accepted", path.display());
                let tls = web.tls_server_config.expect("TLS");
                assert_eq!(tls.cert_file.0, "/etc/server.crt");
                assert!(web.http_server_config.http2);
            }
            Err(errors) => {
                assert!(!notes(&text, "error").is_empty(), "{errors}");
                check_errors(&path, &text, &errors);
            }
        }
    }
    assert_eq!(WebConfig::parse("", Path::new("w.yml")).expect("empty is valid"), WebConfig::default());
}

#[test]
fn rule_files_ask_about_expressions_and_templates() {
    let expr = |e: &str| if e.contains('!') { Err("no bang allowed".into()) } else { Ok(()) };
    let template = |t: &str| if t.contains("{{") { Err("no braces allowed".into()) } else { Ok(()) };
    let options = RuleOptions { check_expr: &expr, check_template: &template, ..RuleOptions::default() };
    for (path, text) in cases("rules") {
        let errors = RuleFile::load(&path, &options).expect_err("bad rules");
        check_errors(&path, &text, &errors);
    }
}

#[test]
fn errors_show_file_place_and_line() {
    let text = "global:\n  scrape_interval: soon\n";
    let errors =
        Config::parse(text, Path::new("conf/prometheus.yml"), &LoadOptions::default()).expect_err("bad");
    let want = "parsing YAML file conf/prometheus.yml: not a valid duration string: \"soon\"\n  --> \
                conf/prometheus.yml:2:20\n  |\n2 |   scrape_interval: soon\n  |                    ^";
    assert_eq!(errors.to_string(), want);
}

#[test]
fn bombs_and_depths_are_refused() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..9 {
        let items = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{items}]\n"));
    }
    let deep = "[".repeat(100_000);
    let cycle = "a: &a [*a]";
    for text in [bomb.as_str(), deep.as_str(), cycle] {
        assert!(Config::parse(text, Path::new(""), &LoadOptions::default()).is_err());
    }
}

#[test]
fn sizes_and_urls() {
    for (text, bytes, printed) in [
        ("0", 0, "0B"),
        ("1KB", 1024, "1KiB"),
        ("1KiB", 1024, "1KiB"),
        ("1.5MB", 3 << 19, "1MiB512KiB"),
        ("15MB", 15 << 20, "15MiB"),
        ("2EB", 2 << 60, "2EiB"),
        ("7B", 7, "7B"),
    ] {
        let size = ByteSize::parse(text).expect(text);
        assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{text}");
    }
    for bad in ["", "1", "KB", "1XB", "1kb", "99EB", "-", "1..5MB", "1K"] {
        assert!(ByteSize::parse(bad).is_err(), "{bad}");
    }
    for good in [
        "",
        "foo",
        "localhost:9090",
        "http://a:1/b?c#d",
        "http://[::1]:9090/",
        "https://u:p@h/x",
        "unix:///a",
    ] {
        assert!(ConfigUrl::parse(good).is_ok(), "{good}");
    }
    for bad in ["://x", "http://a:b", "http://[::1/", "http://a b/", "ht tp://x", "http://a\n"] {
        assert!(ConfigUrl::parse(bad).is_err(), "{bad}");
    }
    let url = ConfigUrl::parse("http://me:hidden@h:1/p").expect("valid");
    assert_eq!(format!("{url} {url:?}"), "http://me:xxxxx@h:1/p http://me:xxxxx@h:1/p");
    let secret = Secret::new("hidden");
    assert_eq!(format!("{secret} {secret:?}"), "<secret> <secret>");
}

#[test]
fn patterns_name_files() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["a.yml", "b.yml", "b.json", "c1.yml", "c[.yml"] {
        std::fs::write(dir.path().join(name), "").expect("written");
    }
    let names = |pattern: &str| -> Vec<String> {
        super::expand_pattern(&dir.path().join(pattern).display().to_string())
            .iter()
            .map(|p| Path::new(p).file_name().expect("a name").to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(names("*.yml"), ["a.yml", "b.yml", "c1.yml", "c[.yml"]);
    assert_eq!(names("b.*"), ["b.json", "b.yml"]);
    assert_eq!(names("?.yml"), ["a.yml", "b.yml"]);
    assert_eq!(names("[a-b].yml"), ["a.yml", "b.yml"]);
    assert_eq!(names("[^a].yml"), ["b.yml"]);
    assert_eq!(names("c\\[.yml*"), ["c[.yml"]);
    assert_eq!(names("a.yml"), ["a.yml"]);
    assert!(names("none*").is_empty() && names("missing.yml").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is printed reads back as the same text.
    #[test]
    fn printed_texts_read_back(text in prop_oneof![
        "\\PC{0,12}",
        "[-?:,\\[\\]{}#&*!|>'\"%@` \n\ta0~.]{0,8}",
        any::<String>(),
        Just("yes".to_owned()), Just("0x1F".to_owned()), Just("1_000".to_owned()), Just("---".to_owned()),
        Just("2020-01-01".to_owned()), Just("1:20".to_owned()), Just("=".to_owned()),
    ], key in "[a-z:# -]{1,6}") {
        let value = Value::Map(vec![
            ("flow".into(), Value::Flow(vec![text.clone(), "x".into()])),
            (key.clone(), Value::Text(text.clone())),
            ("list".into(), Value::List(vec![Value::Text(text.clone()), Value::Map(vec![("k".into(), Value::Text(text.clone()))])])),
        ]);
        prop_assume!(key != "list" && key != "flow");
        let printed = value.print();
        let mut cx = Context::new("", Path::new(""), &printed);
        let root = cx.document().root;
        prop_assert!(!cx.has_errors(), "{printed}");
        let got = |node: Option<&super::yaml::Node>| node.and_then(|n| n.text().map(str::to_owned));
        prop_assert_eq!(got(root.get(&key)), Some(text.clone()), "{}", printed);
        let flow = root.get("flow").expect("the flow list");
        prop_assert_eq!(flow.items().len(), 2, "{}", printed);
        prop_assert_eq!(got(flow.items().first()), Some(text.clone()), "{}", printed);
        let list = root.get("list").expect("the list");
        prop_assert_eq!(got(list.items().first()), Some(text.clone()), "{}", printed);
        prop_assert_eq!(got(list.items().get(1).and_then(|m| m.get("k"))), Some(text), "{}", printed);
    }

    /// No text makes reading panic.
    #[test]
    fn any_text_is_read_or_refused(text in "(global|scrape_configs|remote_write|[a-z_]{1,8}|[:\\-\\[\\]{}&*!|>'\"#,? \n]|  |<<|&a|\\*a|[0-9]{1,3}[a-z]{1,2}){0,40}") {
        let _ = Config::parse(&text, Path::new(""), &LoadOptions::default());
        let _ = RuleFile::parse(&text, Path::new(""), &RuleOptions::default());
        let _ = WebConfig::parse(&text, Path::new(""));
    }

    #[test]
    fn sizes_print_and_parse(bytes in 0..i64::MAX >> 12) {
        // Printed as a sum of whole units, which is exact as long as a double holds it.
        let bytes = bytes & !((1 << 10) - 1);
        prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
    }
}
