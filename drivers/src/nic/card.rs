//! A card that runs.

use super::descriptors::Format;
use super::filter::Table;
use super::receive::{Found, Receiver};
use super::registers::{
    CAUSE_SET, CAUSES, InterruptCauses, MASK_CLEAR, MASK_SET, Registers, Status,
};
use super::transmit::Transmitter;
use super::{
    Causes, Checksum, Delivery, Fault, Filter, Link, Model, Nic, OpenError, OpenOptions, RING,
    Received, Statistics, TransmitError, Watch, counters, dma_bytes, frame_max, hardware, identity,
};
use crate::dma::Dma;
use crate::pci::{Command, Function, PciAddress};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spin::Mutex;

/// So long a card may miss frames and receive none, in milliseconds.
const STALL_MS: u64 = 1000;
/// Bytes of a ring of descriptors.
pub(super) const RING_BYTES: usize = RING * super::descriptors::DESCRIPTOR_BYTES;

/// A card, by its registers.
pub(super) struct Card<R: Registers> {
    registers: R,
    function: Function,
    model: Model,
    mac: [u8; 6],
    jumbo: bool,
    receiver: Mutex<Receiver>,
    transmitter: Mutex<Transmitter>,
    filter: Mutex<Table>,
    watched: Mutex<Watched>,
    /// The link as last seen, by [`pack`].
    link: AtomicU32,
    link_losses: AtomicU64,
    /// Rings and registers may be used; looked at with the lock of a half held.
    ready: AtomicBool,
    stopped: AtomicBool,
}

/// What [`Nic::watch`] remembers.
struct Watched {
    totals: Statistics,
    /// The link that it told of.
    link: Link,
    /// Frames that the receiver had taken when the card was seen to miss some, and when that was.
    stall: Option<(u64, u64)>,
    /// It did not answer any more.
    gone: bool,
}

impl<R: Registers> Card<R> {
    /// Resets a card and lets it run.
    pub(super) fn open(
        registers: R,
        function: Function,
        model: Model,
        memory: Dma,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        if memory.length() < dma_bytes(options.jumbo) {
            return Err(OpenError::Memory);
        }
        // Whatever the firmware had it do ends here.
        let silent = function.command() - Command::BUS_MASTER;
        function.set_command(silent | Command::MEMORY);
        if is_gone(&registers) {
            return Err(OpenError::NoAnswer);
        }
        if model == Model::I82574l {
            function.forbid_link_power_states();
        }
        hardware::reset(&registers, model)?;
        let mac = identity::mac(&registers, model)?;
        match options.delivery {
            Delivery::Pin => function.enable_pin(),
            Delivery::Message(message) => {
                if !function.enable_message(message) {
                    return Err(OpenError::NoMessages);
                }
            }
        }
        let (receiver, transmitter) = halves(memory, model, options.jumbo)?;
        let card = Self {
            registers,
            function,
            model,
            mac,
            jumbo: options.jumbo,
            receiver: Mutex::new(receiver),
            transmitter: Mutex::new(transmitter),
            filter: Mutex::new(Table::new(mac, &Filter::default())),
            watched: Mutex::new(Watched {
                totals: Statistics::default(),
                link: Link::Down,
                stall: None,
                gone: false,
            }),
            link: AtomicU32::new(0),
            link_losses: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        };
        card.function
            .set_command(card.function.command() | Command::BUS_MASTER);
        // What was counted before is nobody's.
        counters::collect(&card.registers, &mut Statistics::default());
        card.run()?;
        Ok(card)
    }

    /// Lets a card run that was reset.
    fn run(&self) -> Result<(), OpenError> {
        let registers = &self.registers;
        hardware::prepare(registers, self.model, self.jumbo);
        let filter = self.filter.lock();
        filter.write(registers);
        let mut receiver = self.receiver.lock();
        receiver.start(registers);
        self.transmitter.lock().start(registers);
        hardware::enable_queues(registers, self.model, receiver.buffer_bytes())?;
        receiver.give(registers);
        hardware::enable_transmitter(registers);
        registers.set(hardware::receive_control(self.model, self.jumbo) | filter.flags());
        self.ready.store(true, Ordering::SeqCst);
        registers.write(MASK_SET, hardware::UNMASKED.bits());
        self.notice_link();
        if self.stopped.load(Ordering::SeqCst) {
            self.silence();
        }
        Ok(())
    }

