//! Reads of a chain as values, and which of them may share one call.

use std::collections::HashSet;

use alloy_primitives::{Address, B256, Bytes};

/// One `eth_call`, or one sub-call of Multicall3's `aggregate3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub to: Address,
    pub data: Bytes,
    pub kind: ReadKind,
}

/// What a read does to the reads that share its call, because an `aggregate3` runs on one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadKind {
    /// Changes nothing: sharing a call with it is safe, as long as no simulation runs before it.
    View,
    /// Executes a payment. Later reads of the same call see its effects, so two that contend never share one.
    Simulation { contends: B256 },
    /// Runs code that the payer chose. It may burn all gas of its call, so it never shares one with other payments.
    Untrusted,
}

/// What came back of a [`Read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadResult {
    Returned(Bytes),
    /// With the revert data.
    Reverted(Bytes),
    /// The node could not say. Nothing may be concluded from it.
    Unavailable,
}

impl ReadResult {
    pub fn returned(&self) -> Option<&Bytes> {
        match self {
            Self::Returned(data) => Some(data),
            Self::Reverted(_) | Self::Unavailable => None,
        }
    }
}

/// Which reads run together: for each call, the indexes into `groups` of the (group, read) pairs, in running order.
///
/// A group is what one payment asks for. Within a call all views run before all simulations; simulations that contend
/// are in different calls; a group with an untrusted read has calls of its own. No call has more than `max_reads`,
/// unless `max_reads` is zero, which counts as one.
///
/// A read that failed with no data in a call that it shared may have been starved by a neighbour (an account's code can
/// be changed to burn gas): whoever runs the plan asks for it again alone before believing it, see [`suspicious`].
pub fn plan(groups: &[Vec<Read>], max_reads: usize) -> Vec<Vec<(usize, usize)>> {
    let max_reads = max_reads.max(1);
    let mut calls: Vec<Open> = Vec::new();
    let mut alone: Vec<Vec<(usize, usize)>> = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        let untrusted = group.iter().any(|read| read.kind == ReadKind::Untrusted);
        if untrusted {
            // Each simulation of such a group is alone as well, so that none sees another's effects.
            let (views, rest): (Vec<_>, Vec<_>) =
                (0..group.len()).partition(|r| group[*r].kind == ReadKind::View);
            alone.extend(views.chunks(max_reads).map(|chunk| chunk.iter().map(|r| (g, *r)).collect()));
            alone.extend(rest.into_iter().map(|r| vec![(g, r)]));
            continue;
        }
        for (r, read) in group.iter().enumerate() {
            let contends = match read.kind {
                ReadKind::Simulation { contends } => Some(contends),
                ReadKind::View | ReadKind::Untrusted => None,
            };
            let open = calls.iter_mut().find(|call| {
                call.len() < max_reads && contends.is_none_or(|key| !call.contended.contains(&key))
            });
            let call = match open {
                Some(call) => call,
                None => {
                    calls.push(Open::default());
                    // INVARIANT: pushed on the line above.
                    let last = calls.len() - 1;
                    &mut calls[last]
                }
            };
            match contends {
                Some(key) => {
                    call.contended.insert(key);
                    call.simulations.push((g, r));
                }
                None => call.views.push((g, r)),
            }
        }
    }
    let shared = calls.into_iter().map(|mut call| {
        call.views.append(&mut call.simulations);
        call.views
    });
    shared.chain(alone).collect()
}

/// Whether a result from a call with `neighbours` other reads must be asked for again, alone.
pub fn suspicious(result: &ReadResult, neighbours: usize) -> bool {
    neighbours > 0 && matches!(result, ReadResult::Reverted(data) if data.is_empty())
}

#[derive(Default)]
struct Open {
    views: Vec<(usize, usize)>,
    simulations: Vec<(usize, usize)>,
    contended: HashSet<B256>,
}

impl Open {
    fn len(&self) -> usize {
        self.views.len() + self.simulations.len()
    }
}
