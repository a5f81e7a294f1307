//! Registers, the PROM and remote DMA.

use super::*;
use crate::pc::Width;

#[test]
fn a_reset_stops_the_card_and_keeps_most_registers() {
    for nic in [ISA, PCI] {
        let mut bench = Bench::driven(nic);
        bench.outb(DCR, 0x01);
        bench.outb(TCR, 0x1F);
        bench.outb(CR, START);
        assert_eq!(bench.inb(ISR) & OFF_LINE, 0);
        bench.inb(RESET);
        assert_eq!(bench.inb(CR), STOP);
        assert_eq!(bench.inb(ISR) & OFF_LINE, OFF_LINE);
        bench.outb(ISR, 0xFF);
        assert_eq!(bench.inb(ISR), OFF_LINE, "cannot be acknowledged");
        // Page 2: what was written to page 0.
        bench.outb(CR, 0x80 | STOP);
        assert_eq!((bench.inb(PSTART), bench.inb(PSTOP)), (RING, END));
        assert_eq!(bench.inb(RCR), 0xC4);
        assert_eq!(bench.inb(TCR), 0xF9, "no loopback");
        assert_eq!(bench.inb(DCR), 0x85, "long addresses");
        assert_eq!(bench.inb(IMR), 0);
        assert_eq!(bench.inb(0x05), RING, "where the next frame goes");
        assert_eq!(bench.read(0x06, Width::Word), u32::from(RING));
    }
}

#[test]
fn page_1_keeps_addresses() {
    let mut bench = Bench::new(ISA);
    bench.outb(CR, PAGE_1 | STOP);
    for offset in 1..16 {
        bench.outb(offset, 0xA0 + offset as u8);
    }
    for offset in 1..16 {
        assert_eq!(bench.inb(offset), 0xA0 + offset as u8);
    }
    bench.outb(CR, STOP);
    assert_eq!(bench.read(0x01, Width::Word), 0xA700, "the current page");
}

#[test]
fn a_command_without_start_and_stop_changes_neither() {
    let mut bench = Bench::driven(ISA);
    bench.outb(CR, 0x20);
    assert_eq!(bench.inb(CR), START);
    bench.outb(CR, STOP);
    bench.outb(CR, 0x20);
    assert_eq!(bench.inb(CR), STOP);
}

#[test]
fn the_prom_has_the_address_twice_and_the_mark_of_a_wide_card() {
    for (nic, address) in [(ISA, ISA_MAC), (PCI, PCI_MAC)] {
        let mut bench = Bench::new(nic);
        // By bytes, as a driver does that does not know the card yet.
        bench.outb(DCR, 0x48);
        bench.pair(RSAR, 0);
        bench.pair(RBCR, 32);
        bench.outb(CR, READ);
        let prom: Vec<u8> = (0..32).map(|_| bench.inb(DATA)).collect();
        assert_eq!(bench.inb(ISR) & DONE, DONE);
        for (at, byte) in address.into_iter().enumerate() {
            assert_eq!(prom[2 * at..][..2], [byte; 2]);
        }
        assert_eq!(prom[28..], [0x57; 4]);
        // By words, each of which a byte access sees the low half of.
        bench.outb(DCR, 0x49);
        bench.pair(RSAR, 0);
        bench.pair(RBCR, 32);
        bench.outb(CR, READ);
        let prom: Vec<u8> = (0..16).map(|_| bench.inb(DATA)).collect();
        assert_eq!(prom[..6], address);
        assert_eq!(prom[14..], [0x57; 2]);
        assert_eq!(bench.inb(DATA), 0xFF, "no more");
        // It cannot be written to.
        bench.store(0, &[0; 8]);
        assert_eq!(bench.load(0, 2), [address[0]; 2]);
    }
}

