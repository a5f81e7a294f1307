//! The PCI function of a virtio device (4.1).
//!
//! BAR 0 is ports: common configuration, doorbell, interrupt status and the device's configuration. BAR 1 is a page
//! of memory with the MSI-X table.

mod network;
mod window;

use alloc::boxed::Box;
use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::console::{self, Console};
use super::entropy::Entropy;
use super::model::{Model, ModelStateV1};
use super::net::Net;
use super::queue::{NO_VECTOR, Queue};
use super::transport::{self, Interrupts, Request, Status, Transport, TransportStateV1};
use super::{Budget, Disk, Fault};
use crate::acpi::PCI_MEMORY;
use crate::msi::Dispatch;
use crate::nic::NicConfig;
use crate::pc::{Effects, StateError, Width};
use crate::pci::endpoint::{self, Bar, Command, Endpoint, EndpointStateV1, Identity};
use crate::pci::msix::{MsiX, MsiXStateV1};
pub use window::WindowStateV1;

/// PCI vendor of all virtio devices, and the device ID of type 0.
const VENDOR: u16 = 0x1AF4;
const DEVICE: u16 = 0x1040;
/// Subsystems from this on are those of devices without the legacy interface.
const SUBSYSTEM: u16 = 0x40;

/// The base address registers.
const PORTS_BAR: u8 = 0;
const TABLE_BAR: u8 = 1;
/// Ports of a device, and bytes of its page.
const PORTS: u16 = 0x100;
const PAGE: u16 = 0x1000;

/// What is at which port.
const COMMON: Range<u16> = 0..transport::LENGTH;
const DOORBELL: Range<u16> = 0x40..0x42;
const INTERRUPTS: Range<u16> = 0x44..0x45;
const CONFIGURATION: Range<u16> = 0x80..PORTS;

/// The capabilities' places in the configuration space, of which the last ends at 0xA4.
const CAPABILITY_COMMON: u8 = endpoint::CAPABILITIES;
const CAPABILITY_DOORBELL: u8 = 0x50;
const CAPABILITY_INTERRUPTS: u8 = 0x64;
const CAPABILITY_CONFIGURATION: u8 = 0x74;
const CAPABILITY_WINDOW: u8 = 0x84;
const CAPABILITY_MSIX: u8 = 0x98;

/// The registers of the window's capability.
const WINDOW_BAR: u8 = CAPABILITY_WINDOW + 4;
const WINDOW_OFFSET: u8 = CAPABILITY_WINDOW + 8;
const WINDOW_LENGTH: u8 = CAPABILITY_WINDOW + 12;
const WINDOW_DATA: u8 = CAPABILITY_WINDOW + 16;

/// The saved state of a virtio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionStateV1 {
    /// The configuration header.
    pub endpoint: EndpointStateV1,
    /// Access to the ports by configuration.
    pub window: WindowStateV1,
    /// Messages.
    pub msix: MsiXStateV1,
    /// Common configuration and queues.
    pub transport: TransportStateV1,
    /// What kind of device it is.
    pub model: ModelStateV1,
    /// Which queue is the first to be worked on next.
    pub turn: u16,
    /// How often the device stopped.
    pub faults: u32,
}

/// A virtio device on the PCI bus.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    endpoint: Endpoint,
    window: WindowStateV1,
    msix: MsiX,
    transport: Transport,
    model: Model,
    /// Which queue is the first to be worked on, so that none waits for another's end.
    turn: usize,
    faults: u32,
}

impl Function {
    /// A disk, as device `device` of the bus and disk `number` of the board.
    pub(crate) fn disk(device: u8, number: u8, disk: Disk) -> Self {
        Self::new(device, Model::Block(Block::new(number, disk)))
    }

    /// A console.
    pub(crate) fn console(device: u8) -> Self {
        Self::new(device, Model::Console(Console::new()))
    }

    /// A source of entropy.
    pub(crate) fn entropy(device: u8) -> Self {
        Self::new(device, Model::Entropy(Entropy))
    }

    /// Network card `nic` of the board, with `pairs` pairs of queues.
    pub(crate) fn net(device: u8, nic: u8, config: &NicConfig, pairs: u16) -> Self {
        Self::new(device, Model::Net(Box::new(Net::new(nic, config, pairs))))
    }