    /// Resets the card, and lets it run again. Frames in both rings are lost. Nobody waits for this: meanwhile there is nothing
    /// to receive, and the link is down.
    fn restart(&self) -> Result<(), OpenError> {
        self.ready.store(false, Ordering::SeqCst);
        // Whoever is in there leaves; whoever comes later finds it not ready.
        drop(self.receiver.lock());
        drop(self.transmitter.lock());
        hardware::reset(&self.registers, self.model)?;
        self.run()
    }

    fn silence(&self) {
        self.ready.store(false, Ordering::SeqCst);
        hardware::silence(&self.registers, self.model);
        let command = self.function.command() - Command::BUS_MASTER;
        self.function
            .set_command(command | Command::INTERRUPT_DISABLE);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Takes notice of what the link is now.
    fn notice_link(&self) -> Link {
        let link = read_link(&self.registers);
        let before = self.link.swap(pack(link), Ordering::SeqCst);
        if link == Link::Down && unpack(before) != Link::Down {
            self.link_losses.fetch_add(1, Ordering::Relaxed);
        }
        link
    }

    /// Whether the card needs a reset, and why.
    fn find_fault(&self, watched: &mut Watched, now_ms: u64) -> Option<Fault> {
        let missed_before = watched.totals.missed;
        counters::collect(&self.registers, &mut watched.totals);
        let misses = watched.totals.missed != missed_before;
        let link_is_up = self.link() != Link::Down;
        let status: Status = self.registers.get();
        let may_send = link_is_up && !status.contains(Status::TRANSMIT_PAUSED);
        if self.transmitter.lock().hangs(now_ms, may_send) {
            return Some(Fault::TransmitHang);
        }
        let receiver = self.receiver.lock();
        let frames = receiver.frames();
        if receiver.is_waiting() {
            // It is we who are slow.
            watched.stall = None;
            return None;
        }
        match watched.stall {
            Some((then, since)) if then == frames => {
                (misses && now_ms.saturating_sub(since) >= STALL_MS).then_some(Fault::ReceiveStall)
            }
            _ => {
                watched.stall = misses.then_some((frames, now_ms));
                None
            }
        }
    }
}

/// Divides a card's memory.
fn halves(memory: Dma, model: Model, jumbo: bool) -> Result<(Receiver, Transmitter), OpenError> {
    let format = match model {
        Model::I82540em | Model::I82574l => Format::Legacy,
        Model::I82576 | Model::I210 | Model::I350 => Format::Advanced,
    };
    let buffers = RING * super::buffer_bytes(jumbo);
    let cut = |memory: Dma, length| memory.split(length).ok_or(OpenError::Memory);
    let (receive_ring, rest) = cut(memory, RING_BYTES)?;
    let (transmit_ring, rest) = cut(rest, RING_BYTES)?;
    let (receive_buffers, rest) = cut(rest, buffers)?;
    let (transmit_buffers, _) = cut(rest, buffers)?;
    let longest = frame_max(jumbo);
    Ok((
        Receiver::new(receive_ring, receive_buffers, format, longest),
        Transmitter::new(transmit_ring, transmit_buffers, format, longest),
    ))
}

/// Whether nothing answers: a device that is not there reads as all ones.
pub(super) fn is_gone(registers: &impl Registers) -> bool {
    registers.get::<Status>() == Status::from_bits_retain(u32::MAX)
}

fn read_link(registers: &impl Registers) -> Link {
    let status: Status = registers.get();
    if !status.contains(Status::LINK_UP) || is_gone(registers) {
        return Link::Down;
    }
    let megabits = if status.contains(Status::SPEED_1000) {
        1000
    } else if status.contains(Status::SPEED_100) {
        100
    } else {
        10
    };
    Link::Up {
        megabits,
        full_duplex: status.contains(Status::FULL_DUPLEX),
    }
}

/// A link as a number: 0 when it is down.
fn pack(link: Link) -> u32 {
    match link {
        Link::Down => 0,
        Link::Up {
            megabits,
            full_duplex,
        } => u32::from(megabits) | u32::from(full_duplex) << 16,
    }
}

fn unpack(link: u32) -> Link {
    match link {
        0 => Link::Down,
        up => Link::Up {
            megabits: up as u16,
            full_duplex: up >> 16 != 0,
        },
    }
}

impl<R: Registers> Nic for Card<R> {
    fn model(&self) -> Model {
        self.model
    }

