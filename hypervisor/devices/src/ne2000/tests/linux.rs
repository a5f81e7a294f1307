//! What Linux's drivers do to these cards (8390, ne, ne2k-pci), as sequences of accesses.

use super::*;
use crate::pc::Width;

/// The address that the PROM gives to a driver that reads `count` bytes in a mode.
fn prom(bench: &mut Bench, mode: u8, count: u16) -> Vec<u8> {
    for (value, offset) in [
        (0x21, CR),
        (mode, DCR),
        (0x00, RBCR),
        (0x00, RBCR + 1),
        (0x00, IMR),
        (0xFF, ISR),
        (0x20, RCR),
        (0x02, TCR),
        (32, RBCR),
        (0x00, RBCR + 1),
        (0x00, RSAR),
        (0x00, RSAR + 1),
        (0x0A, CR),
    ] {
        bench.outb(offset, value);
    }
    (0..count).map(|_| bench.inb(DATA)).collect()
}

/// Whether there is an 8390: a counter that a read clears, where another page has a register that keeps what it is given.
fn looks_like_an_8390(bench: &mut Bench) -> bool {
    let command = bench.inb(CR);
    if command == 0xFF {
        return false;
    }
    bench.outb(CR, 0x61);
    let kept = bench.inb(0x0D);
    bench.outb(0x0D, 0xFF);
    bench.outb(CR, 0x20);
    bench.inb(0x0D);
    let cleared = bench.inb(0x0D) == 0;
    if !cleared {
        bench.outb(CR, command);
        bench.outb(0x0D, kept);
    }
    cleared
}

/// Reset by the port: what was read is written back, and the status must say so.
fn reset(bench: &mut Bench) {
    let value = bench.inb(RESET);
    bench.outb(RESET, value);
    assert_eq!(bench.inb(ISR) & OFF_LINE, OFF_LINE, "in time");
    bench.outb(ISR, 0xFF);
}

/// The common part's initialisation.
fn initialise(bench: &mut Bench, address: [u8; 6], start: bool) {
    for (offset, value) in [
        (CR, 0x21),
        (DCR, 0x49),
        (RBCR, 0),
        (RBCR + 1, 0),
        (RCR, 0x20),
        (TCR, 0x02),
        (TPSR, 0x40),
        (PSTART, 0x4C),
        (BNRY, 0x7F),
        (PSTOP, 0x80),
        (ISR, 0xFF),
        (IMR, 0),
        (CR, 0x61),
    ] {
        bench.outb(offset, value);
    }
    for (at, byte) in (0..).zip(address) {
        bench.outb(PAR + at, byte);
        assert_eq!(bench.inb(PAR + at), byte, "reads back");
    }
    bench.outb(CURR, 0x4C);
    bench.outb(CR, 0x21);
    if start {
        for (offset, value) in [(ISR, 0xFF), (IMR, 0x3F), (CR, 0x22), (TCR, 0x00)] {
            bench.outb(offset, value);
        }
        bench.outb(CR, 0x62);
        for at in 0..8 {
            bench.outb(MAR + at, 0);
        }
        bench.outb(CR, 0x22);
        bench.outb(RCR, 0x04);
    }
}

/// The transfer of a frame to the card and its transmission.
fn transmit(bench: &mut Bench, frame: &[u8], wide: bool) {
    bench.outb(IMR, 0);
    bench.outb(CR, 0x22);
    bench.outb(ISR, DONE);
    let count = if wide {
        frame.len() & !3
    } else {
        frame.len().next_multiple_of(2)
    };
    bench.pair(RBCR, frame.len().next_multiple_of(2) as u16);
    bench.pair(RSAR, 0x4000);
    bench.outb(CR, 0x12);
    let mut padded = frame.to_vec();
    padded.resize(frame.len().next_multiple_of(2), 0);
    if wide {
        for dword in padded[..count].as_chunks().0 {
            bench.write(DATA, Width::Dword, u32::from_le_bytes(*dword));
        }
    }
    let rest = if wide { &padded[count..] } else { &padded[..] };
    for word in rest.as_chunks().0 {
        bench.write(DATA, Width::Word, u32::from(u16::from_le_bytes(*word)));
    }
    assert_eq!(bench.inb(ISR) & DONE, DONE);
    bench.outb(ISR, DONE);
    assert_eq!(bench.inb(CR) & 4, 0, "idle");
    bench.pair(TBCR, frame.len() as u16);
    bench.outb(TPSR, 0x40);
    bench.outb(CR, 0x26);
    bench.outb(IMR, 0x3F);
}

