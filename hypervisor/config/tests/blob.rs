//! The blob keeps a board exactly, refuses damage, and never panics on any bytes.

use config::blob::{self, BlobError, HEADER_LEN};
use config::network::derived_mac;
use config::{
    Arbiter, Board, Card, Clock, Device, Guest, GuestDisk, GuestMirror, GuestModule, GuestNic,
    ImageFormat, Management, Mirror, MirrorMode, NicModel, OnCrash, Uplink, Vlans, Watchdog,
    WhenAllOff,
};
use mirror::Side;
use proptest::prelude::*;

fn guest(name: &str, cpu: u32, priority: u8) -> Guest {
    Guest {
        name: name.into(),
        format: ImageFormat::Multiboot,
        image: 0,
        memory: 16 << 20,
        cpus: vec![cpu],
        priority,
        command_line: "selftest".into(),
        modules: vec![GuestModule {
            image: 1,
            command_line: "data".into(),
        }],
        devices: vec![Device::Com1, Device::Rtc, Device::Pci, Device::VirtioRng],
        disks: vec![GuestDisk {
            image: Some(2),
            size: 1 << 20,
            read_only: true,
        }],
        nics: vec![nic(name)],
        clock: Clock::Tsc,
        autostart: true,
        on_crash: OnCrash::Stop,
        watchdog: Some(Watchdog::Failover),
        mirror: Some(GuestMirror {
            mode: MirrorMode::Warm,
            epoch: 5_000,
            group: 0,
        }),
    }
}

fn nic(owner: &str) -> GuestNic {
    GuestNic {
        model: NicModel::Ne2000 {
            port: 0x300,
            irq: 5,
        },
        mac: derived_mac("blade", owner, 0),
        vlans: Vlans::access(7),
        guard: true,
        urgent: true,
        receive_limit: Some(1_000_000),
        transmit_limit: None,
        mtu: 1500,
        queues: 1,
    }
}

fn uplink() -> Uplink {
    Uplink {
        name: "lan".into(),
        card: Card::Slot {
            bus: 1,
            device: 2,
            function: 3,
        },
        vlans: Vlans {
            untagged: None,
            tagged: vec![7, 8],
        },
        mtu: 9000,
    }
}

fn mirror() -> Mirror {
    Mirror {
        side: Side::B,
        card: Card::Slot {
            bus: 0,
            device: 9,
            function: 0,
        },
        mtu: 9000,
        images: 5,
        key: [7; 16],
        lan: 0,
        arbiter: Arbiter::Witness {
            address: [192, 0, 2, 9],
            port: 7400,
        },
        heartbeat: 10_000,
        dead_after: 100_000,
    }
}

fn management() -> Management {
    Management {
        mac: derived_mac("blade", "management", 0),
        address: [192, 0, 2, 2],
        prefix: 24,
        gateway: Some([192, 0, 2, 1]),
        vlan: 8,
    }
}

fn board() -> Board {
    Board {
        name: "blade".into(),
        cpus: 2,
        when_all_off: WhenAllOff::PowerOff,
        guests: vec![guest("rtos", 1, 200), guest("other", 1, 10)],
        uplinks: vec![uplink()],
        management: Some(management()),
        mirror: Some(mirror()),
    }
}

