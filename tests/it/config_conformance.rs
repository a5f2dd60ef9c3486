//! The configuration and rule files of the conformance pack: what must load, with which values; what must be
//! refused, with which words.

use meerkat::alert::load::{RuleFileOptions, load_rule_file};
use meerkat::config::yaml::{FromYaml as _, Value};
use meerkat::config::{Config, LoadOptions, RuleFile, RuleOptions, StaticConfig};
use meerkat::model::relabel::NameScheme;
use meerkat::query::parse::ParseOptions;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

fn pack(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance").join(folder);
    if path.exists() {
        return path.canonicalize().ok();
    }
    eprintln!("skipped: ../shared/conformance/{folder} is missing");
    None
}

fn json(path: &Path) -> Json {
    let text = std::fs::read_to_string(path).expect("the expectations are readable");
    serde_json::from_str(&text).expect("the expectations are JSON")
}

fn texts(list: &Json) -> Vec<String> {
    match list {
        Json::Array(items) => items.iter().filter_map(|i| i.as_str().map(str::to_owned)).collect(),
        Json::String(one) => vec![one.clone()],
        _ => Vec::new(),
    }
}

#[test]
fn bad_configurations_are_refused_with_prometheus_words() {
    let Some(folder) = pack("config/bad") else { return };
    let cases = json(&folder.join("expected-errors.json"));
    let cases = cases.as_object().expect("an object");
    assert!(cases.len() >= 75, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for (file, case) in cases {
        let path = folder.join(file);
        let outcome = if case["stage"] == "target_group" {
            let text = std::fs::read_to_string(&path).expect("readable");
            let mut cx = meerkat::config::yaml::Context::new(file, Path::new(""), &text);
            let root = cx.document().root;
            let _ = StaticConfig::from_yaml(&root, &mut cx);
            cx.finish().map(|_| ())
        } else {
            Config::load(&path, &LoadOptions::default()).map(|_| ())
        };
        let Err(errors) = outcome else {
            wrong.push(format!("{file}: accepted"));
            continue;
        };
        let message = errors.to_string();
        if !case["library_wording"].is_null() {
            continue;
        }
        for part in texts(&case["error_contains"]) {
            if !message.contains(&part) {
                wrong.push(format!("{file}: {part:?} is not in:\n{message}"));
            }
        }
        if !case["upstream_prefix"].is_null() {
            let prefix = format!("parsing YAML file {}: ", path.display());
            if !message.starts_with(&prefix) {
                wrong.push(format!("{file}: does not begin with {prefix:?}:\n{message}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

/// The value at a dotted path of the effective configuration.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, step| match value {
        Value::List(items) => items.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    })
}

fn same(value: Option<&Value>, want: &Json) -> bool {
    match (value, want) {
        (Some(Value::Text(text)), Json::String(want)) => text == want,
        (Some(Value::Plain(text)), Json::Bool(want)) => text.parse() == Ok(*want),
        (Some(Value::Plain(text)), Json::Number(want)) => text.parse().ok() == want.as_f64(),
        (Some(Value::List(items)), Json::Array(want)) => {
            items.len() == want.len() && items.iter().zip(want).all(|(v, w)| same(Some(v), w))
        }
        (Some(Value::Flow(items)), Json::Array(_)) => Json::from(items.clone()) == *want,
        (Some(Value::Map(entries)), Json::Object(want)) => {
            let filled: Vec<_> = want.iter().collect();
            entries.len() == filled.len()
                && entries.iter().all(|(k, v)| want.get(k).is_some_and(|w| same(Some(v), w)))
        }
        // What is empty is not printed.
        (None, Json::Bool(false)) => true,
        (None, Json::Array(want)) => want.is_empty(),
        (None, Json::Number(n)) => n.as_f64() == Some(0.0),
        _ => false,
    }
}

fn check_facts(folder: &Path, file: &str, config: &Config, facts: &Json, wrong: &mut Vec<String>) {
    let mut value = config.to_value();
    // Jobs of included files are part of the effective configuration but not of the printed one.
    if let Value::Map(entries) = &mut value {
        entries.retain(|(key, _)| key != "scrape_configs");
        let jobs = config.scrape_configs.iter().map(meerkat::config::yaml::ToYaml::to_value).collect();
        entries.push(("scrape_configs".into(), Value::List(jobs)));
    }
    for (path, want) in facts.as_object().into_iter().flatten() {
        if path.contains("environment variable") {
            continue;
        }
        if let Some(list) = path.strip_suffix(".length") {
            let len = match at(&value, list) {
                Some(Value::List(items)) => items.len(),
                _ => 0,
            };
            if Some(len as u64) != want.as_u64() {
                wrong.push(format!("{file}: {path} is {len}, not {want}"));
            }
            continue;
        }
        let (path, want) = match path.strip_suffix(" (relative to this folder)") {
            Some(path) => {
                (path, Json::String(folder.join(want.as_str().unwrap_or_default()).display().to_string()))
            }
            None => (path.as_str(), want.clone()),
        };
        let got = at(&value, path);
        if !same(got, &want) {
            wrong.push(format!("{file}: {path} is {got:?}, not {want}"));
        }
    }
}

#[test]
fn good_and_other_configurations_load_with_the_expected_values() {
    let mut wrong = Vec::new();
    for folder in ["config/good", "config/other"] {
        let Some(folder) = pack(folder) else { return };
        for (file, case) in json(&folder.join("expected.json")).as_object().expect("an object") {
            let options = LoadOptions { agent: case["agent"] == true, ..LoadOptions::default() };
            match (Config::load(&folder.join(file), &options), case["outcome"] == "ok") {
                (Ok(config), true) => check_facts(&folder, file, &config, &case["facts"], &mut wrong),
                (Err(errors), true) => wrong.push(format!("{file}: refused:\n{errors}")),
                (Ok(_), false) => wrong.push(format!("{file}: accepted")),
                (Err(errors), false) => {
                    let message = errors.to_string();
                    for part in texts(&case["error_contains"]) {
                        if !message.contains(&part) {
                            wrong.push(format!("{file}: {part:?} is not in:\n{message}"));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn external_labels_expand_the_environment() {
    let Some(folder) = pack("config/good") else { return };
    let facts = json(&folder.join("expected.json"))["external_labels.good.yml"]["facts"].clone();
    let cases: [(fn(&str) -> Option<String>, &str); 2] = [
        (|_| None, "unset or empty"),
        (|name| (name == "TEST").then(|| "TestValue".to_owned()), "TEST=TestValue"),
    ];
    for (env, part) in cases {
        let options = LoadOptions { env, ..LoadOptions::default() };
        let config = Config::load(&folder.join("external_labels.good.yml"), &options).expect("loads");
        let (_, want) = facts.as_object().expect("facts").iter().find(|(k, _)| k.contains(part)).expect(part);
        let got = serde_json::to_value(&config.global.external_labels.0).expect("a map");
        assert_eq!(&got, want, "{part}");
    }
}

/// Every good file, printed and read again, is the same configuration; secrets stay hidden.
#[test]
fn effective_configurations_read_back_the_same() {
    let Some(folder) = pack("config/good") else { return };
    let mut seen = 0;
    for (file, case) in json(&folder.join("expected.json")).as_object().expect("an object") {
        let path = folder.join(file);
        let options = LoadOptions { agent: case["agent"] == true, ..LoadOptions::default() };
        let Ok(mut first) = Config::load(&path, &options) else { continue };
        let printed = first.to_yaml();
        let again = Config::parse(&printed, &path, &options);
        let again = again.unwrap_or_else(|e| panic!("{file}: the printed form is refused:\n{e}\n{printed}"));
        // A dollar sign that stood for itself is expanded the second time; jobs of files are read from there.
        if file == "external_labels.good.yml" {
            first.global.external_labels = again.global.external_labels.clone();
        }
        assert_eq!(first, again, "{file}:\n{printed}");
        seen += 1;
    }
    assert!(seen >= 30, "only {seen} files");
}

#[test]
fn rule_files_of_the_conformance_pack() {
    let Some(folder) = pack("rules") else { return };
    let manifest = json(&folder.join("manifest.json"));
    let mut wrong = Vec::new();
    for case in manifest["rule_files"].as_array().expect("a list") {
        let file = case["file"].as_str().expect("a name");
        let scheme =
            if case["name_validation_scheme"] == "legacy" { NameScheme::Legacy } else { NameScheme::Utf8 };
        let options = RuleFileOptions { scheme, ..RuleFileOptions::default() };
        let parts = texts(&case["error_contains"]);
        match (load_rule_file(&folder.join(file), &options), case["loads"] == true) {
            (Ok(rules), true) => {
                let count: usize = rules.groups.iter().map(|g| g.rules.len()).sum();
                if case["groups"] != rules.groups.len() || case["rules"] != count {
                    wrong.push(format!("{file}: {} groups with {count} rules", rules.groups.len()));
                }
            }
            (Err(errors), true) => wrong.push(format!("{file}: refused:\n{errors}")),
            (Ok(_), false) => wrong.push(format!("{file}: accepted")),
            (Err(errors), false) => {
                let message = errors.to_string();
                // The template library's wording is its own; only the refusal counts.
                let own_wording = case["library_wording"] == "template library";
                for part in parts.into_iter().filter(|_| !own_wording) {
                    if !message.contains(&part) {
                        wrong.push(format!("{file}: {part:?} is not in:\n{message}"));
                    }
                }
                let lenient = RuleFileOptions { ignore_unknown_fields: true, ..options };
                let loads = load_rule_file(&folder.join(file), &lenient).is_ok();
                if loads != (case["loads_with_ignore_unknown_fields"] == true)
                    && !case["loads_with_ignore_unknown_fields"].is_null()
                {
                    wrong.push(format!("{file}: unknown fields ignored, loads: {loads}"));
                }
                if !case["loads_with_features"].is_null() {
                    let parse = ParseOptions {
                        experimental_functions: true,
                        extended_range_selectors: true,
                        fill_modifiers: true,
                    };
                    let featured = RuleFileOptions { parse, ..options };
                    if let Err(errors) = load_rule_file(&folder.join(file), &featured) {
                        wrong.push(format!("{file}: refused with features:\n{errors}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn aliases_of_rule_files_expand() {
    let Some(folder) = pack("rules/rulefmt") else { return };
    let file = RuleFile::load(&folder.join("test_aliases.yaml"), &RuleOptions::default()).expect("loads");
    for group in &file.groups {
        let expr = &group.rules[0].expr;
        assert!(expr.contains('\n') && group.rules.iter().all(|r| r.expr == *expr));
        assert_eq!(group.rules[0].alert, "HighAlert");
        assert_eq!(group.rules[0].labels["severity"], "critical");
        assert_eq!(
            group.rules[0].annotations["description"],
            "stuff's happening with {{ $.labels.service }}"
        );
        assert_eq!(group.rules[1].record, "new_metric");
        assert_eq!(group.rules[3].alert, "HighAlert2");
    }
}
