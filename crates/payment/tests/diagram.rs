//! The diagrams in `docs/reference/payment.md` are what the machine does, not what somebody remembers.
//!
//! `UPDATE=1 cargo test -p farthing-payment --test diagram` writes them anew.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use farthing_payment::{Flow, Role, transitions};

#[test]
fn the_diagrams_in_the_docs_are_those_of_the_machine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/payment.md");
    let expected = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).expect("docs/reference/payment.md can be read");
    assert!(found == expected, "docs/reference/payment.md is out of date: run this test with UPDATE=1");
}

fn document() -> String {
    let mut out = String::from(
        "# The life of a payment\n\n\
         Generated from the transition table of `farthing-payment` (see `crates/payment/tests/diagram.rs`): these are\n\
         all the moves that the machine can make. Words: [GLOSSARY.md](../../GLOSSARY.md).\n\n\
         The money's state and the goods' delivery are two things; the arrows show the money, with the event that\n\
         moves it. `included` is in a block, `included_deep` is as deep as the amount asks for.\n\n\
         **Refunds.** Money goes back only for money that stays: a refund starts once the block of its settlement is so\n\
         deep that no reorganization is expected to replace it (32 blocks, and what the amount asks for), and is done\n\
         (`refund_included`) once its own block is as deep. Until then it is looked for on the chain again and again, and\n\
         whatever is not there is sent again. The payee signs one authorization for each payment, with a nonce made of\n\
         the payment's id, which the token takes once. So a transaction of a refund that reverted, or whose place was\n\
         taken, is no end: another one with the same authorization takes its place (`refund_replaced`) as soon as it\n\
         would move the money, and the refund is given up (`refund_dropped`) with proof only that the authorization has\n\
         ended unused, or was cancelled, as deep in the chain.\n\n\
         **Gas.** What moved a payment's money is booked with its fee, by the payment, and taken back with it. What else\n\
         we sent (it reverted, or only filled a nonce) is booked under its slot, once, as soon as nothing is open about\n\
         its payment and its block is too deep to be replaced.\n",
    );
    let flows = [
        ("A sale, flow `authorization`: serve, settle, answer", Role::Seller, Flow::Authorization),
        ("A sale, flow `upfront`: settle, then serve", Role::Seller, Flow::Upfront),
        ("A sale, flow `background`: serve, settle behind it", Role::Seller, Flow::Background),
        ("A facilitator's payment", Role::Facilitator, Flow::Upfront),
    ];
    for (title, role, flow) in flows {
        let _ = write!(out, "\n## {title}\n\n```mermaid\nstateDiagram-v2\n  [*] --> claimed\n");
        let table = transitions(role, flow);
        let arrows: BTreeSet<_> =
            table.iter().filter(|t| t.from != t.to).map(|t| (t.from, t.to, t.event)).collect();
        for (from, to, event) in arrows {
            let _ = writeln!(out, "  {from} --> {to}: {event}");
        }
        let _ =
            write!(out, "```\n\n| state | delivery | event | state | delivery |\n|---|---|---|---|---|\n");
        for t in table {
            let _ = writeln!(
                out,
                "| {} | {} | `{}` | {} | {} |",
                t.from, t.from_delivery, t.event, t.to, t.to_delivery
            );
        }
    }
    out
}
