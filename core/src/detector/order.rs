//! The k-th smallest of the last so many values, without sorting: O(log n) a value.
//!
//! Two heaps: the `k` smallest in one whose root is their largest, the rest in one whose root is their smallest. A value
//! that falls out of the window is replaced where it lies. Values that change sides meet at the roots, so one that is new
//! to a side goes down from its root, and the root that makes room goes to the other side's top: no search is repeated.

/// A value, and which of the window's places it is in. The order of keys is that of the values, reversed in the low heap.
#[derive(Clone, Copy, Debug)]
struct Item {
    key: u64,
    place: u32,
}

/// A heap whose root has the least key.
#[derive(Clone, Debug)]
struct Heap {
    items: Vec<Item>,
    /// What makes a value a key, and a key a value.
    mask: u64,
}

const LOW: usize = 0;
const HIGH: usize = 1;

/// The last `capacity` values, and one of them by rank.
#[derive(Clone, Debug)]
pub(super) struct OrderWindow {
    capacity: usize,
    oldest: usize,
    /// The smallest values, and the others.
    heaps: [Heap; 2],
    /// For each place, which heap its value is in, and where there.
    homes: Vec<Home>,
}

#[derive(Clone, Copy, Debug)]
struct Home {
    index: u32,
    is_high: bool,
}

impl OrderWindow {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, super::MAX_WINDOW);
        // One more than the window, for the moment of passing a value from one to the other.
        let heap = |mask| Heap { items: Vec::with_capacity(capacity + 1), mask };
        OrderWindow { capacity, oldest: 0, heaps: [heap(u64::MAX), heap(0)], homes: Vec::with_capacity(capacity) }
    }

    /// The largest of the values that are kept low: the k-th smallest, of the k in the last [`push`](Self::push).
    #[inline]
    pub(super) fn at_rank(&self) -> Option<u64> {
        self.heaps[LOW].root()
    }

    /// Takes a value in, for the oldest one if the window is full, and keeps the `rank(n)` smallest of the n values low.
    #[inline]
    pub(super) fn push(&mut self, value: u64, rank: impl Fn(usize) -> usize) {
        if self.homes.len() < self.capacity {
            let is_high = self.at_rank().is_some_and(|largest| value > largest);
            let place = self.homes.len() as u32;
            self.homes.push(Home { index: 0, is_high });
            self.heaps[usize::from(is_high)].insert(value, place, &mut self.homes);
        } else {
            let place = self.oldest;
            self.oldest = if place + 1 == self.capacity { 0 } else { place + 1 };
            self.replace(place, value);
        }
        let len = self.homes.len();
        let rank = rank(len).clamp(1, len);
        while self.heaps[LOW].items.len() < rank {
            self.pass_root(HIGH, LOW);
        }
        while self.heaps[LOW].items.len() > rank {
            self.pass_root(LOW, HIGH);
        }
    }

    /// Puts `value` in a place where another one is. How many are low does not change.
    #[inline]
    fn replace(&mut self, place: usize, value: u64) {
        let Home { index, is_high } = self.homes[place];
        let [low, high] = &mut self.heaps;
        let (own, other) = if is_high { (high, low) } else { (low, high) };
        let (index, place, homes) = (index as usize, place as u32, &mut self.homes);
        // Beyond the other side's root, as seen from there.
        match other.items.first() {
            Some(&Item { key, place: passed }) if value ^ other.mask > key => {
                own.up(index, Item { key: key ^ other.mask ^ own.mask, place: passed }, homes);
                other.down(0, Item { key: value ^ other.mask, place }, homes);
            }
            _ => own.settle(index, Item { key: value ^ own.mask, place }, homes),
        }
    }

    /// Moves a root, if there is one, to the other heap.
    fn pass_root(&mut self, from: usize, to: usize) {
        if let Some((value, place)) = self.heaps[from].remove_root(&mut self.homes) {
            self.heaps[to].insert(value, place, &mut self.homes);
        }
    }
}

impl Heap {
    #[inline]
    fn root(&self) -> Option<u64> {
        self.items.first().map(|item| item.key ^ self.mask)
    }

    fn insert(&mut self, value: u64, place: u32, homes: &mut [Home]) {
        let item = Item { key: value ^ self.mask, place };
        self.items.push(item);
        self.up(self.items.len() - 1, item, homes);
    }

    fn remove_root(&mut self, homes: &mut [Home]) -> Option<(u64, u32)> {
        let last = self.items.pop()?;
        let Some(&root) = self.items.first() else { return Some((last.key ^ self.mask, last.place)) };
        self.down(0, last, homes);
        Some((root.key ^ self.mask, root.place))
    }

    /// Puts an item at `index`, whose own is dropped, or above or below.
    #[inline]
    fn settle(&mut self, index: usize, item: Item, homes: &mut [Home]) {
        if index > 0 && item.key < self.items[(index - 1) / 2].key {
            self.up(index, item, homes);
        } else {
            self.down(index, item, homes);
        }
    }

    /// Puts an item at `index` or above.
    #[inline]
    fn up(&mut self, mut index: usize, item: Item, homes: &mut [Home]) {
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.items[parent].key <= item.key {
                break;
            }
            self.put(index, self.items[parent], homes);
            index = parent;
        }
        self.put(index, item, homes);
    }

    /// Puts an item at `index` or below.
    #[inline]
    fn down(&mut self, mut index: usize, item: Item, homes: &mut [Home]) {
        while let Some([left, right]) = self.items.get(2 * index + 1..2 * index + 3) {
            // Without a branch: which of two children is the smaller can't be predicted.
            let child = 2 * index + 1 + usize::from(right.key < left.key);
            if self.items[child].key >= item.key {
                return self.put(index, item, homes);
            }
            self.put(index, self.items[child], homes);
            index = child;
        }
        // The last item may be an only child.
        if let Some(&only) = self.items.get(2 * index + 1)
            && only.key < item.key
        {
            self.put(index, only, homes);
            index = 2 * index + 1;
        }
        self.put(index, item, homes);
    }

    #[inline]
    fn put(&mut self, index: usize, item: Item, homes: &mut [Home]) {
        self.items[index] = item;
        homes[item.place as usize] = Home { index: index as u32, is_high: self.mask == 0 };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_what_sorting_gives(
            values in prop::collection::vec(0u64..50, 1..200),
            capacity in 1usize..30,
            percent in 0usize..=100,
        ) {
            let rank = |n: usize| (n * percent).div_ceil(100);
            let mut window = OrderWindow::new(capacity);
            for (count, value) in values.iter().enumerate() {
                window.push(*value, rank);
                let mut last = values[(count + 1).saturating_sub(capacity)..=count].to_vec();
                last.sort_unstable();
                prop_assert_eq!(window.at_rank(), Some(last[rank(last.len()).max(1) - 1]));
            }
        }
    }
}