/// Gives `blob` the checksum that fits its bytes, as a hostile author would.
fn seal(blob: &mut [u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&blob[..16]);
    hasher.update(&blob[HEADER_LEN..]);
    blob[16..HEADER_LEN].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// A sealed blob around `payload`.
fn around(payload: &[u8]) -> Vec<u8> {
    let mut blob = blob::MAGIC.to_vec();
    blob.extend_from_slice(&blob::VERSION.to_le_bytes());
    blob.extend_from_slice(
        &u32::try_from(payload.len())
            .expect("a small payload")
            .to_le_bytes(),
    );
    blob.extend_from_slice(&[0; 4]);
    blob.extend_from_slice(payload);
    seal(&mut blob);
    blob
}

#[test]
fn a_board_comes_back_as_it_went() {
    assert_eq!(blob::decode(&blob::encode(&board())), Ok(board()));
}

#[test]
fn the_encoding_is_fixed() {
    let blob = blob::encode(&board());
    assert_eq!(&blob[..8], b"UNDRSTDY");
    assert_eq!(&blob[HEADER_LEN..HEADER_LEN + 9], b"\x05blade\x02\x01\x02");
}

#[test]
fn each_damage_has_its_name() {
    let good = blob::encode(&board());
    assert_eq!(blob::decode(&[]), Err(BlobError::TooShort { len: 0 }));
    assert_eq!(
        blob::decode(&good[..HEADER_LEN - 1]),
        Err(BlobError::TooShort {
            len: HEADER_LEN - 1
        })
    );
    let mut other = good.clone();
    other[0] = b'X';
    assert_eq!(blob::decode(&other), Err(BlobError::NotABoard));
    let mut other = good.clone();
    other[8] = 1;
    assert_eq!(blob::decode(&other), Err(BlobError::Version { found: 1 }));
    assert!(matches!(
        blob::decode(&good[..good.len() - 1]),
        Err(BlobError::Length { .. })
    ));
    assert_eq!(blob::decode(&around(&[0xff; 9])), Err(BlobError::Encoding));
    let mut trailing = good[HEADER_LEN..].to_vec();
    trailing.push(0);
    assert_eq!(
        blob::decode(&around(&trailing)),
        Err(BlobError::Trailing { len: 1 })
    );
    assert_eq!(
        blob::decode(&vec![0; blob::LEN_MAX + 1]),
        Err(BlobError::TooLong {
            len: blob::LEN_MAX + 1
        })
    );
}

#[test]
fn a_board_that_breaks_a_rule_is_refused_though_its_checksum_holds() {
    let mut broken = board();
    broken.guests[0].cpus[0] = 2;
    let Err(BlobError::Board(problem)) = blob::decode(&blob::encode(&broken)) else {
        panic!("a guest on a processor that is not there was accepted");
    };
    assert!(problem.reason.contains("processor 2"), "{problem}");
}

#[test]
fn a_length_of_gigabytes_in_the_payload_is_an_error_and_no_allocation() {
    let payload = [1, b'a', 1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(blob::decode(&around(&payload)), Err(BlobError::Encoding));
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = blob::encode(&board());
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(blob::decode(&flipped).is_err(), "bit {bit} went unnoticed");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(blob::decode(&bytes).is_err());
    }

    #[test]
    fn random_payloads_with_a_right_checksum_give_sound_boards_or_errors(
        payload in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        if let Ok(board) = blob::decode(&around(&payload)) {
            prop_assert_eq!(board.validate(), Ok(()));
        }
    }

    #[test]
    fn changed_boards_with_a_right_checksum_give_sound_boards_or_errors(
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut blob = blob::encode(&board());
        let at = HEADER_LEN + at.index(blob.len() - HEADER_LEN);
        blob[at] = value;
        seal(&mut blob);
        if let Ok(board) = blob::decode(&blob) {
            prop_assert_eq!(board.validate(), Ok(()));
        }
    }

    #[test]
    fn any_sound_board_comes_back(
        cpus in 1u32..=64,
        names in proptest::collection::hash_set("[a-z0-9-]{1,15}", 1..=8),
        memory in 1u64..=1536,
        text in "[^\\x00]{0,200}",
        autostart in any::<bool>(),
    ) {
        let guests = names.iter().zip(0u8..).map(|(name, at)| Guest {
            memory: memory << 21,
            command_line: text.clone(),
            autostart,
            ..guest(name, u32::from(at) % cpus, at)
        });
        let board = Board { cpus, guests: guests.collect(), ..board() };
        prop_assert_eq!(board.validate(), Ok(()));
        prop_assert_eq!(blob::decode(&blob::encode(&board)), Ok(board));
    }
}
