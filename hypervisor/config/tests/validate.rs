//! Every limit of the board types is enforced, and told with its place.

use config::validate::{BoardKey, GuestKey, Place};
use config::{
    Board, Clock, Device, Guest, GuestDisk, GuestModule, ImageFormat, OnCrash, Watchdog, WhenAllOff,
};

fn guest(name: &str) -> Guest {
    Guest {
        name: name.into(),
        format: ImageFormat::Multiboot,
        image: 0,
        memory: 2 << 20,
        cpus: vec![0],
        priority: 1,
        command_line: String::new(),
        modules: Vec::new(),
        devices: Vec::new(),
        clock: Clock::Tsc,
        disks: Vec::new(),
        nics: Vec::new(),
        autostart: true,
        on_crash: OnCrash::Restart,
        watchdog: None,
        mirror: None,
    }
}

fn board() -> Board {
    Board {
        name: "b".into(),
        cpus: 1,
        when_all_off: WhenAllOff::Stay,
        guests: vec![guest("a")],
        uplinks: Vec::new(),
        management: None,
        mirror: None,
    }
}

/// The places of the problems after `change`.
fn places(change: impl FnOnce(&mut Board)) -> Vec<Place> {
    let mut board = board();
    change(&mut board);
    let problems = board.problems();
    assert_eq!(board.validate().err(), problems.first().cloned());
    problems.into_iter().map(|problem| problem.place).collect()
}

fn guest_places(change: impl FnOnce(&mut Guest)) -> Vec<Place> {
    places(|board| change(&mut board.guests[0]))
}

const fn first(key: GuestKey) -> Place {
    Place::Guest(0, key)
}

#[test]
fn the_plain_board_is_sound() {
    assert_eq!(places(|_| ()), []);
}

#[test]
fn board_limits() {
    let name = [Place::Board(BoardKey::Name)];
    assert_eq!(places(|b| b.name.clear()), name);
    assert_eq!(places(|b| b.name = "sixteen-letters-".into()), name);
    assert_eq!(places(|b| b.name = "fifteen-letters".into()), []);
    assert_eq!(places(|b| b.name = "Upper".into()), name);
    assert_eq!(places(|b| b.name = "é".into()), name);
    assert_eq!(places(|b| b.cpus = 65), [Place::Board(BoardKey::Cpus)]);
    assert_eq!(places(|b| b.cpus = 64), []);
    assert_eq!(
        places(|b| b.cpus = 0),
        [Place::Board(BoardKey::Cpus), first(GuestKey::Cpus)]
    );
    assert_eq!(
        places(|b| b.guests.clear()),
        [Place::Board(BoardKey::Guests)]
    );
    let many = |count: u8| {
        move |b: &mut Board| {
            b.guests = (0..count)
                .map(|at| Guest {
                    priority: at,
                    ..guest(&format!("g{at}"))
                })
                .collect();
        }
    };
    assert_eq!(places(many(8)), []);
    assert_eq!(places(many(9)), [Place::Board(BoardKey::Guests)]);
}

#[test]
fn guest_limits() {
    for memory in [0, 1 << 20, 3 << 20, (3 << 30) + (2 << 20), u64::MAX] {
        assert_eq!(
            guest_places(|g| g.memory = memory),
            [first(GuestKey::Memory)]
        );
    }
    assert_eq!(guest_places(|g| g.memory = 3 << 30), []);
    assert_eq!(guest_places(|g| g.cpus = vec![1]), [first(GuestKey::Cpus)]);
    assert_eq!(guest_places(|g| g.cpus.clear()), [first(GuestKey::Cpus)]);
    let vcpus = |count, format| guest_places(|g| (g.cpus, g.format) = (vec![0; count], format));
    assert_eq!(vcpus(2, ImageFormat::Multiboot), [first(GuestKey::Cpus)]);
    assert_eq!(vcpus(8, ImageFormat::Linux), []);
    assert_eq!(vcpus(9, ImageFormat::Linux), [first(GuestKey::Cpus)]);
    let line = [first(GuestKey::CommandLine)];
    assert_eq!(guest_places(|g| g.command_line = "x".repeat(2048)), line);
    assert_eq!(guest_places(|g| g.command_line = "x".repeat(2047)), []);
    assert_eq!(guest_places(|g| g.command_line = "a\0b".into()), line);
    assert_eq!(
        guest_places(|g| g.devices = vec![Device::Com1, Device::Rtc, Device::Com1]),
        [first(GuestKey::Devices)]
    );
    let module = |text: &str| GuestModule {
        image: 1,
        command_line: text.into(),
    };
    assert_eq!(
        guest_places(|g| g.modules = vec![module(""), module("\0")]),
        [first(GuestKey::ModuleCommandLine(1))]
    );
    assert_eq!(
        guest_places(|g| g.modules = vec![module(""); 17]),
        [first(GuestKey::Modules)]
    );
}

#[test]
fn guests_must_differ_in_name_and_in_priority_where_they_share_a_processor() {
    assert_eq!(
        places(|b| b.guests.push(guest("a"))),
        [
            Place::Guest(1, GuestKey::Name),
            Place::Guest(1, GuestKey::Priority)
        ]
    );
    assert_eq!(
        places(|b| {
            b.cpus = 2;
            b.guests.push(Guest {
                cpus: vec![1],
                ..guest("c")
            });
        }),
        []
    );
    assert_eq!(
        places(|b| b.guests.push(Guest {
            priority: 2,
            ..guest("c")
        })),
        []
    );
}

#[test]
fn virtio_devices_need_their_bus() {
    let devices = [first(GuestKey::Devices)];
    assert_eq!(
        guest_places(|g| g.devices = vec![Device::VirtioConsole]),
        devices
    );
    assert_eq!(
        guest_places(|g| g.devices = vec![Device::VirtioRng]),
        devices
    );
    assert_eq!(
        guest_places(|g| g.devices = vec![Device::VirtioRng, Device::Pci]),
        []
    );
}

#[test]
fn watchdogs_need_their_bus_and_a_peer_that_takes_over() {
    let places = |policy, devices: &[Device]| {
        guest_places(|g| {
            g.watchdog = Some(policy);
            g.devices = devices.to_vec();
        })
    };
    let wrong = [first(GuestKey::Watchdog)];
    let pci = [Device::Pci];
    assert_eq!(places(Watchdog::Restart, &pci), []);
    assert_eq!(places(Watchdog::Restart, &[Device::Rtc]), wrong);
    assert_eq!(places(Watchdog::Failover, &pci), wrong);
}

#[test]
fn disk_limits() {
    let with = |sizes: &[u64]| {
        let disks = sizes.iter().map(|size| GuestDisk {
            image: None,
            size: *size,
            read_only: false,
        });
        let disks: Vec<_> = disks.collect();
        guest_places(|g| {
            g.devices = vec![Device::Pci];
            g.disks = disks;
        })
    };
    assert_eq!(with(&[4096, 64 << 30]), []);
    for size in [0, 512, 4097, (64 << 30) + 4096, u64::MAX] {
        assert_eq!(with(&[4096, size]), [first(GuestKey::Disk(1))]);
    }
    assert_eq!(with(&[4096; 16]), []);
    assert_eq!(with(&[4096; 17]), [first(GuestKey::Disks)]);
    let without_bus = guest_places(|g| {
        g.disks = vec![GuestDisk {
            image: None,
            size: 4096,
            read_only: false,
        }];
    });
    assert_eq!(without_bus, [first(GuestKey::Disks)]);
}
