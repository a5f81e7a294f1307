//! The common configuration: status, features, queues, and who is interrupted how (4.1.4.3).

use alloc::vec::Vec;

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::queue::{NO_VECTOR, Queue, QueueStateV1};
use super::ring::{Agreement, Ring};
use crate::pc::StateError;

/// Bytes of the common configuration.
pub(super) const LENGTH: u16 = 0x38;

bitflags! {
    /// The device status (2.1).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Status: u8 {
        /// The driver found the device.
        const ACKNOWLEDGE = 1;
        /// The driver can drive it.
        const DRIVER = 2;
        /// The device may work.
        const DRIVER_OK = 4;
        /// Features are agreed upon.
        const FEATURES_OK = 8;
        /// The device stopped and waits for a reset.
        const NEEDS_RESET = 64;
        /// The driver gave up.
        const FAILED = 128;

        /// What a driver can set.
        const WRITABLE = 0x8F;
    }

    /// Features that do not depend on what the device is (6).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Features: u64 {
        /// Descriptors may be tables.
        const INDIRECT_DESC = 1 << 28;
        /// Either side says at which index it wants to hear of progress.
        const EVENT_IDX = 1 << 29;
        /// No legacy interface.
        const VERSION_1 = 1 << 32;
    }

    /// The interrupt status (4.1.4.5).
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) struct Interrupts: u8 {
        /// Buffers were given back.
        const QUEUE = 1;
        /// The configuration, or that a reset is needed, changed.
        const CONFIGURATION = 2;
    }
}

/// A feature that a driver can choose only together with another.
#[derive(Copy, Clone, Debug)]
pub(super) struct Dependency {
    /// The feature.
    pub(super) feature: u64,
    /// The others, one of which suffices.
    pub(super) one_of: u64,
}

/// What a write leaves to be done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Nothing.
    None,
    /// The driver reset the device.
    Reset,
    /// The driver broke a rule.
    Stop(Fault),
}

/// The saved state of the common configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportStateV1 {
    /// Device status.
    pub status: u8,
    /// Which half of the device's features shows.
    pub device_select: u32,
    /// Which half of the driver's features shows.
    pub driver_select: u32,
    /// The features that the driver chose.
    pub driver_features: u64,
    /// Interrupt status.
    pub interrupts: u8,
    /// Configuration generation.
    pub generation: u8,
    /// MSI-X vector of configuration changes, 0xFFFF if there is none.
    pub config_vector: u16,
    /// Which queue shows.
    pub queue_select: u16,
    /// The queues.
    pub queues: Vec<QueueStateV1>,
}

/// The common configuration and the queues.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// What the device offers.
    features: u64,
    /// What some of that needs.
    dependencies: &'static [Dependency],
    /// MSI-X vectors that there are.
    vectors: u16,
    pub(super) status: Status,
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    pub(super) interrupts: Interrupts,
    pub(super) generation: u8,
    pub(super) config_vector: u16,
    queue_select: u16,
    pub(super) queues: Vec<Queue>,
}

impl Transport {
    /// A device with `queues` queues of at most `size` descriptors that offers `features` of its kind beside the common
    /// ones.
    pub(super) fn new(
        features: u64,
        dependencies: &'static [Dependency],
        queues: u16,
        size: u16,
    ) -> Self {
        Self {
            features: features | Features::all().bits(),
            dependencies,
            vectors: queues + 1,
            status: Status::empty(),
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            interrupts: Interrupts::empty(),
            generation: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            queues: (0..queues).map(|_| Queue::new(size)).collect(),
        }
    }

    /// A reset by the driver or of the board.
    pub(super) fn reset(&mut self) {
        let mut queues = core::mem::take(&mut self.queues);
        queues.iter_mut().for_each(Queue::reset);
        *self = Self {
            vectors: self.vectors,
            queues,
            ..Self::new(self.features, self.dependencies, 0, 0)
        };
    }