    fn new(device: u8, model: Model) -> Self {
        let identity = model.identity();
        let none = Bar::None;
        let ports = Bar::Io(PORTS);
        let table = Bar::Memory(u32::from(PAGE));
        let header = Identity {
            vendor: VENDOR,
            device: DEVICE + identity.kind,
            class: identity.class,
            // Devices without the legacy interface have revision 1 or more.
            revision: 1,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM + identity.kind,
            capabilities: true,
            bars: [ports, table, none, none, none, none],
        };
        let firmware_ports = endpoint::firmware_io(device);
        let firmware_table = PCI_MEMORY.0 + u32::from(PAGE) * u32::from(device);
        Self {
            endpoint: Endpoint::new(device, header, [firmware_ports, firmware_table, 0, 0, 0, 0]),
            window: WindowStateV1::default(),
            msix: MsiX::new(identity.queues + 1),
            transport: Transport::new(
                model.features(),
                model.dependencies(),
                identity.queues,
                identity.queue_size,
            ),
            model,
            turn: 0,
            faults: 0,
        }
    }

    /// A reset of the board.
    pub(crate) fn reset(&mut self, effects: &mut impl Effects) {
        self.endpoint.reset();
        self.window = WindowStateV1::default();
        self.msix.reset();
        self.reset_device(effects);
    }

    fn reset_device(&mut self, effects: &mut impl Effects) {
        self.take_back(effects);
        self.transport.reset();
        self.model.reset();
        self.turn = 0;
    }

    /// The device number on the bus.
    pub(crate) const fn device(&self) -> u8 {
        self.endpoint.device()
    }

    /// Whether it is a console.
    pub(crate) const fn is_console(&self) -> bool {
        matches!(self.model, Model::Console(_))
    }

    /// Whether a driver drives the device.
    pub(crate) fn live(&self) -> bool {
        self.transport.live() && self.endpoint.command().contains(Command::MASTER)
    }

    /// Whether there is work that [`work`](Self::work) would go on with.
    pub(crate) fn working(&self) -> bool {
        self.transport.queues.iter().any(|queue| queue.notified) && self.live()
    }

    /// Works for as long as one budget lasts.
    pub(crate) fn work(&mut self, effects: &mut impl Effects) {
        if !self.live() {
            return;
        }
        let mut budget = Budget::new();
        let agreed = self.transport.agreement();
        let count = self.transport.queues.len();
        let mut next = self.turn;
        for _ in 0..count {
            let index = next;
            next = if index + 1 < count { index + 1 } else { 0 };
            let Some(queue) = self.transport.queues.get_mut(index) else {
                return;
            };
            if !queue.notified {
                continue;
            }
            let vector = queue.vector;
            let served = self
                .model
                .serve(index, queue, agreed, &mut budget, effects)
                .and_then(|()| queue.ring.interrupts(agreed, effects));
            match served {
                Ok(true) => self.interrupt(Interrupts::QUEUE, vector),
                Ok(false) => {}
                Err(fault) => return self.stop(fault, effects),
            }
            if budget.left() == 0 {
                self.turn = next;
                return;
            }
        }
    }

    /// Tells a driver that the configuration changed.
    fn configuration_changed(&mut self) {
        self.transport.generation = self.transport.generation.wrapping_add(1);
        if self.transport.status.contains(Status::DRIVER_OK) {
            self.interrupt(Interrupts::CONFIGURATION, self.transport.config_vector);
        }
    }

    /// How many bytes can be typed into a console.
    pub(crate) fn room(&self) -> usize {
        match &self.model {
            Model::Console(console) => console.room(),
            Model::Block(_) | Model::Entropy(_) | Model::Net(_) => 0,
        }
    }

    /// Types bytes into a console that a driver drives; returns how many it took.
    pub(crate) fn receive(&mut self, bytes: &[u8], effects: &mut impl Effects) -> usize {
        let Model::Console(console) = &mut self.model else {
            return 0;
        };
        let taken = console.receive(bytes);
        self.transport.notify(console::RECEIVE as u16);
        self.work(effects);
        taken
    }