#[test]
fn remote_dma_moves_memory_and_nothing_else() {
    let mut bench = Bench::driven(ISA);
    let data: Vec<u8> = (0..=255).collect();
    bench.store(0x4000, &data);
    assert_eq!(bench.load(0x4000, 256), data);
    assert_eq!(bench.load(0x4001, 2), [0, 1], "words are aligned");
    assert_eq!(bench.load(0x4003, 1), [2]);
    bench.store(0x8000, &data);
    assert_eq!(bench.load(0x8000, 4), [0xFF; 4], "nothing is there");
    // 16 KiB, the last of which is there.
    bench.store(0x7FFE, &[1, 2]);
    assert_eq!(bench.load(0x7FFE, 2), [1, 2]);
    // The registers say how far it is.
    bench.pair(RSAR, 0x4010);
    bench.pair(RBCR, 6);
    bench.outb(CR, READ);
    bench.read(DATA, Width::Word);
    assert_eq!(bench.read(RSAR, Width::Word), 0x4012);
    // The other direction, and no direction, do nothing.
    bench.write(DATA, Width::Word, 0xDEAD);
    bench.outb(CR, START);
    assert_eq!(bench.read(DATA, Width::Word), 0xFFFF);
    assert_eq!(bench.read(RSAR, Width::Word), 0x4012);
    assert_eq!(bench.inb(ISR) & DONE, 0);
    assert_eq!(bench.load(0x4012, 2), [0x12, 0x13]);
}

#[test]
fn a_wide_access_moves_as_often_as_it_takes() {
    let mut bench = Bench::driven(PCI);
    bench.store(0x4000, &[1, 2, 3, 4, 5, 6, 7, 8]);
    bench.pair(RSAR, 0x4000);
    bench.pair(RBCR, 6);
    bench.outb(CR, READ);
    assert_eq!(bench.read(DATA, Width::Dword), 0x0403_0201);
    assert_eq!(bench.read(DATA, Width::Dword), 0xFFFF_0605);
    assert_eq!(bench.inb(ISR) & DONE, DONE);
    bench.pair(RSAR, 0x4000);
    bench.pair(RBCR, 8);
    bench.outb(CR, WRITE);
    bench.write(DATA, Width::Dword, 0x4433_2211);
    bench.write(DATA, Width::Byte, 0x55);
    assert_eq!(bench.read(RSAR, Width::Word), 0x4006);
    assert_eq!(
        bench.load(0x4000, 8),
        [0x11, 0x22, 0x33, 0x44, 0x55, 0, 7, 8]
    );
    // With bytes, a word is two of them.
    bench.outb(DCR, 0x48);
    bench.pair(RSAR, 0x4001);
    bench.pair(RBCR, 2);
    bench.outb(CR, READ);
    assert_eq!(bench.read(DATA, Width::Word), 0x3322);
    assert_eq!(bench.inb(ISR) & DONE, DONE);
}

#[test]
fn remote_dma_of_nothing_is_complete_at_once() {
    let mut bench = Bench::driven(ISA);
    bench.pair(RBCR, 0);
    assert_eq!(bench.inb(ISR) & DONE, 0);
    bench.outb(CR, READ);
    assert_eq!(bench.inb(ISR) & DONE, DONE);
}

#[test]
fn the_end_of_the_ring_is_followed_by_its_start() {
    let mut bench = Bench::driven(ISA);
    bench.store(0x7FFC, &[1, 2, 3, 4]);
    bench.store(0x4600, &[5, 6, 7, 8]);
    assert_eq!(bench.load(0x7FFC, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn realtek_s_page_is_realtek_s_alone() {
    let mut bench = Bench::new(PCI);
    assert_eq!(bench.read(0x0A, Width::Word), 0x4350, "PC");
    bench.outb(CR, 0xC0 | STOP);
    assert_eq!(bench.read(0x0E, Width::Word), 0x8029);
    assert_eq!(bench.inb(0x03), 0, "the medium");
    bench.outb(0x06, 0x40);
    assert_eq!(bench.inb(0x06), 0, "locked");
    bench.outb(0x01, 0xC0);
    bench.outb(0x06, 0x40);
    bench.outb(0x05, 0xC0);
    bench.outb(0x01, 0x00);
    bench.outb(0x05, 0x00);
    assert_eq!((bench.inb(0x05), bench.inb(0x06)), (0xC0, 0x40));
    bench.renew();
    assert_eq!((bench.inb(0x05), bench.inb(0x06)), (0xC0, 0x40));

    let mut bench = Bench::new(ISA);
    assert_eq!(bench.read(0x0A, Width::Word), 0xFFFF);
    bench.outb(CR, 0xC0 | STOP);
    bench.outb(0x01, 0xC0);
    for offset in 1..16 {
        assert_eq!(bench.inb(offset), 0xFF);
    }
}