    /// Whether the device may touch the queues.
    pub(super) fn live(&self) -> bool {
        self.status.contains(Status::DRIVER_OK) && !self.status.contains(Status::NEEDS_RESET)
    }

    /// What the driver chose of the features that matter to queues.
    pub(super) fn agreement(&self) -> Agreement {
        let chosen = Features::from_bits_truncate(self.driver_features);
        Agreement {
            indirect: chosen.contains(Features::INDIRECT_DESC),
            event_index: chosen.contains(Features::EVENT_IDX),
            features: self.driver_features,
        }
    }

    /// The doubleword at `offset`, a multiple of 4 below [`LENGTH`].
    pub(super) fn read(&self, offset: u16) -> u32 {
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let pair = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
        let queue = self.queues.get(usize::from(self.queue_select));
        let address = |of: fn(&Ring) -> u64| queue.map_or(0, |queue| of(&queue.ring));
        match offset {
            0x00 => self.device_select,
            0x04 => half(self.features, self.device_select),
            0x08 => self.driver_select,
            0x0C => half(self.driver_features, self.driver_select),
            0x10 => pair(self.config_vector, self.queues.len() as u16),
            0x14 => pair(
                u16::from_le_bytes([self.status.bits(), self.generation]),
                self.queue_select,
            ),
            // A queue that does not exist has size 0.
            0x18 => queue.map_or(0, |queue| pair(queue.ring.size, queue.vector)),
            // All queues ring at the same port.
            0x1C => queue.map_or(0, |queue| pair(u16::from(queue.enabled), 0)),
            0x20 => address(|ring| ring.descriptors) as u32,
            0x24 => (address(|ring| ring.descriptors) >> 32) as u32,
            0x28 => address(|ring| ring.available) as u32,
            0x2C => (address(|ring| ring.available) >> 32) as u32,
            0x30 => address(|ring| ring.used) as u32,
            0x34 => (address(|ring| ring.used) >> 32) as u32,
            _ => 0,
        }
    }

    /// Writes those bits of the doubleword at `offset` that are set in `lanes`.
    pub(super) fn write(&mut self, offset: u16, value: u32, lanes: u32) -> Request {
        let merged = self.read(offset) & !lanes | value & lanes;
        let low = merged as u16;
        let high = (merged >> 16) as u16;
        let touches = |bits: u32| lanes & bits != 0;
        match offset {
            0x00 => self.device_select = merged,
            0x08 => self.driver_select = merged,
            0x0C => self.choose(merged),
            0x10 if touches(0xFFFF) => self.config_vector = self.vector(low),
            0x14 => {
                if touches(0xFFFF_0000) {
                    self.queue_select = high;
                }
                if touches(0xFF) {
                    return self.set_status(merged as u8);
                }
            }
            _ => return self.write_queue(offset, merged, lanes),
        }
        Request::None
    }

    fn choose(&mut self, value: u32) {
        // What was agreed upon stays.
        if self.status.contains(Status::FEATURES_OK) {
            return;
        }
        let (keep, shift) = match self.driver_select {
            0 => (!0xFFFF_FFFF, 0),
            1 => (0xFFFF_FFFF, 32),
            _ => return,
        };
        self.driver_features = self.driver_features & keep | u64::from(value) << shift;
    }

    /// A vector that does not exist reads back as none (4.1.5.1.2).
    fn vector(&self, value: u16) -> u16 {
        if value < self.vectors {
            value
        } else {
            NO_VECTOR
        }
    }

    /// Bits once set stay until a reset, which writing 0 is.
    fn set_status(&mut self, value: u8) -> Request {
        if value == 0 {
            return Request::Reset;
        }
        let mut new = Status::from_bits_truncate(value) & Status::WRITABLE;
        if !self.acceptable() {
            new.remove(Status::FEATURES_OK);
        }
        let starts = new.contains(Status::DRIVER_OK) && !self.status.contains(Status::DRIVER_OK);
        self.status |= new;
        if starts {
            // A driver may have filled its queues before.
            for queue in &mut self.queues {
                queue.notified = queue.enabled;
            }
        }
        Request::None
    }