    fn interrupt(&mut self, cause: Interrupts, vector: u16) {
        // With messages, only the configuration's cause shows (4.1.4.5.1).
        if !self.msix.enabled() || cause == Interrupts::CONFIGURATION {
            self.transport.interrupts |= cause;
        }
        if vector != NO_VECTOR {
            self.msix.raise(vector);
        }
    }

    /// Stops the device until its driver resets it (2.1.2). What it was at is forgotten.
    fn stop(&mut self, fault: Fault, effects: &mut impl Effects) {
        self.faults = self.faults.saturating_add(1);
        effects.device_stopped(self.device(), fault, self.faults);
        self.take_back(effects);
        self.transport.queues.iter_mut().for_each(Queue::abandon);
        self.model.reset();
        self.transport.status |= Status::NEEDS_RESET;
        self.configuration_changed();
    }

    /// The I/O APIC's input that the device asserts.
    pub(crate) fn line(&self) -> Option<u8> {
        self.endpoint.input(self.asks())
    }

    /// Whether the device asks for its interrupt pin.
    fn asks(&self) -> bool {
        !self.msix.enabled() && !self.transport.interrupts.is_empty()
    }

    /// Sends the messages that wait, if the device may.
    pub(crate) fn send(&mut self, to: impl FnMut(Dispatch)) {
        if self.endpoint.command().contains(Command::MASTER) {
            self.msix.send(to);
        }
    }

    /// The first of the device's ports and how many they are, if it decodes them.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        Some((self.endpoint.io_base(usize::from(PORTS_BAR))?, PORTS))
    }

    /// The offset of an address in the device's page.
    pub(crate) fn address(&self, address: u64) -> Option<u16> {
        let base = self.endpoint.memory_base(usize::from(TABLE_BAR))?;
        let offset = address.checked_sub(base)?;
        (offset < u64::from(PAGE)).then_some(offset as u16)
    }

    /// A read of `width` from the port at `offset`.
    pub(crate) fn read_port(&mut self, offset: u16, width: Width) -> u32 {
        let mut value = 0;
        for (index, at) in (offset..).take(usize::from(width.bytes())).enumerate() {
            value |= u32::from(self.read_byte(at)) << (8 * index);
        }
        value
    }

    fn read_byte(&mut self, offset: u16) -> u8 {
        let lane = 8 * (offset & 3);
        match offset {
            _ if COMMON.contains(&offset) => (self.transport.read(offset & !3) >> lane) as u8,
            _ if INTERRUPTS.contains(&offset) => {
                let causes = self.transport.interrupts.bits();
                self.transport.interrupts = Interrupts::empty();
                causes
            }
            _ if CONFIGURATION.contains(&offset) => {
                let offset = offset - CONFIGURATION.start;
                (self.model.configuration(offset & !3) >> lane) as u8
            }
            _ => 0,
        }
    }

    /// A write of `width` to the port at `offset`.
    pub(crate) fn write_port(
        &mut self,
        offset: u16,
        width: Width,
        value: u32,
        effects: &mut impl Effects,
    ) {
        if offset == DOORBELL.start {
            self.transport.notify(value as u16);
            if effects.has_time() {
                self.work(effects);
            }
            return;
        }
        let within = offset & 3;
        // What crosses a doubleword, no driver does (4.1.3.1).
        if within + u16::from(width.bytes()) > 4 || !COMMON.contains(&offset) {
            return;
        }
        let lanes = width.mask() << (8 * within);
        let request = self
            .transport
            .write(offset & !3, value << (8 * within), lanes);
        match request {
            // The device may be live now.
            Request::None => self.lend(effects),
            Request::Reset => self.reset_device(effects),
            Request::Stop(fault) => self.stop(fault, effects),
        }
    }

    /// Reads a register of the configuration space.
    pub(crate) fn read_configuration(&mut self, register: u8) -> u32 {
        match register {
            WINDOW_BAR => u32::from(self.window.bar),
            WINDOW_OFFSET => self.window.offset,
            WINDOW_LENGTH => self.window.length,
            WINDOW_DATA => self.read_window(),
            CAPABILITY_MSIX.. => {
                self.msix
                    .read_capability(register - CAPABILITY_MSIX, 0, TABLE_BAR)
            }
            CAPABILITY_COMMON.. => capability(register),
            _ => self.endpoint.read(register, self.asks()),
        }
    }

    /// Writes those bits of a register of the configuration space that are set in `lanes`.
    pub(crate) fn write_configuration(
        &mut self,
        register: u8,
        value: u32,
        lanes: u32,
        effects: &mut impl Effects,
    ) {
        let merge = |old: u32| old & !lanes | value & lanes;
        match register {
            CAPABILITY_MSIX.. => {
                self.msix
                    .write_capability(register - CAPABILITY_MSIX, value, lanes);
            }
            WINDOW_BAR => self.window.bar = merge(u32::from(self.window.bar)) as u8,
            WINDOW_OFFSET => self.window.offset = merge(self.window.offset),
            WINDOW_LENGTH => self.window.length = merge(self.window.length),
            WINDOW_DATA => self.write_window(value, lanes, effects),
            CAPABILITY_COMMON.. => {}
            _ => {
                self.endpoint.write(register, value, lanes);
                // It may not be a bus master any more, or be one now.
                self.lend(effects);
            }
        }
    }

    /// The doubleword at `offset` in the page of memory, a multiple of 4.
    pub(crate) fn read_memory(&self, offset: u16) -> u32 {
        self.msix.read(offset)
    }

    /// Writes the doubleword at `offset` in the page of memory, a multiple of 4.
    pub(crate) fn write_memory(&mut self, offset: u16, value: u32) {
        self.msix.write(offset, value);
    }

    pub(crate) fn save(&self) -> FunctionStateV1 {
        FunctionStateV1 {
            endpoint: self.endpoint.save(),
            window: self.window,
            msix: self.msix.save(),
            transport: self.transport.save(),
            model: self.model.save(),
            turn: self.turn as u16,
            faults: self.faults,
        }
    }

    /// Takes on a saved state.
    pub(crate) fn restore(&mut self, state: &FunctionStateV1) -> Result<(), StateError> {
        self.endpoint.restore(&state.endpoint)?;
        self.window = state.window;
        self.msix.restore(&state.msix)?;
        self.transport.restore(&state.transport)?;
        let first = state.transport.queues.first();
        let busy = first.is_some_and(|queue| queue.chain.is_some());
        self.model.restore(&state.model, busy)?;
        self.turn = usize::from(state.turn);
        if self.turn >= self.transport.queues.len() {
            return Err(StateError::Invalid("virtio: turn of queues"));
        }
        self.faults = state.faults;
        Ok(())
    }
}

