//! Every test that `docs/known-attacks.md` names exists.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::path::{Path, PathBuf};

#[test]
fn the_named_guards_of_known_attacks_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = std::fs::read_to_string(root.join("docs/known-attacks.md")).expect("the document");
    let mut sources = String::new();
    for crate_folder in std::fs::read_dir(root.join("crates")).expect("crates") {
        collect(&crate_folder.expect("an entry").path(), &mut sources);
    }
    let rows: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).collect();
    let mut guarded = 0;
    let mut wrong = Vec::new();
    for row in rows {
        let last = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default();
        for name in last.split('`').skip(1).step_by(2) {
            guarded += 1;
            let exists = match name.strip_prefix("scripts/") {
                Some(_) => root.join(name).is_file(),
                None => sources.contains(&format!("fn {name}(")),
            };
            if !exists && !last.starts_with("*missing*") {
                wrong.push(name.to_owned());
            }
        }
    }
    assert!(wrong.is_empty(), "no such test: {}", wrong.join(", "));
    assert!(guarded >= 60, "only {guarded} guards are named");
}

fn collect(path: &PathBuf, into: &mut String) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            let entry = entry.expect("an entry").path();
            if entry.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                collect(&entry, into);
            }
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        into.push_str(&std::fs::read_to_string(path).expect("a source"));
    }
}
