//! The k-th smallest of the last so many values, without sorting: O(log n) a value.
//!
//! Two heaps share one array of places: the `k` smallest in one whose root is their largest, the rest in one whose root
//! is their smallest. A value that falls out of the window is replaced where it lies.

/// The last `capacity` values, and one of them by rank.
#[derive(Clone, Debug)]
pub(super) struct OrderWindow {
    values: Box<[u64]>,
    len: usize,
    oldest: usize,
    /// Places of values, as two heaps: `small..` after each other, the low one first.
    low: Vec<u32>,
    high: Vec<u32>,
    /// For each place, where in which heap it is: index, and whether in the high one.
    position: Box<[(u32, bool)]>,
}

impl OrderWindow {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, super::MAX_WINDOW);
        OrderWindow {
            values: vec![0; capacity].into_boxed_slice(),
            len: 0,
            oldest: 0,
            // One more than the window, for the moment of passing a value from one to the other.
            low: Vec::with_capacity(capacity + 1),
            high: Vec::with_capacity(capacity + 1),
            position: vec![(0, false); capacity].into_boxed_slice(),
        }
    }

    /// The largest of the values that are kept low: the k-th smallest, of the k in the last [`push`](Self::push).
    #[inline]
    pub(super) fn at_rank(&self) -> Option<u64> {
        self.low.first().map(|place| self.values[*place as usize])
    }

    /// Takes a value in, for the oldest one if the window is full, and keeps the `rank(n)` smallest of the n values low.
    #[inline]
    pub(super) fn push(&mut self, value: u64, rank: impl Fn(usize) -> usize) {
        if self.len < self.values.len() {
            let place = self.len;
            self.len += 1;
            self.values[place] = value;
            let is_high = self.at_rank().is_some_and(|largest| value > largest);
            self.insert(place as u32, is_high);
        } else {
            let place = self.oldest;
            self.oldest = if place + 1 == self.values.len() { 0 } else { place + 1 };
            self.values[place] = value;
            let (index, is_high) = self.position[place];
            self.settle(index as usize, is_high);
            self.exchange_roots();
        }
        let rank = rank(self.len).clamp(1, self.len);
        while self.low.len() < rank {
            let place = self.remove_root(true);
            self.insert(place, false);
        }
        while self.low.len() > rank {
            let place = self.remove_root(false);
            self.insert(place, true);
        }
    }

    /// After one value changed: the roots may be on the wrong sides, and nothing else.
    fn exchange_roots(&mut self) {
        let (Some(&low), Some(&high)) = (self.low.first(), self.high.first()) else { return };
        if self.values[low as usize] > self.values[high as usize] {
            (self.low[0], self.high[0]) = (high, low);
            (self.position[low as usize], self.position[high as usize]) = ((0, true), (0, false));
            self.settle(0, false);
            self.settle(0, true);
        }
    }

    fn insert(&mut self, place: u32, is_high: bool) {
        let heap = if is_high { &mut self.high } else { &mut self.low };
        heap.push(place);
        let index = heap.len() - 1;
        self.position[place as usize] = (index as u32, is_high);
        self.settle(index, is_high);
    }

    fn remove_root(&mut self, is_high: bool) -> u32 {
        let heap = if is_high { &mut self.high } else { &mut self.low };
        let root = heap.swap_remove(0);
        if let Some(&moved) = heap.first() {
            self.position[moved as usize] = (0, is_high);
            self.settle(0, is_high);
        }
        root
    }

    /// Moves what lies at `index` up or down to where it belongs.
    fn settle(&mut self, mut index: usize, is_high: bool) {
        let (values, position) = (&self.values, &mut self.position);
        let heap = if is_high { &mut self.high } else { &mut self.low };
        // Whether `a` belongs above `b`.
        let above = |a: u32, b: u32| {
            (values[a as usize] < values[b as usize]) == is_high && values[a as usize] != values[b as usize]
        };
        let mut swap = |heap: &mut Vec<u32>, a: usize, b: usize| {
            heap.swap(a, b);
            position[heap[a] as usize].0 = a as u32;
            position[heap[b] as usize].0 = b as u32;
        };
        while index > 0 && above(heap[index], heap[(index - 1) / 2]) {
            swap(heap, index, (index - 1) / 2);
            index = (index - 1) / 2;
        }
        loop {
            let mut top = index;
            for child in [2 * index + 1, 2 * index + 2] {
                if child < heap.len() && above(heap[child], heap[top]) {
                    top = child;
                }
            }
            if top == index {
                break;
            }
            swap(heap, index, top);
            index = top;
        }
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
