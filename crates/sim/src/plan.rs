//! What is to happen in a world, and when: all of it from the seed, and each line of it one that can be taken away.

use farthing_payment::Flow;

use crate::facilitators::Remotes;
use crate::gateway::SHELVES;
use crate::payer::{Pays, Style};
use crate::rng::Rng;

/// One line of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    Buy {
        buyer: usize,
        shelf: usize,
        style: Style,
    },
    KillGateway {
        down_for: u64,
    },
    KillBuyer {
        buyer: usize,
        down_for: u64,
    },
    /// A machine with our wallet wants something.
    Want {
        owner: usize,
        shelf: usize,
    },
    KillWallet {
        owner: usize,
        down_for: u64,
    },
    /// The way from the gateway, or from the wallets, to the chain ails for a while.
    Node {
        gateway: bool,
        ailments: crate::node::Ailments,
        lasts: u64,
    },
    Disk {
        ailments: crate::disk::Ailments,
        lasts: u64,
    },
    /// Below the SQLite store, where the world has one.
    Storage {
        trouble: crate::platter::Trouble,
        lasts: u64,
    },
    Net {
        ailments: crate::net::Ailments,
        lasts: u64,
    },
    Weather {
        passed_over: u64,
        forgotten: u64,
        gas_times: u128,
        lasts: u64,
    },
    Mood {
        mood: crate::gateway::Mood,
        lasts: u64,
    },
    Reorg {
        depth: usize,
        kept: u64,
    },
    /// Somebody sends what he found in the pool.
    FrontRun,
    /// The payer's balance goes elsewhere, for a while.
    Drain {
        buyer: usize,
        lasts: u64,
    },
    /// The payer cancels its newest authorization.
    Cancel {
        buyer: usize,
    },
    KillFacilitator {
        which: usize,
        down_for: u64,
        /// It comes back with no memory, if it is a stranger.
        forgets: bool,
    },
    /// The way from the gateway to a facilitator ails for a while.
    Way {
        which: usize,
        way: crate::facilitators::Way,
        lasts: u64,
    },
    /// A facilitator's own node, and its disk if it is ours, ail for a while.
    Facilitator {
        which: usize,
        node: crate::node::Ailments,
        disk: crate::disk::Ailments,
        lasts: u64,
    },
    /// A stranger does not say what is so, for a while.
    Lies {
        which: usize,
        lies: crate::facilitators::Lies,
        lasts: u64,
    },
    /// The seller sends a settled payment back; it wants that so many times at the same moment.
    Refund {
        which: u64,
        at_once: u32,
    },
    /// A wallet buys so many units, by so many requests at the same moment.
    Meter {
        patron: usize,
        meter: usize,
        units: u64,
        at_once: u32,
    },
    TopUp {
        patron: usize,
    },
    /// A wallet asks the seller to close its channel.
    Leave {
        patron: usize,
    },
    /// A wallet gets its deposit back without the seller.
    Force {
        patron: usize,
    },
    /// A wallet's owner does, behind its back, and whatever was used.
    Cheat {
        patron: usize,
    },
    /// A seller is asked to close with a voucher that is older than its newest.
    CloseStale {
        patron: usize,
    },
    KillPatron {
        patron: usize,
        down_for: u64,
    },
    /// It never comes back.
    Vanish {
        patron: usize,
    },
    /// Somebody sends what he found in the pool, if it is for the escrow.
    FrontRunEscrow,
    /// A payer cancels what it signed for a deposit.
    CancelDeposit {
        patron: usize,
    },
    /// A machine's wall clock goes wrong by so many milliseconds, for a while.
    Clock {
        gateway: bool,
        by: i64,
        lasts: u64,
    },
}

impl Act {
    /// Blocks go away: as many as the gateway waits for at most, and two where it waits for one.
    pub fn reorg(rng: &mut Rng, depth: u64) -> Self {
        Self::Reorg {
            depth: usize::try_from(rng.between(1, depth.max(2))).unwrap_or(1),
            kept: [0, 500, 1000][usize::try_from(rng.below(3)).unwrap_or(0)],
        }
    }
}

