//! Takes away from a plan whatever its violation does not need.

use crate::plan::Plan;
use crate::run::run;

/// The smallest plan found that still breaks something, by leaving out ever smaller parts.
pub fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let mut part = best.lines.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < best.lines.len() {
            let mut candidate = best.clone();
            candidate.lines.drain(at..(at + part).min(best.lines.len()));
            if run(&candidate, false).violation.is_some() {
                best = candidate;
                smaller = true;
            } else {
                at += part;
            }
        }
        if part == 1 && !smaller {
            return best;
        }
        part = part.div_ceil(2).max(1);
    }
}
