//! The virtio devices under drivers that we did not write: those of the crate `virtio-drivers`.
//!
//! Its PCI transport wants memory BARs, so the transport here drives our ports, as Linux does; the rings and all above
//! are the crate's.

mod memory;
mod transport;

use memory::Arena;
use transport::{Board, MAC, Ports};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, VirtIOBlk};
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::device::net::{TxBuffer, VirtIONet};
use virtio_drivers::device::rng::VirtIORng;

/// PCI device numbers.
const DISK: u8 = 2;
const READ_ONLY_DISK: u8 = 3;
const CONSOLE: u8 = 4;
const ENTROPY: u8 = 5;
const CARD: u8 = 6;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3 * 7) as u8).collect()
}

#[test]
fn a_disk_holds_what_is_written() {
    let board = Board::new();
    let mut disk = VirtIOBlk::<Arena, Ports>::new(board.ports(DISK)).expect("a disk");
    assert_eq!(disk.capacity(), 1024);
    assert!(!disk.readonly());
    let mut identity = [0; 20];
    assert_eq!(disk.device_id(&mut identity), Ok(6));
    assert_eq!(&identity[..6], b"disk00");
    let data = pattern(16 * 512);
    disk.write_blocks(1000, &data).expect("written");
    disk.flush().expect("flushed");
    let mut back = vec![0; data.len()];
    disk.read_blocks(1000, &mut back).expect("read");
    assert_eq!(back, data);
    assert_eq!(board.disk(0)[1000 * 512..1016 * 512], data);
    assert_eq!(disk.read_blocks(1020, &mut back), Err(Error::IoError));
    assert_eq!(board.stops(), []);
    assert_ne!(disk.ack_interrupt().bits(), 0);
    assert_eq!(disk.ack_interrupt().bits(), 0);
}

#[test]
fn a_long_transfer_takes_its_time() {
    let board = Board::new();
    let mut disk = VirtIOBlk::<Arena, Ports>::new(board.ports(DISK)).expect("a disk");
    let data = pattern(1024 * 512);
    board.set_disk(0, &data);
    let mut back = vec![0; data.len()];
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    // SAFETY: request, buffer and response live, untouched, until the request is completed below.
    let token = unsafe { disk.read_blocks_nb(0, &mut request, &mut back, &mut response) };
    let token = token.expect("queued");
    let mut steps = 0;
    while disk.peek_used() != Some(token) {
        assert!(board.step(), "work is left");
        steps += 1;
    }
    assert_eq!(steps, 32, "512 KiB and some by 16");
    // SAFETY: these are what the request was made with.
    unsafe { disk.complete_read_blocks(token, &request, &mut back, &mut response) }.expect("read");
    assert_eq!(response.status(), RespStatus::OK);
    assert!(back == data);
}

#[test]
fn a_board_is_replaced_by_its_restored_self_in_the_middle_of_a_transfer() {
    let board = Board::new();
    let mut disk = VirtIOBlk::<Arena, Ports>::new(board.ports(DISK)).expect("a disk");
    let data = pattern(300 * 512);
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    // SAFETY: request, buffer and response live, untouched, until the request is completed below.
    let token = unsafe { disk.write_blocks_nb(100, &mut request, &data, &mut response) };
    let token = token.expect("queued");
    board.replace();
    while board.step() {
        board.replace();
    }
    assert_eq!(disk.peek_used(), Some(token));
    // SAFETY: these are what the request was made with.
    unsafe { disk.complete_write_blocks(token, &request, &data, &mut response) }.expect("written");
    assert!(board.disk(0)[100 * 512..400 * 512] == data);
    let mut back = vec![0; 512];
    disk.read_blocks(399, &mut back).expect("read");
    assert_eq!(back, data[299 * 512..]);
}

