//! Rule files and rule unit tests of the conformance pack: what should pass passes, what should fail fails.

use std::path::PathBuf;

use meerkat::alert::unit_test::{UnitTestOptions, run_file};

#[test]
fn rule_unit_tests_come_out_as_promtool_has_them() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/rules");
    let Ok(manifest) = std::fs::read_to_string(root.join("manifest.json")) else {
        eprintln!("skipped: ../shared/conformance/rules is missing");
        return;
    };
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("the manifest is JSON");
    let mut wrong = Vec::new();
    let mut ran = 0;
    for case in manifest["unit_tests"].as_array().expect("a list") {
        // The engine cannot switch these off, and neither can promtool.
        let options = &case["engine_options"];
        if options["at_modifier"] == false || options["negative_offset"] == false {
            continue;
        }
        ran += 1;
        let run = case["run"].as_array().map_or_else(Vec::new, |names| {
            names.iter().filter_map(|n| n.as_str()).map(str::to_owned).collect()
        });
        let options = UnitTestOptions {
            run,
            ignore_unknown_fields: case["ignore_unknown_fields"] == true,
            ..UnitTestOptions::default()
        };
        let file = case["file"].as_str().expect("a file");
        let failures = run_file(&root.join(file), &options);
        if failures.is_empty() != (case["passes"] == true) {
            wrong.push(format!("{file} {:?}: {}", options.run, failures.join("\n")));
        }
    }
    assert!(ran > 15, "only {ran} cases ran");
    assert!(wrong.is_empty(), "{} of {ran} came out wrong:\n{}", wrong.len(), wrong.join("\n"));
}