/// The receive loop: the frames of the ring.
fn receive(bench: &mut Bench, current: &mut u8, wide: bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    loop {
        bench.outb(CR, 0x62);
        let end = bench.inb(CURR);
        bench.outb(CR, 0x22);
        let boundary = bench.inb(BNRY) + 1;
        let page = if boundary >= 0x80 { 0x4C } else { boundary };
        assert_eq!(page, *current);
        if page == end {
            bench.outb(ISR, RECEIVED);
            return frames;
        }
        let header = input(bench, u16::from(page) << 8, 4, wide);
        let (status, next) = (header[0], header[1]);
        let count = u16::from_le_bytes([header[2], header[3]]);
        let length = count - 4;
        let expected = page + 1 + ((length + 4) >> 8) as u8;
        let wrapped = expected.checked_sub(0x80 - 0x4C).unwrap_or(expected);
        assert!([expected, expected + 1, wrapped, wrapped + 1].contains(&next));
        assert_eq!(status & 0x0F, 1);
        frames.push(input(bench, (u16::from(page) << 8) + 4, length, wide));
        *current = next;
        bench.outb(BNRY, next - 1);
    }
}

/// Remote DMA, the odd byte by itself.
fn input(bench: &mut Bench, address: u16, count: u16, wide: bool) -> Vec<u8> {
    bench.outb(CR, 0x22);
    bench.pair(RBCR, count);
    bench.pair(RSAR, address);
    bench.outb(CR, 0x0A);
    let mut bytes = Vec::new();
    if wide {
        for _ in 0..count / 4 {
            bytes.extend(bench.read(DATA, Width::Dword).to_le_bytes());
        }
    } else {
        for _ in 0..count / 2 {
            bytes.extend((bench.read(DATA, Width::Word) as u16).to_le_bytes());
        }
    }
    if wide && count & 2 != 0 {
        bytes.extend((bench.read(DATA, Width::Word) as u16).to_le_bytes());
    }
    if count & 1 != 0 {
        bytes.push(bench.inb(DATA));
    }
    bench.outb(ISR, DONE);
    bytes
}

#[test]
fn the_drivers_find_their_cards() {
    // The ISA one reads by bytes and sees from the doubled ones that the card is wide.
    let mut bench = Bench::new(ISA);
    assert!(looks_like_an_8390(&mut bench));
    reset(&mut bench);
    let bytes = prom(&mut bench, 0x48, 32);
    assert!(bytes.as_chunks::<2>().0.iter().all(|[a, b]| a == b));
    let address: Vec<u8> = bytes.iter().step_by(2).copied().collect();
    assert_eq!(address[..6], ISA_MAC);
    assert_eq!(address[14..], [0x57; 2], "an NE2000");
    // The PCI one reads words and looks at their low bytes.
    let mut bench = Bench::new(PCI);
    assert!(looks_like_an_8390(&mut bench));
    reset(&mut bench);
    let bytes = prom(&mut bench, 0x49, 32);
    assert_eq!(bytes[..6], PCI_MAC);
}

#[test]
fn the_drivers_send_and_receive() {
    for (nic, address, wide) in [(ISA, ISA_MAC, false), (PCI, PCI_MAC, true)] {
        let mut bench = Bench::new(nic);
        reset(&mut bench);
        initialise(&mut bench, address, true);
        let mut current = 0x4C;
        for round in 0..40 {
            let out = frame(BROADCAST, 60 + round * 36);
            transmit(&mut bench, &out, wide);
            assert_eq!(bench.inb(ISR) & SENT, SENT);
            bench.outb(ISR, SENT);
            assert_eq!(bench.world.sent.pop().expect("sent").bytes, out);
            let lengths = [60 + round, 1514 - 3 * round, 512 + round];
            let into = lengths.map(|length| frame(address, length));
            for frame in &into {
                assert!(bench.arrive(frame));
            }
            assert_eq!(bench.inb(ISR) & RECEIVED, RECEIVED);
            assert_eq!(receive(&mut bench, &mut current, wide), into, "{round}");
            assert_eq!(bench.inb(ISR), 0);
        }
    }
}

#[test]
fn the_driver_recovers_from_an_overflow() {
    let mut bench = Bench::new(PCI);
    reset(&mut bench);
    initialise(&mut bench, PCI_MAC, true);
    let mut current = 0x4C;
    let mut arrived = Vec::new();
    loop {
        let next = frame(PCI_MAC, 700 + arrived.len());
        if !bench.arrive(&next) {
            break;
        }
        arrived.push(next);
    }
    assert_eq!(bench.inb(ISR) & OVERWRITE, OVERWRITE);
    // Stop, wait, loop back, start, empty the ring, connect again.
    bench.outb(CR, 0x21);
    assert_eq!(bench.inb(ISR) & OFF_LINE, OFF_LINE);
    bench.pair(RBCR, 0);
    bench.outb(TCR, 0x02);
    bench.outb(CR, 0x22);
    assert_eq!(receive(&mut bench, &mut current, true), arrived);
    bench.outb(ISR, OVERWRITE);
    bench.outb(TCR, 0x00);
    assert_eq!(bench.inb(ISR), 0);
    let next = frame(PCI_MAC, 333);
    assert!(bench.arrive(&next));
    assert_eq!(receive(&mut bench, &mut current, true), [next]);
}
