//! A card that runs.

use super::descriptors::Format;
use super::filter::Table;
use super::phy::Connect;
use super::receive::{Found, Receiver};
use super::registers::{
    CAUSE_SET, CAUSES, InterruptCauses, MASK_CLEAR, MASK_SET, Registers, Status,
};
use super::repair::{BringUp, GONE_MS, Repair};
use super::reset::Reset;
use super::steps::{Looks, Progress, complete};
use super::transmit::Transmitter;
use super::{
    Causes, Checksum, Delivery, Fault, Filter, Link, Model, Nic, OpenError, OpenOptions, RING,
    Received, Statistics, TransmitError, Watch, counters, dma_bytes, frame_max, hardware, identity,
    link,
};
use crate::dma::Dma;
use crate::pci::{Command, Function, PciAddress};
use crate::tsc;
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
    /// The link as last seen, by [`link::pack`].
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
    /// It does not run, and this is being done about it.
    repair: Option<Repair>,
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
        let mut reset = Reset::default();
        complete(&registers, || reset.step(&registers, model))?;
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
                repair: None,
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
        let mut next = BringUp::Prepare;
        complete(&card.registers, || card.bring_up(&mut next))?;
        Ok(card)
    }

    /// Takes a step to bring the card up.
    fn bring_up(&self, next: &mut BringUp) -> Result<Progress, OpenError> {
        let (registers, model) = (&self.registers, self.model);
        *next = match next {
            BringUp::Reset(reset) => match reset.step(registers, model)? {
                Progress::Done => BringUp::Prepare,
                pause @ Progress::Pause(_) => return Ok(pause),
            },
            BringUp::Prepare => {
                hardware::prepare(registers, model, self.jumbo);
                BringUp::Connect(Connect::default())
            }
            BringUp::Connect(connect) => match connect.step(registers, model) {
                Progress::Done => BringUp::Rings,
                pause @ Progress::Pause(_) => return Ok(pause),
            },
            BringUp::Rings => {
                let mut receiver = self.receiver.lock();
                receiver.start(registers);
                self.transmitter.lock().start(registers);
                hardware::enable_queues(registers, model, receiver.buffer_bytes());
                BringUp::Enable(Looks::default())
            }
            BringUp::Enable(looks) => {
                if !hardware::queues_run(registers, model) {
                    return looks.again(20).ok_or(OpenError::Ring);
                }
                BringUp::Run
            }
            BringUp::Run => {
                self.run();
                return Ok(Progress::Done);
            }
        };
        Ok(Progress::Pause(0))
    }

    /// Lets the card run, now that everything is set up.
    fn run(&self) {
        let registers = &self.registers;
        let filter = self.filter.lock();
        filter.write(registers);
        self.receiver.lock().give(registers);
        hardware::enable_transmitter(registers);
        registers.set(hardware::receive_control(self.model, self.jumbo) | filter.flags());
        self.ready.store(true, Ordering::SeqCst);
        registers.write(MASK_SET, hardware::UNMASKED.bits());
        self.notice_link();
        if self.stopped.load(Ordering::SeqCst) {
            self.silence();
        }
    }

    /// Nobody uses the rings and the registers after this, and whoever is told of frames finds none.
    fn halt(&self) {
        self.ready.store(false, Ordering::SeqCst);
        // Whoever is in there leaves; whoever comes later finds it not ready.
        drop(self.receiver.lock());
        drop(self.transmitter.lock());
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

    /// Takes notice of what the link is now: down, if the card does not run.
    fn notice_link(&self) -> Link {
        let link = if self.is_ready() {
            link::read(&self.registers)
        } else {
            Link::Down
        };
        let before = self.link.swap(link::pack(link), Ordering::SeqCst);
        if link == Link::Down && link::unpack(before) != Link::Down {
            self.link_losses.fetch_add(1, Ordering::Relaxed);
        }
        link
    }

    /// Does what is to be done now; returns what is found wrong.
    fn look_after(&self, watched: &mut Watched, now_ms: u64) -> Option<Fault> {
        let was_gone = core::mem::replace(&mut watched.gone, is_gone(&self.registers));
        if watched.gone {
            self.halt();
            watched.repair = Some(Repair::at(now_ms + GONE_MS));
            return (!was_gone).then_some(Fault::Gone);
        }
        if watched.repair.is_some() {
            self.go_on(watched, now_ms);
            return None;
        }
        let link = self.notice_link();
        let fault = self.find_fault(watched, now_ms);
        // What waits for a link that is down would be sent when it is long outdated.
        let outdated = link == Link::Down && self.transmitter.lock().is_busy();
        if fault.is_some() || outdated {
            watched.totals.resets += u64::from(fault.is_some());
            watched.stall = None;
            self.halt();
            watched.repair = Some(Repair::at(now_ms));
        }
        fault
    }

    /// Takes the next step of a repair.
    fn go_on(&self, watched: &mut Watched, now_ms: u64) {
        let Some(repair) = &mut watched.repair else {
            return;
        };
        let result = self.bring_up(&mut repair.next);
        match repair.note(result, now_ms) {
            Ok(over) => {
                if over {
                    watched.repair = None;
                }
            }
            Err(error) => log::warn!("{} {}: {error}", self.model, self.address()),
        }
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
        link::unpack(self.link.load(Ordering::SeqCst))
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

    fn transmit_last(&self, frame: &[u8], patience: u64) -> bool {
        let Some(mut transmitter) = self.transmitter.try_lock() else {
            return false;
        };
        if !self.is_ready() || self.link() == Link::Down {
            return false;
        }
        let mut fill = |into: &mut [u8]| into.copy_from_slice(frame);
        let given = transmitter.transmit(&self.registers, frame.len(), None, 0, &mut fill);
        let start = tsc::read();
        while transmitter.is_busy() {
            if tsc::read().wrapping_sub(start) > patience {
                return false;
            }
            core::hint::spin_loop();
        }
        given.is_ok()
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
        let due = watched
            .repair
            .as_ref()
            .map_or(now_ms, |repair| repair.due_ms);
        let mut watch = Watch::default();
        if due <= now_ms {
            watch.fault = self.look_after(&mut watched, now_ms);
        }
        let link = self.notice_link();
        watch.link = (link != watched.link).then_some(link);
        watched.link = link;
        match &watched.repair {
            Some(repair) => watch.again_ms = Some(repair.due_ms.saturating_sub(now_ms).max(1)),
            None => watch.frames_wait = self.receiver.lock().is_waiting(),
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