    /// Whether the device can work with the features that the driver chose.
    fn acceptable(&self) -> bool {
        let chosen = self.driver_features;
        chosen & !self.features == 0
            && chosen & Features::VERSION_1.bits() != 0
            && self.dependencies.iter().all(|dependency| {
                chosen & dependency.feature == 0 || chosen & dependency.one_of != 0
            })
    }

    fn write_queue(&mut self, offset: u16, merged: u32, lanes: u32) -> Request {
        let vectors = self.vectors;
        let agreed = self.status.contains(Status::FEATURES_OK);
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return Request::None;
        };
        if offset == 0x18 && lanes & 0xFFFF_0000 != 0 {
            let vector = (merged >> 16) as u16;
            queue.vector = if vector < vectors { vector } else { NO_VECTOR };
        }
        // The device knows an enabled queue by what it was then.
        if queue.enabled {
            return Request::None;
        }
        let low_half = |address: u64| address & !0xFFFF_FFFF | u64::from(merged);
        let high_half = |address: u64| address & 0xFFFF_FFFF | u64::from(merged) << 32;
        let ring = &mut queue.ring;
        match offset {
            0x18 if lanes & 0xFFFF != 0 => ring.size = merged as u16,
            0x1C if merged & 1 != 0 && agreed => {
                if let Err(fault) = queue.enable() {
                    return Request::Stop(fault);
                }
            }
            0x20 => ring.descriptors = low_half(ring.descriptors),
            0x24 => ring.descriptors = high_half(ring.descriptors),
            0x28 => ring.available = low_half(ring.available),
            0x2C => ring.available = high_half(ring.available),
            0x30 => ring.used = low_half(ring.used),
            0x34 => ring.used = high_half(ring.used),
            _ => {}
        }
        Request::None
    }

    /// The driver rang for a queue.
    pub(super) fn notify(&mut self, index: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            queue.notified = queue.enabled;
        }
    }

    /// The state of the common configuration.
    pub(super) fn save(&self) -> TransportStateV1 {
        TransportStateV1 {
            status: self.status.bits(),
            device_select: self.device_select,
            driver_select: self.driver_select,
            driver_features: self.driver_features,
            interrupts: self.interrupts.bits(),
            generation: self.generation,
            config_vector: self.config_vector,
            queue_select: self.queue_select,
            queues: self.queues.iter().map(Queue::save).collect(),
        }
    }

    /// Takes on a saved state.
    pub(super) fn restore(&mut self, state: &TransportStateV1) -> Result<(), StateError> {
        let invalid = StateError::Invalid("virtio: common configuration");
        let status = Status::from_bits(state.status).ok_or(invalid)?;
        let interrupts = Interrupts::from_bits(state.interrupts).ok_or(invalid)?;
        self.driver_features = state.driver_features;
        let vectors = self.vectors;
        let known = |vector: u16| vector < vectors || vector == NO_VECTOR;
        let agreed = status.contains(Status::FEATURES_OK);
        let possible = state.queues.len() == self.queues.len()
            && known(state.config_vector)
            && state.queues.iter().all(|queue| known(queue.vector))
            && (!agreed || self.acceptable())
            && (agreed || state.queues.iter().all(|queue| !queue.enabled));
        if !possible {
            return Err(invalid);
        }
        for (queue, saved) in self.queues.iter_mut().zip(&state.queues) {
            queue.restore(saved)?;
        }
        self.status = status;
        self.device_select = state.device_select;
        self.driver_select = state.driver_select;
        self.interrupts = interrupts;
        self.generation = state.generation;
        self.config_vector = state.config_vector;
        self.queue_select = state.queue_select;
        Ok(())
    }
}
