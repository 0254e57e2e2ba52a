//! decide(rules, spent, request, now): pure, default deny, with reasons.
