//! What checkpoints cost.

use core::fmt;

/// Sums over checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    count: u64,
    pages: Sums,
    pause: Sums,
    /// Of the products of both, and of the squares of the pages.
    products: u128,
    squares: u128,
    /// Bytes of the last state.
    state: usize,
}

#[derive(Debug, Default)]
struct Sums {
    least: u64,
    most: u64,
    total: u64,
}

impl Sums {
    fn add(&mut self, value: u64, first: bool) {
        self.least = if first { value } else { self.least.min(value) };
        self.most = self.most.max(value);
        self.total = self.total.saturating_add(value);
    }
}

impl Figures {
    /// Adds a checkpoint of so many pages, for which the guest stood still so many ticks, with so many bytes beside.
    pub(crate) fn add(&mut self, pages: u64, pause: u64, state: usize) {
        let first = self.count == 0;
        self.count += 1;
        self.pages.add(pages, first);
        self.pause.add(pause, first);
        self.products += u128::from(pages) * u128::from(pause);
        self.squares += u128::from(pages) * u128::from(pages);
        self.state = state;
    }

    /// The line through the pauses over the pages that fits best: ticks for no page, and for each. `None` where the
    /// checkpoints are too few, or too much alike.
    fn line(&self) -> Option<(i128, i128)> {
        let (count, pages) = (i128::from(self.count), i128::from(self.pages.total));
        let pause = i128::from(self.pause.total);
        let spread = (count * self.squares as i128 - pages * pages).max(0);
        let each = (count * self.products as i128 - pages * pause).checked_div(spread)?;
        let fixed = (pause - each * pages).checked_div(count)?;
        Some((fixed, each))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pages, pause, count) = (&self.pages, &self.pause, self.count);
        let mean = |sums: &Sums| sums.total.checked_div(count).unwrap_or(0);
        write!(
            f,
            "{count} checkpoints of {} to {} pages, {} on average, in pauses of {} to {} ticks, {} on average",
            pages.least,
            pages.most,
            mean(pages),
            pause.least,
            pause.most,
            mean(pause)
        )?;
        if let Some((fixed, each)) = self.line() {
            write!(f, ", about {fixed} and {each} for each page")?;
        }
        write!(f, "; {} bytes of state", self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        let mut figures = Figures::default();
        assert_eq!(figures.line(), None);
        for pages in [10, 100, 10, 50] {
            figures.add(pages, 5000 + 600 * pages, 1234);
        }
        assert_eq!(
            figures.to_string(),
            "4 checkpoints of 10 to 100 pages, 42 on average, in pauses of 11000 to 65000 ticks, 30500 on average, \
             about 5000 and 600 for each page; 1234 bytes of state"
        );
        let mut alike = Figures::default();
        alike.add(7, 100, 0);
        alike.add(7, 200, 0);
        assert_eq!(alike.line(), None);
    }
}
