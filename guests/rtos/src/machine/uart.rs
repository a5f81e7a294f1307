//! COM1, by interrupts: a ring in each direction.

use pc::port::{inb, outb};
use rtos::{kernel::SemaphoreId, ring::Ring};

use super::{
    pic,
    shared::{Late, Shared},
};
use crate::system;

const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const INTERRUPT_ID: u16 = COM1 + 2;
const LINE_STATUS: u16 = COM1 + 5;
const SCRATCH: u16 = COM1 + 7;
const RECEIVED: u8 = 1;
const EMPTY: u8 = 2;
const DATA_READY: u8 = 1;
const OVERRUN: u8 = 2;
const HOLDING_EMPTY: u8 = 1 << 5;
const LINE: u8 = 4;
const FIFO: usize = 16;
const ROOM: usize = 2048;

struct Port {
    received: Ring<u8, 256>,
    to_send: Ring<u8, ROOM>,
    lost: u32,
}

static PORT: Shared<Port> = Shared::new(Port {
    received: Ring::new(0),
    to_send: Ring::new(0),
    lost: 0,
});
static ARRIVED: Late<SemaphoreId> = Late::new();
static DRAINED: Late<SemaphoreId> = Late::new();

/// Takes the port over from the polled driver, which has set its speed and its FIFOs.
pub(crate) fn start() {
    ARRIVED.set(system::semaphore(0));
    DRAINED.set(system::semaphore(0));
    pic::connect(LINE, interrupt);
    outb(INTERRUPT_ENABLE, RECEIVED);
}

/// Whether the chip keeps what is written to its scratch register.
pub(crate) fn scratch_works() -> bool {
    [0x5a, 0xa5].into_iter().all(|value| {
        outb(SCRATCH, value);
        inb(SCRATCH) == value
    })
}

/// Received bytes for which there was no room.
pub(crate) fn lost() -> u32 {
    PORT.with(|port| port.lost)
}

fn interrupt() {
    // Bounded: a broken chip must not hold the processor here.
    for _ in 0..64 {
        match inb(INTERRUPT_ID) & 0x0f {
            0x04 | 0x0c => receive(),
            0x02 => send(),
            0x06 => note(inb(LINE_STATUS)),
            0x00 => drop(inb(COM1 + 6)),
            _ => return,
        }
    }
}

fn note(status: u8) {
    if status & OVERRUN != 0 {
        PORT.with(|port| port.lost += 1);
    }
}

fn receive() {
    for _ in 0..FIFO {
        let status = inb(LINE_STATUS);
        note(status);
        if status & DATA_READY == 0 {
            break;
        }
        let byte = inb(COM1);
        PORT.with(|port| port.lost += u32::from(port.received.push(byte).is_err()));
    }
    if let Some(arrived) = ARRIVED.get() {
        system::signal(arrived);
    }
}

fn send() {
    let left = PORT.with(|port| {
        if inb(LINE_STATUS) & HOLDING_EMPTY == 0 {
            return port.to_send.len();
        }
        for _ in 0..FIFO {
            match port.to_send.pop() {
                Some(byte) => outb(COM1, byte),
                None => break,
            }
        }
        if port.to_send.is_empty() {
            outb(INTERRUPT_ENABLE, RECEIVED);
        }
        port.to_send.len()
    });
    if left <= ROOM / 2
        && let Some(drained) = DRAINED.get()
    {
        // One is enough: a writer asks again and again.
        if system::count(drained) == 0 {
            system::signal(drained);
        }
    }
}

/// Sends bytes; the calling task waits while there is no room.
pub(crate) fn write(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = PORT.with(|port| {
            let was_empty = port.to_send.is_empty();
            let room = ROOM - port.to_send.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            for &byte in now {
                // There is room.
                let _ = port.to_send.push(byte);
            }
            if was_empty && !now.is_empty() {
                outb(INTERRUPT_ENABLE, RECEIVED | EMPTY);
            }
            later
        });
        if !rest.is_empty()
            && let Some(drained) = DRAINED.get()
        {
            // Whether drained or not, we look again.
            let _ = system::take(drained, Some(50));
        }
    }
}

/// Waits for a byte.
pub(crate) fn read() -> u8 {
    loop {
        if let Some(byte) = PORT.with(|port| port.received.pop()) {
            return byte;
        }
        if let Some(arrived) = ARRIVED.get() {
            let _ = system::take(arrived, None);
        }
    }
}

/// Waits until everything is sent, or half a second has passed without progress.
pub(crate) fn flush() {
    let mut before = usize::MAX;
    loop {
        let left = PORT.with(|port| port.to_send.len());
        if left == 0 || left == before {
            break;
        }
        before = left;
        for _ in 0..50 {
            if PORT.with(|port| port.to_send.is_empty()) {
                break;
            }
            system::sleep(10);
        }
    }
    pc::serial::drain();
}
