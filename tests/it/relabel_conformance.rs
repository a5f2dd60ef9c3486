//! The relabelling cases of the conformance pack.

use meerkat::config::relabel::parse_rules;
use meerkat::model::relabel::{NameScheme, process, process_steps};
use meerkat::model::{Labels, LabelsBuilder};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: String,
    name_validation_scheme: String,
    input: Option<BTreeMap<String, String>>,
    output: Option<BTreeMap<String, String>>,
    config_error_contains: Option<String>,
}

#[test]
fn relabelling_cases_of_the_conformance_pack() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/relabel/cases.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: ../shared/conformance/relabel/cases.json is missing");
        return;
    };
    let cases: Vec<Case> = serde_json::from_str(&text).expect("the cases are JSON");
    assert!(cases.len() >= 90, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let scheme =
            if case.name_validation_scheme == "legacy" { NameScheme::Legacy } else { NameScheme::Utf8 };
        let rules = match (parse_rules(&case.config, scheme), &case.config_error_contains) {
            (Ok(rules), None) => rules,
            (Err(errors), Some(part)) => {
                if !errors.to_string().contains(part.as_str()) {
                    wrong.push(format!("{}: {part:?} is not in:\n{errors}", case.name));
                }
                continue;
            }
            (Ok(_), Some(_)) => {
                wrong.push(format!("{}: accepted", case.name));
                continue;
            }
            (Err(errors), None) => {
                wrong.push(format!("{}: refused:\n{errors}", case.name));
                continue;
            }
        };
        let input = Labels::from_pairs(case.input.as_ref().expect("input"));
        let mut builder = LabelsBuilder::new(&input);
        let kept = process(&mut builder, &rules);
        let got = kept.then(|| builder.build());
        let want = case.output.as_ref().map(Labels::from_pairs);
        if got != want {
            wrong.push(format!("{}: got {got:?}, want {want:?}", case.name));
        }
        let steps = process_steps(&input, &rules);
        let last = steps.last().map_or(Some(input.clone()), |s| s.keep.then(|| s.output.clone()));
        if last != got {
            wrong.push(format!("{}: the steps end in {last:?}, not {got:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
