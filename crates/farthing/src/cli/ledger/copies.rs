//! Backing a store up, and putting a copy in its place.

use std::path::Path;
use std::process::ExitCode;

use farthing_store::{BackupError, Stage};
use serde_json::json;

use super::progress::Line;
use super::{StoreArgs, checked_json};
use crate::cli::Failure;

pub fn back_up(file: &Path, args: &StoreArgs) -> Result<ExitCode, Failure> {
    let checked = farthing_store::back_up(&args.store, file, &mut told()).map_err(failed)?;
    Line::new().clear();
    if args.as_json() {
        println!("{}", json!({ "backup": file, "store": args.store, "checked": checked_json(&checked) }));
    } else {
        println!("{} has all of {} payments, and its books balance", file.display(), checked.payments);
        if let Some(newest) = checked.newest {
            println!("  the newest change in it is of {newest}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn restore(file: &Path, args: &StoreArgs, replace: bool) -> Result<ExitCode, Failure> {
    let restored = farthing_store::restore(file, &args.store, replace, &mut told()).map_err(|error| match error {
        BackupError::Exists(path) => Failure::usage(format!(
            "{} is there already; with --replace it is put aside, and what happened since the backup is forgotten",
            path.display()
        )),
        other => failed(other),
    })?;
    Line::new().clear();
    if args.as_json() {
        let checked = checked_json(&restored.checked);
        println!("{}", json!({ "store": args.store, "replaced": restored.replaced, "checked": checked }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} has {} payments, and its books balance", args.store.display(), restored.checked.payments);
    if let Some(replaced) = &restored.replaced {
        println!("  the store that was there is now {}", replaced.display());
    }
    if let Some(newest) = restored.checked.newest {
        println!("  whatever happened after {newest} is forgotten, if anything did:");
    }
    println!(
        "  - payments claimed since are unknown: wait until their authorizations have ended before you serve again\n\
         \u{20}   (the longest max_timeout of a gateway, max_validity of a facilitator), or some may be served twice;\n\
         \u{20} - payments settled since are on the chain and not in these books;\n\
         \u{20} - refunds made since are not in these books: look at the chain before you refund again.\n\
         \u{20} What was under way in the copy is asked of the chain when the store is next opened by a gateway or\n\
         \u{20} facilitator. docs/operating/backup.md says more."
    );
    Ok(ExitCode::SUCCESS)
}

fn told() -> impl FnMut(Stage) {
    let line = Line::new();
    move |stage| match stage {
        Stage::Copying { pages, of } => line.show(&format!("{pages} of {of} pages copied")),
        Stage::Checking { payments, of } => line.show(&format!("{payments} of {of} payments checked")),
    }
}

fn failed(error: BackupError) -> Failure {
    Line::new().clear();
    match error {
        BackupError::Wrong(problems) => {
            let problems: Vec<String> =
                problems.iter().map(|problem| format!("\n  PROBLEM: {problem}")).collect();
            Failure::failed(format!("the copy is not good, and was thrown away:{}", problems.concat()))
        }
        other => Failure::failed(other.to_string()),
    }
}
