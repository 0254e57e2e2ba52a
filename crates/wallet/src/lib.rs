//! The buyer's side: keys, signer, budgets and the paying HTTP client.