/// A line and its time, in milliseconds since the beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub at: u64,
    pub act: Act,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub seed: u64,
    /// The gateway's store is the SQLite one, on a disk that can fail; else it is the model.
    pub sqlite: bool,
    pub buyers: usize,
    /// How each of them pays; whoever is not in here, in the newest way.
    pub pays: Vec<Pays>,
    /// How many machines with our wallet there are.
    pub owners: usize,
    /// How deep a settlement must be to count.
    pub depth: u64,
    /// Through whom the gateway settles, if not by itself.
    pub remotes: Option<Remotes>,
    /// What is sold by the unit, if anything is.
    pub sessions: Option<crate::meters::Sessions>,
    /// When all ailments end, in milliseconds since the beginning.
    pub heals_at: u64,
    pub lines: Vec<Line>,
}

/// How long the troubles last, in milliseconds.
const TROUBLES: u64 = 90_000;

/// By how much a wall clock may be wrong, in milliseconds.
pub const MOST_SKEW: u64 = 120_000;

/// How many worlds in a thousand have their books in SQLite: each of their calls waits for another thread.
const ON_SQLITE: u64 = 50;

/// How many worlds in a thousand have buyers that pay by x402 v1, or through Permit2.
const MIXED_PAYERS: u64 = 300;

