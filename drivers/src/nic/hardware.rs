//! Setting a card up, and silencing it (8254x chapter 14; 82574 section 4.6; 82576 section 4.5).

use super::Model;
use super::registers::{
    Control, ExtendedControl, INTERRUPT_VECTORS, InterruptCauses, LONG_PACKET_MAX, MASK_CLEAR,
    PACKET_BUFFER, PCIE_CONTROL, PCIE_CONTROL_2, Queue, QueueControl, RECEIVE_ABSOLUTE_DELAY,
    RECEIVE_DELAY, ReceiveChecksum, ReceiveControl, Registers, SPLIT_RECEIVE, Status, THROTTLING,
    TRANSMIT_ARBITRATION, TRANSMIT_DELAY, TRANSMIT_GAP, TransmitControl, VECTOR_THROTTLING,
    receive_queue, transmit_queue,
};

/// The least time between two interrupts, in microseconds: at most 20000 a second.
const INTERRUPT_GAP_MICROSECONDS: u32 = 50;
/// Bytes of a frame's check sequence.
const CRC_BYTES: usize = 4;

/// The causes that interrupt. What was sent does not: its buffers are taken back with the next frame.
pub(super) const UNMASKED: InterruptCauses =
    InterruptCauses::ANY_RECEIVE.union(InterruptCauses::LINK_CHANGED);

/// Ends all activity: no interrupt, no access to memory after this. Waits, for up to 80 ms.
pub(super) fn silence(registers: &impl Registers, model: Model) {
    quieten(registers, model);
    // Should accesses that are under way not end, the bus ends them.
    registers.wait_until(800, 100, || is_quiet(registers, model));
}

/// Lets a card begin no activity any more.
pub(super) fn quieten(registers: &impl Registers, model: Model) {
    registers.write(MASK_CLEAR, u32::MAX);
    if model.is_express() {
        registers.set(registers.get::<Control>() | Control::MASTER_DISABLE);
    }
    registers.set(ReceiveControl::empty());
    registers.set(TransmitControl::PAD_SHORT);
}

/// Whether no access to memory is under way, where a card tells.
pub(super) fn is_quiet(registers: &impl Registers, model: Model) -> bool {
    !model.is_express() || !registers.get::<Status>().contains(Status::MASTER_ENABLED)
}

/// Sets a card up after a reset, but for its PHY, its rings and its filter.
pub(super) fn prepare(registers: &impl Registers, model: Model, jumbo: bool) {
    let off = Control::MASTER_DISABLE
        | Control::INVERT_LOSS_OF_SIGNAL
        | Control::FORCE_SPEED
        | Control::FORCE_DUPLEX
        | Control::RESET
        // Another station's pause frames must not hold up what is urgent.
        | Control::RECEIVE_PAUSE
        | Control::TRANSMIT_PAUSE
        | Control::RESERVED_29
        | Control::STRIP_TAGS
        | Control::PHY_RESET;
    let control = registers.get::<Control>() - off;
    registers.set(control | Control::SET_LINK_UP);
    if model.is_express() {
        registers.set(registers.get::<ExtendedControl>() | ExtendedControl::DRIVER_LOADED);
    }
    match model {
        Model::I82540em => {
            // Of 64 KiB; sending needs room for a whole frame.
            registers.write(PACKET_BUFFER, if jumbo { 40 } else { 48 });
            set_older(registers, 10);
        }
        Model::I82574l => {
            set_older(registers, 8);
            avoid_errata(registers);
        }
        Model::I82576 | Model::I210 | Model::I350 => {
            const VALID: u32 = 1 << 7;
            // Both directions to vector 0.
            registers.write(INTERRUPT_VECTORS, VALID | VALID << 8);
            registers.write(VECTOR_THROTTLING, INTERRUPT_GAP_MICROSECONDS << 2);
            let longest = super::frame_max(jumbo) + CRC_BYTES;
            registers.write(LONG_PACKET_MAX, longest as u32);
        }
    }
    registers.set(ReceiveChecksum::IP | ReceiveChecksum::TCP_UDP);
}