    fn address(&self) -> PciAddress {
        self.function.address()
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn link(&self) -> Link {
        unpack(self.link.load(Ordering::SeqCst))
    }

    fn frame_max(&self) -> usize {
        frame_max(self.jumbo)
    }

    fn handle_interrupt(&self) -> Causes {
        let mut causes = Causes::empty();
        let raw = self.registers.read(CAUSES);
        if raw == u32::MAX {
            return causes;
        }
        let found = InterruptCauses::from_bits_retain(raw);
        if found.intersects(InterruptCauses::ANY_RECEIVE) {
            causes |= Causes::RECEIVE;
            let receive = InterruptCauses::ANY_RECEIVE.bits();
            self.registers.write(MASK_CLEAR, receive);
        }
        if found.contains(InterruptCauses::LINK_CHANGED) {
            self.notice_link();
            causes |= Causes::LINK;
        }
        causes
    }

    fn listen(&self) -> bool {
        let receiver = self.receiver.lock();
        if !self.is_ready() {
            return false;
        }
        let receive = InterruptCauses::ANY_RECEIVE.bits();
        self.registers.write(MASK_SET, receive);
        receiver.is_waiting()
    }

    fn receive(&self, take: &mut dyn FnMut(Received<'_>)) -> bool {
        let mut receiver = self.receiver.lock();
        while self.is_ready() {
            match receiver.receive(&self.registers, take) {
                Found::Frame => return true,
                Found::Nothing => return false,
                Found::Damaged => {}
            }
        }
        false
    }

    fn transmit(
        &self,
        length: usize,
        checksum: Option<Checksum>,
        reserve: u16,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TransmitError> {
        let mut transmitter = self.transmitter.lock();
        if !self.is_ready() || self.link() == Link::Down {
            return Err(TransmitError::Down);
        }
        transmitter.transmit(&self.registers, length, checksum, reserve, fill)
    }

    fn checksums(&self) -> bool {
        true
    }

    fn set_filter(&self, filter: &Filter<'_>) {
        let mut table = self.filter.lock();
        *table = Table::new(self.mac, filter);
        if self.is_ready() {
            table.write(&self.registers);
            let control = hardware::receive_control(self.model, self.jumbo);
            self.registers.set(control | table.flags());
        }
    }

    fn watch(&self, now_ms: u64) -> Watch {
        let mut watched = self.watched.lock();
        if self.stopped.load(Ordering::SeqCst) {
            return Watch::default();
        }
        let link = self.notice_link();
        let mut watch = Watch {
            link: (link != watched.link).then_some(link),
            fault: None,
            frames_wait: false,
        };
        watched.link = link;
        let was_gone = core::mem::replace(&mut watched.gone, is_gone(&self.registers));
        if watched.gone {
            self.ready.store(false, Ordering::SeqCst);
            watch.fault = (!was_gone).then_some(Fault::Gone);
            return watch;
        }
        if self.is_ready() {
            watch.fault = self.find_fault(&mut watched, now_ms);
            watch.frames_wait = self.receiver.lock().is_waiting();
        }
        // What waits for a link that is down would be sent when it is long outdated.
        let outdated = link == Link::Down && self.transmitter.lock().is_busy();
        if watch.fault.is_some() || outdated || !self.is_ready() {
            watched.totals.resets += u64::from(watch.fault.is_some());
            watched.stall = None;
            if let Err(error) = self.restart() {
                log::warn!("{} {}: {error}", self.model, self.address());
            }
        }
        watch
    }

    fn statistics(&self) -> Statistics {
        let mut watched = self.watched.lock();
        if self.is_ready() {
            counters::collect(&self.registers, &mut watched.totals);
        }
        Statistics {
            link_losses: self.link_losses.load(Ordering::Relaxed),
            ..watched.totals
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.silence();
    }

    fn raise_test_interrupt(&self) {
        let cause = InterruptCauses::LINK_CHANGED.bits();
        self.registers.write(CAUSE_SET, cause);
    }
}

impl<R: Registers> Drop for Card<R> {
    fn drop(&mut self) {
        self.stop();
    }
}
