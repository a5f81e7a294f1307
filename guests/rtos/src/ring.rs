//! A bounded first-in first-out queue of plain values.

/// Up to `N` values.
#[derive(Clone, Debug)]
pub struct Ring<T, const N: usize> {
    items: [T; N],
    head: usize,
    length: usize,
}

impl<T: Copy, const N: usize> Ring<T, N> {
    /// An empty ring; `filler` only gives the unused places a value.
    #[must_use]
    pub const fn new(filler: T) -> Self {
        Self {
            items: [filler; N],
            head: 0,
            length: 0,
        }
    }

    /// Adds a value at the end, or gives it back if the ring is full.
    ///
    /// # Errors
    /// The value itself, if there is no room.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.items[(self.head + self.length) % N] = item;
        self.length += 1;
        Ok(())
    }

    /// Takes the first value.
    pub fn pop(&mut self) -> Option<T> {
        if self.length == 0 {
            return None;
        }
        let item = self.items[self.head];
        self.head = (self.head + 1) % N;
        self.length -= 1;
        Some(item)
    }

    /// How many values wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether there is no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.length == N
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::Ring;

    proptest! {
        #[test]
        fn behaves_as_a_bounded_queue(steps in prop::collection::vec(prop::option::of(any::<u8>()), 0..200)) {
            let (mut ring, mut model) = (Ring::<u8, 5>::new(0), VecDeque::new());
            for step in steps {
                match step {
                    Some(value) if model.len() < 5 => {
                        model.push_back(value);
                        prop_assert_eq!(ring.push(value), Ok(()));
                    }
                    Some(value) => prop_assert_eq!(ring.push(value), Err(value)),
                    None => prop_assert_eq!(ring.pop(), model.pop_front()),
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!((ring.is_empty(), ring.is_full()), (model.is_empty(), model.len() == 5));
            }
        }
    }
}
