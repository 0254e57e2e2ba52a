//! The seller's side: a tower layer, route matching, pricing.
