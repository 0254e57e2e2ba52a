//! The Merkle tree: its hashes, and proofs about them.
//!
//! Spec: RFC 9162, section 2.1 (the same tree as in RFC 6962).

use sha2::{Digest, Sha256};

pub type Hash = [u8; 32];

/// No proof about a tree of fewer than 2^63 leaves is longer.
pub const MAX_PATH: usize = 64;

/// Spec: RFC 9162, section 2.1.1: `HASH()`.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Spec: RFC 9162, section 2.1.1: `HASH(0x00 || d)`.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(leaf);
    hash.finalize().into()
}

/// Spec: RFC 9162, section 2.1.1: `HASH(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// The root over so many hashes of one level.
pub fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => empty_root(),
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// Whoever knows the hashes of complete subtrees.
pub trait Nodes {
    type Error;

    /// The root over the leaves `[index << height, (index + 1) << height)`, all of which are in the tree.
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The largest power of two that is less than `n`, which is 2 at least.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The root over the leaves `[from, to)` of a tree, where `from` is where a subtree of that size begins.
fn subtree<N: Nodes>(nodes: &mut N, from: u64, to: u64) -> Result<Hash, N::Error> {
    let n = to - from;
    if n == 0 {
        return Ok(empty_root());
    }
    if n.is_power_of_two() {
        let height = n.trailing_zeros();
        return nodes.node(height, from >> height);
    }
    let middle = from + split(n);
    Ok(node_hash(&subtree(nodes, from, middle)?, &subtree(nodes, middle, to)?))
}

/// The root of the tree's first `size` leaves.
pub(crate) fn root_at<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    subtree(nodes, 0, size)
}

/// The proof that the leaf at `index` is in the tree of `size` leaves; empty where it is in none.
///
/// Spec: RFC 9162, section 2.1.3.1.
pub fn inclusion_proof<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut from, mut to) = (0, size);
    // From the root down; the proof is from the leaf up.
    while index < to && to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(subtree(nodes, middle, to)?);
            to = middle;
        } else {
            path.push(subtree(nodes, from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` proves that `leaf` is at `index` of the tree with that size and root.
///
/// Spec: RFC 9162, section 2.1.3.2.
pub fn is_included(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for beside in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(beside, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The proof that the tree of `size` leaves begins with the one of `first` leaves.
///
/// Spec: RFC 9162, section 2.1.4.1.
pub fn consistency_proof<N: Nodes>(nodes: &mut N, first: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    if first == 0 || first >= size {
        return Ok(path);
    }
    let (mut from, mut to) = (0, size);
    // Whether the subtree is one that the verifier knows, since it is the whole first tree.
    let mut known = true;
    while first != to {
        let middle = from + split(to - from);
        if first <= middle {
            path.push(subtree(nodes, middle, to)?);
            to = middle;
        } else {
            path.push(subtree(nodes, from, middle)?);
            from = middle;
            known = false;
        }
    }
    if !known {
        path.push(subtree(nodes, from, to)?);
    }
    path.reverse();
    Ok(path)
}

/// A tree by its size and root.
pub(crate) type Head = (u64, Hash);

/// Whether `path` proves that the second tree begins with the first.
///
/// Spec: RFC 9162, section 2.1.4.2.
pub fn is_consistent((first, first_root): Head, (second, second_root): Head, path: &[Hash]) -> bool {
    if first == second {
        return path.is_empty() && first_root == second_root;
    }
    if first == 0 {
        return path.is_empty() && first_root == empty_root();
    }
    if first > second {
        return false;
    }
    // A first tree that is complete is its own beginning.
    let (begin, rest) = match path {
        _ if first.is_power_of_two() => (first_root, path),
        [begin, rest @ ..] => (*begin, rest),
        [] => return false,
    };
    let (mut node, mut last) = (first - 1, second - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut one, mut two) = (begin, begin);
    for beside in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            one = node_hash(beside, &one);
            two = node_hash(beside, &two);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            two = node_hash(&two, beside);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && one == first_root && two == second_root
}
