//! Sessions of one node, spread over several healthy ones.
//!
//! Each target is offered as many as its share of all free room, to within one session (the method of largest remainders,
//! Hamilton 1792), so nobody is asked for more than it has room for while another has room left. Same input, same answer: takers that
//! decide by themselves offer a session to the same target first.

use crate::takeover::PartyId;

/// How many sessions a healthy node has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Room {
    /// Which node.
    pub party: PartyId,
    /// Sessions that it can carry on.
    pub free: u64,
}

/// For each of `sessions`, by number and in any order: which targets it is offered to, the first one first. Answers come in
/// the order of `sessions`.
///
/// After its first target a session is offered to the others, those with most room left first. Targets without room come
/// last, for they may have some by then. Of equals the one that comes first in `targets` does.
pub fn spread(sessions: &[u64], targets: &[Room]) -> Vec<Vec<PartyId>> {
    // By number, so that whoever found them in another order decides alike.
    let mut order: Vec<usize> = (0..sessions.len()).collect();
    order.sort_by_key(|at| (sessions[*at], *at));
    let shares = shares(sessions.len() as u64, targets);
    let mut left: Vec<u64> = targets.iter().zip(&shares).map(|(target, share)| target.free - share).collect();
    let mut to_give = shares;
    let mut orders = vec![Vec::new(); sessions.len()];
    for at in order {
        // Whoever is to get most of what is still to be given, so that neighbours by number go to different targets.
        let first = (0..targets.len())
            .filter(|target| to_give[*target] > 0)
            .max_by_key(|target| (to_give[*target], std::cmp::Reverse(*target)));
        if let Some(first) = first {
            to_give[first] -= 1;
        }
        let mut others: Vec<usize> = (0..targets.len()).filter(|target| Some(*target) != first).collect();
        others.sort_by_key(|target| (std::cmp::Reverse(left[*target]), *target));
        if first.is_none()
            && let Some(most) = others.first()
        {
            // More sessions than room: whoever is asked beyond its room, is asked in turn.
            left[*most] = left[*most].saturating_sub(1);
        }
        orders[at] = first.into_iter().chain(others).map(|target| targets[target].party).collect();
    }
    orders
}

/// How many of `sessions` each target gets: no more than it has room for.
pub(super) fn shares(sessions: u64, targets: &[Room]) -> Vec<u64> {
    let room: u128 = targets.iter().map(|target| u128::from(target.free)).sum();
    let sessions = u128::from(sessions).min(room);
    if room == 0 {
        return vec![0; targets.len()];
    }
    // Less than 2¹²⁸: both factors are below 2⁶⁴.
    let exact = |target: &Room| u128::from(target.free) * sessions;
    let mut shares: Vec<u64> = targets.iter().map(|target| (exact(target) / room) as u64).collect();
    let given: u128 = shares.iter().map(|share| u128::from(*share)).sum();
    let mut by_remainder: Vec<usize> = (0..targets.len()).collect();
    by_remainder.sort_by_key(|target| (std::cmp::Reverse(exact(&targets[*target]) % room), *target));
    // There are fewer of these than targets with a remainder.
    by_remainder.into_iter().take((sessions - given) as usize).for_each(|target| shares[target] += 1);
    shares
}