/// What the 8254x and the 82574 have in common.
fn set_older(registers: &impl Registers, gap: u32) {
    /// For half duplex, as the standard wants it.
    const GAP_PARTS: u32 = 8 << 10 | 6 << 20;
    registers.write(TRANSMIT_GAP, gap | GAP_PARTS);
    registers.write(THROTTLING, INTERRUPT_GAP_MICROSECONDS * 1000 / 256);
    // Throttling is enough.
    registers.write(RECEIVE_DELAY, 0);
    registers.write(RECEIVE_ABSOLUTE_DELAY, 0);
    registers.write(TRANSMIT_DELAY, 0);
}

/// Bits that the 82574's specification update and Intel's own drivers want set: without them completions on the bus may be
/// lost, and transmission hang. The other part of it is [`crate::pci::Function::forbid_link_power_states`].
fn avoid_errata(registers: &impl Registers) {
    let extended = registers.get::<ExtendedControl>() - ExtendedControl::RESERVED_23;
    registers.set(extended | ExtendedControl::RESERVED_22);
    let change = |register, off: u32, on: u32| {
        registers.write(register, registers.read(register) & !off | on);
    };
    change(TRANSMIT_ARBITRATION, 0xF << 27, 1 << 26);
    change(PCIE_CONTROL, 0, 1 << 22);
    change(PCIE_CONTROL_2, 0, 1 << 0);
}

/// Lets both queues run, where they must be told so; see [`queues_run`]. Their rings are set; receiving has no buffer yet.
pub(super) fn enable_queues(registers: &impl Registers, model: Model, buffer_bytes: usize) {
    /// One buffer for a frame, in the advanced format.
    const ONE_BUFFER: u32 = 0b001 << 25;
    let receive = receive_queue(Queue::Control);
    let transmit = transmit_queue(Queue::Control);
    match model {
        Model::I82540em | Model::I82574l => {
            let mut control = QueueControl::PREFETCH_31
                | QueueControl::HOST_1
                | QueueControl::WRITE_BACK_1
                | QueueControl::IN_DESCRIPTORS;
            if model == Model::I82574l {
                control |= QueueControl::COUNT;
            }
            registers.write(transmit, control.bits());
        }
        Model::I82576 | Model::I210 | Model::I350 => {
            let kilobytes = buffer_bytes as u32 / 1024;
            registers.write(SPLIT_RECEIVE, kilobytes | ONE_BUFFER);
            let common =
                QueueControl::PREFETCH_8 | QueueControl::WRITE_BACK_1 | QueueControl::ENABLE;
            for (register, host) in [
                (receive, QueueControl::HOST_8),
                (transmit, QueueControl::HOST_1),
            ] {
                registers.write(register, (common | host).bits());
            }
        }
    }
}

/// Whether both queues run.
pub(super) fn queues_run(registers: &impl Registers, model: Model) -> bool {
    match model {
        Model::I82540em | Model::I82574l => true,
        Model::I82576 | Model::I210 | Model::I350 => {
            let queues = [
                receive_queue(Queue::Control),
                transmit_queue(Queue::Control),
            ];
            queues.iter().all(|register| {
                QueueControl::from_bits_retain(registers.read(*register))
                    .contains(QueueControl::ENABLE)
            })
        }
    }
}

/// Lets the transmitter run.
pub(super) fn enable_transmitter(registers: &impl Registers) {
    let kept = registers.get::<TransmitControl>()
        - (TransmitControl::ATTEMPTS | TransmitControl::COLLISION_DISTANCE);
    registers.set(
        kept | TransmitControl::ENABLE
            | TransmitControl::PAD_SHORT
            | TransmitControl::ATTEMPTS_16
            | TransmitControl::COLLISION_DISTANCE_64
            | TransmitControl::RETRY_LATE_COLLISIONS,
    );
}

/// The receive control register of a running card, without its filter.
pub(super) fn receive_control(model: Model, jumbo: bool) -> ReceiveControl {
    let mut control =
        ReceiveControl::ENABLE | ReceiveControl::BROADCAST | ReceiveControl::STRIP_CRC;
    if jumbo {
        control |= ReceiveControl::LONG_FRAMES;
        if matches!(model, Model::I82540em | Model::I82574l) {
            control |= ReceiveControl::SIZE_1024 | ReceiveControl::SIZE_TIMES_16;
        }
    }
    control
}
