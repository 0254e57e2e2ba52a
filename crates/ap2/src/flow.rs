//! Whether the pieces of a checkout can be dealt out to what was asked for, each piece once and each wish fully.
//!
//! Spec: AP2 checkout_mandate.md, "Line Items": the maximal flow equals both totals.

use std::collections::VecDeque;

/// `wants[i]` pieces for wish i, `has[j]` pieces of item j, and whether item j fits wish i.
///
/// Both lists are bounded by the caller (64 and 256), so the graph is, and so is the work: Dinic's algorithm.
pub(crate) fn deals_out(wants: &[u64], has: &[u64], fits: impl Fn(usize, usize) -> bool) -> bool {
    let sum = |all: &[u64]| all.iter().try_fold(0_u64, |sum, n| sum.checked_add(*n));
    let (Some(wanted), Some(had)) = (sum(wants), sum(has)) else { return false };
    // Under-filled and over-filled are both wrong, so only one of the totals is left to be reached.
    if wanted != had {
        return false;
    }
    let (source, sink) = (wants.len() + has.len(), wants.len() + has.len() + 1);
    let mut graph = Graph { edges: Vec::new(), of: vec![Vec::new(); sink + 1] };
    for (wish, &many) in wants.iter().enumerate() {
        graph.connect(source, wish, many);
        for item in 0..has.len() {
            if fits(wish, item) {
                graph.connect(wish, wants.len() + item, u64::MAX);
            }
        }
    }
    for (item, &many) in has.iter().enumerate() {
        graph.connect(wants.len() + item, sink, many);
    }
    graph.max_flow(source, sink) == wanted
}

struct Graph {
    /// Where to, and how much more. The edge beside it, `at ^ 1`, leads back.
    edges: Vec<(usize, u64)>,
    of: Vec<Vec<usize>>,
}

impl Graph {
    fn connect(&mut self, from: usize, to: usize, capacity: u64) {
        for (from, to, capacity) in [(from, to, capacity), (to, from, 0)] {
            self.of[from].push(self.edges.len());
            self.edges.push((to, capacity));
        }
    }

    fn max_flow(&mut self, source: usize, sink: usize) -> u64 {
        let mut flow = 0_u64;
        loop {
            let level = self.levels(source);
            if level[sink].is_none() {
                return flow;
            }
            let mut next = vec![0; self.of.len()];
            loop {
                let pushed = self.push(source, sink, u64::MAX, &level, &mut next);
                if pushed == 0 {
                    break;
                }
                // The flow is at most the sum of what leaves the source, which fits.
                flow = flow.saturating_add(pushed);
            }
        }
    }

    fn levels(&self, source: usize) -> Vec<Option<usize>> {
        let mut level = vec![None; self.of.len()];
        level[source] = Some(0);
        let mut queue = VecDeque::from([(source, 0)]);
        while let Some((node, depth)) = queue.pop_front() {
            for &edge in &self.of[node] {
                let (to, left) = self.edges[edge];
                if left > 0 && level[to].is_none() {
                    level[to] = Some(depth + 1);
                    queue.push_back((to, depth + 1));
                }
            }
        }
        level
    }

    /// Pushes along one path, at most as deep as there are nodes.
    fn push(
        &mut self,
        node: usize,
        sink: usize,
        most: u64,
        level: &[Option<usize>],
        next: &mut [usize],
    ) -> u64 {
        if node == sink {
            return most;
        }
        while let Some(&edge) = self.of[node].get(next[node]) {
            let (to, left) = self.edges[edge];
            let goes_down =
                matches!((level[node], level[to]), (Some(here), Some(there)) if there == here + 1);
            if left > 0 && goes_down {
                let pushed = self.push(to, sink, most.min(left), level, next);
                if pushed > 0 {
                    self.edges[edge].1 -= pushed;
                    // An edge without a bound stays one.
                    self.edges[edge ^ 1].1 = self.edges[edge ^ 1].1.saturating_add(pushed);
                    return pushed;
                }
            }
            next[node] += 1;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::deals_out;
    use proptest::prelude::*;

    /// By trying: which wish gets the next piece.
    fn slowly(wants: &mut [u64], pieces: &[usize], fits: &dyn Fn(usize, usize) -> bool) -> bool {
        let Some((&item, rest)) = pieces.split_first() else { return wants.iter().all(|n| *n == 0) };
        (0..wants.len()).any(|wish| {
            if wants[wish] == 0 || !fits(wish, item) {
                return false;
            }
            wants[wish] -= 1;
            let done = slowly(wants, rest, fits);
            wants[wish] += 1;
            done
        })
    }

    proptest! {
        #[test]
        fn it_says_what_trying_everything_says(
            wants in prop::collection::vec(1_u64..3, 1..4),
            has in prop::collection::vec(1_u64..3, 1..4),
            mask in any::<u16>(),
        ) {
            let fits = |wish: usize, item: usize| mask >> (wish * 4 + item) & 1 == 1;
            let pieces: Vec<usize> =
                has.iter().enumerate().flat_map(|(item, n)| (0..*n).map(move |_| item)).collect();
            let slow = slowly(&mut wants.clone(), &pieces, &fits);
            prop_assert_eq!(deals_out(&wants, &has, fits), slow);
        }
    }

    #[test]
    fn totals_that_do_not_fit_a_number_are_no() {
        assert!(!deals_out(&[u64::MAX, 1], &[u64::MAX, 1], |_, _| true));
        assert!(deals_out(&[u64::MAX], &[u64::MAX - 1, 1], |_, _| true));
    }

    #[test]
    fn the_largest_graph_takes_no_time() {
        let (wants, has) = (vec![40_000_000; 64], vec![10_000_000; 256]);
        assert!(deals_out(&wants, &has, |_, _| true));
        // One wish that nothing fits.
        assert!(!deals_out(&wants, &has, |wish, _| wish != 63));
    }
}
