//! A naive model of the pair of controllers, for comparison: one flag per input, and priorities as a list.

/// One controller of the model.
#[derive(Clone, Debug)]
struct Controller {
    line: [bool; 8],
    /// Edges seen and not acknowledged.
    edge: [bool; 8],
    level: [bool; 8],
    masked: [bool; 8],
    served: [bool; 8],
    /// Inputs, the one of highest priority first.
    order: Vec<usize>,
    base: u8,
    slaves: [bool; 8],
    /// ICW1 said that there are none.
    alone: bool,
    auto_end: bool,
    nested: bool,
    rotate: bool,
    special: bool,
    read_served: bool,
    poll: bool,
    /// Words that the data port still expects: 2, 3 and 4.
    words: Vec<u8>,
}

fn bits(flags: &[bool; 8]) -> u8 {
    flags
        .iter()
        .enumerate()
        .map(|(n, set)| u8::from(*set) << n)
        .sum()
}

fn flags(bits: u8) -> [bool; 8] {
    std::array::from_fn(|n| bits >> n & 1 == 1)
}

impl Controller {
    fn new(base: u8, slaves: u8) -> Self {
        Self {
            line: [false; 8],
            edge: [false; 8],
            level: [false; 8],
            masked: [true; 8],
            served: [false; 8],
            order: (0..8).collect(),
            base,
            slaves: flags(slaves),
            alone: false,
            auto_end: false,
            nested: false,
            rotate: false,
            special: false,
            read_served: false,
            poll: false,
            words: Vec::new(),
        }
    }

    fn drive(&mut self, input: usize, high: bool) {
        if high && !self.line[input] {
            self.edge[input] = true;
        }
        if !high {
            self.edge[input] = false;
        }
        self.line[input] = high;
    }

    fn requests(&self, input: usize) -> bool {
        if self.level[input] {
            self.line[input]
        } else {
            self.edge[input]
        }
    }

    fn has_slave(&self, input: usize) -> bool {
        self.slaves[input] && !self.alone
    }

    fn pending(&self) -> Option<usize> {
        for &input in &self.order {
            let wanted = self.requests(input) && !self.masked[input];
            let blocks = self.served[input] && !(self.special && self.masked[input]);
            if blocks {
                return (wanted && self.nested && self.has_slave(input)).then_some(input);
            }
            if wanted {
                return Some(input);
            }
        }
        None
    }

    fn make_lowest(&mut self, input: usize) {
        self.order = (1..=8).map(|n| (input + n) % 8).collect();
    }

    fn take(&mut self) -> Option<usize> {
        let input = self.pending()?;
        self.edge[input] = false;
        if !self.auto_end {
            self.served[input] = true;
        } else if self.rotate {
            self.make_lowest(input);
        }
        Some(input)
    }

    fn end(&mut self, rotate: bool) {
        let found = self
            .order
            .iter()
            .copied()
            .find(|&n| self.served[n] && !(self.special && self.masked[n]));
        if let Some(input) = found {
            self.served[input] = false;
            if rotate {
                self.make_lowest(input);
            }
        }
    }

    fn command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            let mut words = vec![2];
            if value & 2 == 0 {
                words.push(3);
            }
            if value & 1 != 0 {
                words.push(4);
            }
            *self = Self {
                line: self.line,
                level: self.level,
                masked: [false; 8],
                words,
                alone: value & 2 != 0,
                ..Self::new(self.base, bits(&self.slaves))
            };
        } else if value & 8 != 0 {
            if value & 2 != 0 {
                self.read_served = value & 1 != 0;
            }
            self.poll |= value & 4 != 0;
            if value & 0x40 != 0 {
                self.special = value & 0x20 != 0;
            }
        } else {
            let input = usize::from(value & 7);
            match value & 0xE0 {
                0x00 => self.rotate = false,
                0x20 => self.end(false),
                0x60 => self.served[input] = false,
                0x80 => self.rotate = true,
                0xA0 => self.end(true),
                0xC0 => self.make_lowest(input),
                0xE0 => {
                    self.served[input] = false;
                    self.make_lowest(input);
                }
                _ => {}
            }
        }
    }

    fn data(&mut self, value: u8) {
        if self.words.is_empty() {
            self.masked = flags(value);
            return;
        }
        match self.words.remove(0) {
            2 => self.base = value / 8 * 8,
            3 => self.slaves = flags(value),
            _ => {
                self.auto_end = value & 2 != 0;
                self.nested = value & 0x10 != 0;
            }
        }
    }
}

/// The model of the pair.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    chips: [Controller; 2],
}

impl Pair {
    pub(super) fn new() -> Self {
        Self {
            chips: [Controller::new(0x08, 0x04), Controller::new(0x70, 0x02)],
        }
    }

    fn settle(&mut self) {
        let high = self.chips[1].pending().is_some();
        self.chips[0].drive(2, high);
    }

    pub(super) fn drive(&mut self, irq: u8, high: bool) {
        if irq != 2 {
            self.chips[usize::from(irq / 8)].drive(usize::from(irq % 8), high);
        }
        self.settle();
    }

    pub(super) fn interrupt(&self) -> bool {
        self.chips[0].pending().is_some()
    }

    pub(super) fn acknowledge(&mut self) -> u8 {
        let input = self.chips[0].take().unwrap_or(7);
        let mut vector = self.chips[0].base + input as u8;
        if input == 2 && self.chips[0].has_slave(2) {
            vector = self.chips[1].base + self.chips[1].take().unwrap_or(7) as u8;
            self.chips[0].drive(2, false);
        }
        self.settle();
        vector
    }

    pub(super) fn read(&mut self, chip: usize, data: bool) -> u8 {
        let controller = &mut self.chips[chip];
        if std::mem::take(&mut controller.poll) {
            let answer = controller.take().map_or(7, |input| 0x80 + input as u8);
            if chip == 1 {
                self.chips[0].drive(2, false);
            }
            self.settle();
            return answer;
        }
        if data {
            bits(&controller.masked)
        } else if controller.read_served {
            bits(&controller.served)
        } else {
            bits(&std::array::from_fn(|input| controller.requests(input)))
        }
    }

    pub(super) fn write(&mut self, chip: usize, data: bool, value: u8) {
        if data {
            self.chips[chip].data(value);
        } else {
            self.chips[chip].command(value);
        }
        self.settle();
    }

    pub(super) fn sense(&mut self, chip: usize, value: u8) {
        let controller = &mut self.chips[chip];
        for input in 0..8 {
            let fixed = if chip == 0 {
                input < 3
            } else {
                input == 0 || input == 5
            };
            let level = !fixed && value >> input & 1 == 1;
            // An input that turns edge-sensitive keeps what it requests.
            if controller.level[input] && !level {
                controller.edge[input] = controller.line[input];
            }
            controller.level[input] = level;
        }
        self.settle();
    }
}
