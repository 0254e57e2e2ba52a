//! A model check of the payment machine: every state that a payment, its books, one process and the chain around it can
//! be in together, for every role, flow and rail, and what must hold in each.
//!
//! The payment and its books are the production code; the world around them (`model/world.rs`) does what any chain,
//! buyer, stranger, facilitator or crash may do, in any order. Stateright explores it and holds the laws of
//! `model/laws.rs` against every state; a second, plain search agrees with it on how many there are, and proves
//! that from each of them the world, once it heals, comes to rest.
//!
//! What is taken as given: a block that is called deep enough is not replaced after that, unless we watch it (settled
//! payments are watched); a refund starts once its settlement is beyond any reorganization (the rail sees to that), and is done once it is so itself; who is asked to *verify* a
//! payment does not submit it; a payer that submits its own authorization past us knows that it did.
//!
//! `cargo test -p farthing-payment --test model -- --nocapture` prints how many states there are.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "model/life.rs"]
mod life;
#[path = "model/world.rs"]
mod world;

use std::collections::HashMap;
use std::fmt::Write;

use farthing_payment::{Flow, Role};
use stateright::{Checker, Property};

use life::Deal;
use world::{Happening, LAWS, Model, Rail, World};

impl stateright::Model for Model {
    type State = World;
    type Action = Happening;

    fn init_states(&self) -> Vec<World> {
        vec![self.start()]
    }

    fn actions(&self, w: &World, actions: &mut Vec<Happening>) {
        actions.extend(self.happenings(*w));
    }

    fn next_state(&self, _: &World, happening: Happening) -> Option<World> {
        Some(happening.next)
    }

    fn format_action(&self, happening: &Happening) -> String {
        happening.name.to_owned()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let laws = LAWS.iter().map(|(name, holds)| Property::always(name, *holds));
        laws.chain([Property::sometimes("a payment settles", Self::settles)]).collect()
    }
}

fn check(role: Role, flow: Flow, rail: Rail) {
    // Where the money comes first, who paid may ask again, whatever it asks for.
    let calls = if flow == Flow::Upfront { &[true][..] } else { &[true, false] };
    for &repeatable in calls {
        let deal = Deal { role, flow, repeatable };
        let (states, edges) = search(&Model::new(deal, rail));
        let checker = stateright::Model::checker(Model::new(deal, rail)).spawn_bfs().join();
        checker.assert_properties();
        assert_eq!(checker.unique_state_count(), states, "two searches found different worlds");
        println!("{deal:?} by {rail:?}: {states} states, {edges} steps");
    }
}

/// Walks every state; panics with the way to the first that breaks a law or from which nothing comes to rest.
fn search(model: &Model) -> (usize, usize) {
    let mut ids: HashMap<World, usize> = HashMap::from([(model.start(), 0)]);
    let mut worlds = vec![model.start()];
    let mut came: Vec<Option<(usize, &'static str)>> = vec![None];
    let mut back: Vec<Vec<usize>> = vec![Vec::new()];
    let (mut at, mut edges) = (0, 0);
    while at < worlds.len() {
        let world = worlds[at];
        if let Some(law) = model.broken_law(&world) {
            panic!(
                "{:?} by {:?}, broken: {law}\n{}",
                model.deal,
                model.rail,
                story(model, &worlds, &came, at)
            );
        }
        for happening in model.happenings(world) {
            edges += 1;
            let to = *ids.entry(happening.next).or_insert_with(|| {
                worlds.push(happening.next);
                came.push(Some((at, happening.name)));
                back.push(Vec::new());
                worlds.len() - 1
            });
            if happening.benign {
                back[to].push(at);
            }
        }
        at += 1;
    }
    let mut open: Vec<usize> = (0..worlds.len()).filter(|at| model.rests(&worlds[*at])).collect();
    let mut rests = vec![false; worlds.len()];
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut rests[at], true) {
            open.extend(&back[at]);
        }
    }
    if let Some(at) = rests.iter().position(|rests| !rests) {
        panic!("{:?} by {:?}: a trap\n{}", model.deal, model.rail, story(model, &worlds, &came, at));
    }
    (worlds.len(), edges)
}

/// How the world came there, one line for each step.
fn story(model: &Model, worlds: &[World], came: &[Option<(usize, &'static str)>], mut at: usize) -> String {
    let mut lines = vec![format!("{:?}", worlds[at])];
    while let Some((from, name)) = came[at] {
        let life = model.life(worlds[at].life);
        let payment = life.payment().map_or_else(String::new, |payment| {
            format!("{}, {}", payment.state.name(), payment.delivery.name())
        });
        let mut line = String::new();
        let _ = write!(line, "{name:60} {payment}");
        lines.push(line);
        at = from;
    }
    lines.reverse();
    lines.join("\n")
}

#[test]
fn a_sale_that_serves_then_settles() {
    check(Role::Seller, Flow::Authorization, Rail::Own);
}

#[test]
fn a_sale_that_settles_then_serves() {
    check(Role::Seller, Flow::Upfront, Rail::Own);
}

#[test]
fn a_sale_that_settles_behind_the_service() {
    check(Role::Seller, Flow::Background, Rail::Own);
}

#[test]
fn a_facilitators_payment() {
    check(Role::Facilitator, Flow::Upfront, Rail::Own);
}

#[test]
fn a_sale_by_a_facilitator_that_our_node_checks() {
    for flow in [Flow::Authorization, Flow::Upfront, Flow::Background] {
        check(Role::Seller, flow, Rail::Checked);
    }
}

#[test]
fn a_sale_by_a_facilitators_word() {
    for flow in [Flow::Authorization, Flow::Upfront, Flow::Background] {
        check(Role::Seller, flow, Rail::Blind);
    }
}
