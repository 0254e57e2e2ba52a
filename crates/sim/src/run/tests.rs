use std::sync::Weak;

use super::*;

/// Whatever ran in it: books in SQLite, facilitators of both kinds, wallets, and channels.
#[test]
fn nothing_of_a_world_outlives_it() {
    let kinds: [(&str, IsOne); 4] = [
        ("books in SQLite", |plan| plan.sqlite),
        ("facilitators", |plan| plan.remotes.as_ref().is_some_and(|remotes| remotes.who.len() > 1)),
        ("wallets", |plan| plan.owners > 1),
        ("channels", |plan| plan.sessions.is_some()),
    ];
    for (kind, is_one) in kinds {
        let plan = (1..1000).map(Plan::from_seed).find(is_one).unwrap();
        let stage = build(&plan, false);
        let outcome = play(&stage);
        assert_eq!(outcome.violation, None, "{kind}");
        let left = left_of(&stage);
        drop(stage);
        let still: Vec<&str> =
            left.iter().filter(|(_, is_there)| is_there()).map(|(what, _)| *what).collect();
        assert!(still.is_empty(), "{kind}: seed {} leaves {still:?}", plan.seed);
    }
}

type IsOne = fn(&Plan) -> bool;
type Left = Vec<(&'static str, Box<dyn Fn() -> bool>)>;

/// What a world is made of, and whether it is still there.
fn left_of(stage: &Stage) -> Left {
    fn one<T: 'static>(what: &'static str, part: &Arc<T>) -> (&'static str, Box<dyn Fn() -> bool>) {
        let part: Weak<T> = Arc::downgrade(part);
        (what, Box::new(move || part.strong_count() > 0))
    }
    let mut left = vec![
        one("the ledger", &stage.ledger),
        one("the chain", &stage.tip),
        one("the gateway", &stage.gateway),
        one("the network", &stage.net.ailments),
    ];
    left.extend(stage.gateway.sqlite.iter().map(|platter| one("the disk", platter)));
    left.extend(
        stage.gateway.remotes.iter().flat_map(|all| &all.all).map(|one_of| one("a facilitator", one_of)),
    );
    left.extend(stage.buyers.iter().map(|buyer| one("a buyer", buyer)));
    left.extend(stage.owners.iter().map(|owner| one("a wallet", owner)));
    left.extend(stage.patrons.iter().map(|patron| one("a patron", patron)));
    left
}
