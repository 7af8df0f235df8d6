//! Sessions of one node, spread over several healthy ones: one by one, or in groups that stay together.
//!
//! Each target is offered as many as its share of all free room, to within one session (the method of largest remainders,
//! Hamilton 1792), so nobody is asked for more than it has room for while another has room left. Same input, same answer: takers that
//! decide by themselves offer a session to the same target first.
//!
//! Whatever can be at one node only keeps sessions together: a service address is found by clients at one node at a time, so
//! all sessions with that address go there. [`spread_groups`] spreads such groups.

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

/// Sessions that go on at one node together, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Which; another one for each group.
    pub key: u64,
    /// Sessions in it. One without any counts as if it had one, for new clients will come.
    pub sessions: u64,
}

/// For each of `groups`, in any order: which targets it is offered to, the first one first. Answers come in the order of
/// `groups`.
///
/// The largest group comes first, and goes to the target that it leaves with the least part of its room taken; of those that
/// have room for all of it, as long as there are any, and otherwise to the one with most room left (Graham's rule, SIAM
/// J. Appl. Math. 17, 1969, for targets that differ). So with equal targets that have room enough, the fullest has at most
/// one group more than the emptiest, be it the largest one.
///
/// The same decides where the groups of a target go that takes none: over the others, each of which has its own already. That
/// holds for one that fails; when several do, nobody is left out, but it is not as even. Of equals the one that comes first in
/// `targets` does.
pub fn spread_groups(groups: &[Group], targets: &[Room]) -> Vec<Vec<PartyId>> {
    let mut largest_first: Vec<usize> = (0..groups.len()).collect();
    largest_first.sort_by_key(|at| (std::cmp::Reverse(groups[*at].sessions), groups[*at].key, *at));
    let mut orders = vec![Vec::with_capacity(targets.len()); groups.len()];
    let targets = targets.iter().map(|room| Taken { room: *room, taken: 0 }).collect();
    place(groups, &largest_first, targets, &mut orders);
    orders
}

/// A target, and how many sessions it would have.
#[derive(Clone, Copy)]
struct Taken {
    room: Room,
    taken: u64,
}

impl Taken {
    fn with(&self, more: u64) -> u64 {
        self.taken.saturating_add(more)
    }

    /// Whether it suits `sessions` more better than `other` does.
    fn suits_better(&self, other: &Taken, sessions: u64) -> bool {
        let fits = |target: &Taken| target.with(sessions) <= target.room.free;
        match (fits(self), fits(other)) {
            // Neither is without room: a group has one session at least.
            (true, true) => {
                let part = |of: &Taken, to: &Taken| u128::from(of.with(sessions)) * u128::from(to.room.free);
                part(self, other) < part(other, self)
            }
            (false, false) => {
                let left = |target: &Taken| i128::from(target.room.free) - i128::from(target.taken);
                left(self) > left(other)
            }
            (fits, _) => fits,
        }
    }
}

/// Places the groups `members` over `targets`, then those of each target that may fail over the others.
fn place(groups: &[Group], members: &[usize], mut targets: Vec<Taken>, orders: &mut [Vec<PartyId>]) {
    let mut placed = vec![Vec::new(); targets.len()];
    for group in members {
        let sessions = groups[*group].sessions.max(1);
        // The first of equals.
        let best = (0..targets.len())
            .reduce(|best, other| if targets[other].suits_better(&targets[best], sessions) { other } else { best });
        let Some(best) = best else { return };
        targets[best].taken = targets[best].with(sessions);
        placed[best].push(*group);
        orders[*group].push(targets[best].room.party);
    }
    for (failed, members) in placed.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
        let mut others = targets.clone();
        others.remove(failed);
        place(groups, members, others, orders);
    }
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