#[test]
fn a_read_only_disk_says_so() {
    let board = Board::new();
    let mut disk = VirtIOBlk::<Arena, Ports>::new(board.ports(READ_ONLY_DISK)).expect("a disk");
    assert!(disk.readonly());
    assert_eq!(disk.capacity(), 8);
    assert_eq!(disk.write_blocks(0, &[0; 512]), Err(Error::IoError));
    let mut sector = [0; 512];
    disk.read_blocks(7, &mut sector).expect("read");
    assert_eq!(sector, [0x5A; 512]);
}

#[test]
fn a_console_talks_and_listens() {
    let board = Board::new();
    let mut console = VirtIOConsole::<Arena, Ports>::new(board.ports(CONSOLE)).expect("a console");
    console.send_bytes(b"hello, ").expect("sent");
    console.send(b'w').expect("sent");
    assert_eq!(board.console(), b"hello, w");
    assert_eq!(console.recv(true), Ok(None));
    for round in 0..100 {
        let line = format!("line {round}\n");
        assert_eq!(board.input(line.as_bytes()), line.len());
        assert_eq!(console.ack_interrupt(), Ok(true));
        let mut heard = Vec::new();
        while let Some(byte) = console.recv(true).expect("a working device") {
            heard.push(byte);
        }
        assert_eq!(heard, line.as_bytes());
    }
    assert_eq!(board.stops(), []);
}

#[test]
fn entropy_is_there() {
    let board = Board::new();
    let mut source = VirtIORng::<Arena, Ports>::new(board.ports(ENTROPY)).expect("a source");
    let mut bytes = [0; 300];
    let count = source.request_entropy(&mut bytes).expect("some");
    assert_eq!(count, 256, "no more at once");
    assert_eq!(bytes[..256], board.entropy()[..256]);
    assert_eq!(bytes[256..], [0; 44]);
}

/// A frame to the network card.
fn frame(length: usize) -> Vec<u8> {
    let mut bytes = pattern(length);
    bytes[..6].copy_from_slice(&MAC);
    bytes
}

#[test]
fn a_network_card_sends_and_receives() {
    let board = Board::new();
    let mut card =
        VirtIONet::<Arena, Ports, 16>::new(board.ports(CARD), 2048).expect("a network card");
    assert_eq!(card.mac_address(), MAC);
    for round in 0..100 {
        let frame = frame(60 + 14 * round);
        card.send(TxBuffer::from(&frame)).expect("sent");
        assert_eq!(board.sent(), std::slice::from_ref(&frame));
        assert!(!card.can_recv());
        assert!(board.deliver(&frame));
        let received = card.receive().expect("a frame");
        assert_eq!(received.packet(), frame);
        card.recycle_rx_buffer(received).expect("given back");
        if round % 10 == 0 {
            board.replace();
        }
    }
    assert_ne!(card.ack_interrupt().bits(), 0);
    assert_eq!(board.stops(), []);
}

#[test]
fn frames_beyond_the_buffers_are_lost_and_no_others() {
    let board = Board::new();
    let mut card =
        VirtIONet::<Arena, Ports, 16>::new(board.ports(CARD), 2048).expect("a network card");
    let taken = (0..20).filter(|at| board.deliver(&frame(60 + at))).count();
    assert_eq!(taken, 16);
    for at in 0..16 {
        let received = card.receive().expect("a frame");
        assert_eq!(received.packet(), frame(60 + at));
        card.recycle_rx_buffer(received).expect("given back");
    }
    assert!(!card.can_recv());
    assert!(board.deliver(&frame(1514)));
    drop(card);
    assert!(!board.deliver(&frame(60)), "nobody is there");
    assert_eq!(board.stops(), []);
}

#[test]
fn a_driver_can_come_back() {
    let board = Board::new();
    for _ in 0..3 {
        let mut disk = VirtIOBlk::<Arena, Ports>::new(board.ports(DISK)).expect("a disk");
        let mut sector = [0; 512];
        for _ in 0..300 {
            disk.read_blocks(0, &mut sector).expect("read");
        }
    }
}