/// A register of the fixed part of the capabilities (4.1.4): which structure is where.
const fn capability(register: u8) -> u32 {
    const VENDOR_SPECIFIC: u32 = 0x09;
    let (at, next, length, kind, ports) = match register {
        CAPABILITY_COMMON..CAPABILITY_DOORBELL => {
            (CAPABILITY_COMMON, CAPABILITY_DOORBELL, 16, 1, COMMON)
        }
        CAPABILITY_DOORBELL..CAPABILITY_INTERRUPTS => {
            (CAPABILITY_DOORBELL, CAPABILITY_INTERRUPTS, 20, 2, DOORBELL)
        }
        CAPABILITY_INTERRUPTS..CAPABILITY_CONFIGURATION => (
            CAPABILITY_INTERRUPTS,
            CAPABILITY_CONFIGURATION,
            16,
            3,
            INTERRUPTS,
        ),
        CAPABILITY_CONFIGURATION..CAPABILITY_WINDOW => (
            CAPABILITY_CONFIGURATION,
            CAPABILITY_WINDOW,
            16,
            4,
            CONFIGURATION,
        ),
        _ => (CAPABILITY_WINDOW, CAPABILITY_MSIX, 20, 5, 0..0),
    };
    match register - at {
        0 => kind << 24 | length << 16 | (next as u32) << 8 | VENDOR_SPECIFIC,
        4 => PORTS_BAR as u32,
        8 => ports.start as u32,
        12 => (ports.end - ports.start) as u32,
        // The doorbell's multiplier is 0: every queue rings at the same port.
        _ => 0,
    }
}