impl Plan {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "plan");
        let buyers = usize::try_from(rng.between(1, 4)).unwrap_or(1);
        let buyer = |rng: &mut Rng| usize::try_from(rng.below(buyers as u64)).unwrap_or(0);
        let owners = usize::try_from(rng.below(3)).unwrap_or(0);
        let owner = |rng: &mut Rng| usize::try_from(rng.below(owners.max(1) as u64)).unwrap_or(0);
        let depth = if rng.per_mille(600) { 1 } else { rng.between(2, 4) };
        let mut lines = Vec::new();
        for _ in 0..rng.between(2, 14) {
            let style = match rng.below(10) {
                0 => Style::Copies(5),
                1 => Style::Elsewhere,
                _ => Style::Plain,
            };
            let mut shelf = usize::try_from(rng.below(SHELVES.len() as u64)).unwrap_or(0);
            if style == Style::Elsewhere {
                shelf = usize::try_from(rng.below(2)).unwrap_or(0);
            }
            let act = Act::Buy { buyer: buyer(&mut rng), shelf, style };
            lines.push(Line { at: rng.below(TROUBLES * 2 / 3), act });
        }
        for _ in 0..if owners == 0 { 0 } else { rng.between(1, 8) } {
            let shelf = usize::try_from(rng.below(SHELVES.len() as u64)).unwrap_or(0);
            let act = Act::Want { owner: owner(&mut rng), shelf };
            lines.push(Line { at: rng.below(TROUBLES * 2 / 3), act });
        }
        // One world in eight has no trouble at all: then everybody must get what they pay for.
        let troubles = if rng.per_mille(125) { 0 } else { rng.between(1, 12) };
        for _ in 0..troubles {
            let lasts = rng.between(500, 30_000);
            let act = match rng.below(18) {
                0..=2 => Act::KillGateway { down_for: rng.between(50, 20_000) },
                3 => Act::KillBuyer { buyer: buyer(&mut rng), down_for: rng.between(50, 20_000) },
                4 | 5 => {
                    Act::Node { gateway: owners == 0 || rng.per_mille(700), ailments: node(&mut rng), lasts }
                }
                16 | 17 if owners > 0 => {
                    Act::KillWallet { owner: owner(&mut rng), down_for: rng.between(50, 20_000) }
                }
                6 | 7 => Act::Disk {
                    ailments: crate::disk::Ailments {
                        latency: rng.below(1500),
                        refused: rng.below(300),
                        in_doubt: rng.below(150),
                    },
                    lasts,
                },
                8 | 9 => {
                    let mut ailments = crate::net::Ailments::draw(&mut rng);
                    ailments.partitioned = rng.per_mille(100);
                    Act::Net { ailments, lasts }
                }
                10 => Act::Weather {
                    passed_over: rng.below(900),
                    forgotten: rng.below(400),
                    gas_times: [1, 1, 3, 40, 300][usize::try_from(rng.below(5)).unwrap_or(0)],
                    lasts,
                },
                11 => Act::Mood {
                    mood: crate::gateway::Mood {
                        latency: rng.below(12_000),
                        fails: rng.below(600),
                        breaks_off: rng.below(300),
                        hangs: rng.below(200),
                    },
                    lasts,
                },
                12 => Act::reorg(&mut rng, depth),
                13 => Act::FrontRun,
                14 if rng.per_mille(500) => Act::Cancel { buyer: buyer(&mut rng) },
                14 => Act::Drain { buyer: buyer(&mut rng), lasts },
                _ => {
                    let by = skew(&mut rng);
                    Act::Clock { gateway: rng.per_mille(700), by, lasts }
                }
            };
            lines.push(Line { at: rng.below(TROUBLES), act });
        }
        // What came to be played later has chances of its own, so that a seed's other choices stay.
        let mut rng = Rng::stream(seed, "storage");
        let sqlite = rng.per_mille(ON_SQLITE);
        if sqlite && troubles > 0 {
            let unseen = rng.per_mille(300);
            for _ in 0..rng.between(1, 5) {
                let trouble = crate::platter::Trouble::draw(&mut rng, unseen);
                let act = Act::Storage { trouble, lasts: rng.between(500, 30_000) };
                lines.push(Line { at: rng.below(TROUBLES), act });
            }
        }
        let mut rng = Rng::stream(seed, "payers");
        let mut pays = Vec::new();
        if rng.per_mille(MIXED_PAYERS) {
            pays.extend((0..buyers).map(|_| match rng.below(10) {
                0..=3 => Pays::V1,
                4..=7 => Pays::Permit2,
                _ => Pays::V2,
            }));
        }
        let fair = lines.iter().all(|line| matches!(line.act, Act::Buy { .. } | Act::Want { .. }));
        let remotes = Remotes::draw(seed, fair, TROUBLES).map(|(remotes, more)| {
            lines.extend(more);
            // Through others, a transfer by Permit2 whose transaction nobody names is for a person to find.
            pays.iter_mut().filter(|pays| **pays == Pays::Permit2).for_each(|pays| *pays = Pays::V2);
            remotes
        });
        lines.extend(crate::refunds::draw(seed, TROUBLES + 35_000));
        let mut heals_at = TROUBLES + 35_000;
        // Channels need a relayer of the gateway's own.
        let sessions = crate::channels::draw(seed, fair, depth).filter(|_| remotes.is_none());
        let sessions = sessions.map(|(sessions, more)| {
            lines.extend(more);
            heals_at = crate::channels::HEALS_AT;
            sessions
        });
        lines.sort_by_key(|line| line.at);
        Self { seed, sqlite, pays, buyers, owners, depth, remotes, sessions, heals_at, lines }
    }

    /// How long after the troubles everything must be over, in milliseconds.
    pub fn peace(&self) -> u64 {
        // Authorizations live for a minute.
        if self.sessions.is_some() { crate::channels::PEACE } else { 180_000 }
    }

    pub fn has(&self, test: impl Fn(&Act) -> bool) -> bool {
        self.lines.iter().any(|line| test(&line.act))
    }

    /// Whether nothing goes wrong that would keep a purchase from succeeding.
    pub fn is_fair(&self) -> bool {
        !self.has(|act| {
            let wishes = matches!(act, Act::Buy { .. } | Act::Want { .. } | Act::Refund { .. });
            let by_the_unit =
                matches!(act, Act::Meter { .. } | Act::TopUp { .. } | Act::Leave { .. } | Act::Force { .. });
            !wishes && !by_the_unit
        })
    }

    /// Whether somebody pays through Permit2, so that the shop takes that too.
    pub fn takes_permit2(&self) -> bool {
        self.pays.contains(&Pays::Permit2)
    }

    pub fn buys_on_credit(&self) -> bool {
        self.has(|act| matches!(act, Act::Buy { shelf, .. } if SHELVES[*shelf].flow == Flow::Background))
    }
}

/// By how much a wall clock is wrong, in milliseconds, either way.
pub fn skew(rng: &mut Rng) -> i64 {
    rng.between(0, 2 * MOST_SKEW).cast_signed() - MOST_SKEW.cast_signed()
}

fn node(rng: &mut Rng) -> crate::node::Ailments {
    crate::node::Ailments {
        latency: rng.below(2500),
        down: rng.per_mille(150),
        lost: rng.below(500),
        behind: rng.below(500),
        behind_by: rng.between(1, 3),
        swallowed: rng.below(300),
    }
}
