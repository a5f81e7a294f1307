//! Board files are read strictly, and every error comes with its line.
#![cfg(feature = "host")]

use config::toml::{BuiltImage, Origin, PRIORITY_DEFAULT, parse};
use config::{Clock, Device, GuestDisk, ImageFormat, OnCrash, Watchdog, WhenAllOff};
use proptest::prelude::*;
use std::path::PathBuf;

const FULL: &str = r#"
[board]
name = "blade"
cpus = 2
when_all_off = "power-off"

[[guest]]
name = "rtos"
image = "@rtos"
format = "multiboot"
memory = "16M"
cpu = 1
priority = 200
command_line = "selftest"
modules = [{ image = "a.bin", command_line = "first" }, { image = "b.bin" }]
devices = ["com1", "rtc"]
autostart = false
on_crash = "restart"

[[guest]]
name = "old"
image = "b.bin"
memory = "64 MiB"
cpu = 0
clock = "paravirtual"
watchdog = "restart"
"#;

/// The errors of a text as `line: reason`.
fn errors(text: &str) -> Vec<String> {
    match parse(text, "b.toml", None) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            let lines = errors.errors.iter();
            lines.map(|e| format!("{}: {}", e.line, e.reason)).collect()
        }
    }
}

/// The errors after one replacement in [`FULL`].
fn errors_after(from: &str, to: &str) -> Vec<String> {
    assert!(FULL.contains(from), "{from}");
    errors(&FULL.replacen(from, to, 1))
}

#[test]
fn apics_are_there_only_where_they_are_named() {
    let named = FULL.replace("\"com1\", \"rtc\"", "\"com1\", \"apic\"");
    let (board, _) = parse(&named, "b.toml", None).unwrap();
    assert_eq!(board.guests[0].devices, [Device::Com1, Device::Apic]);
    assert!(!board.guests[1].devices.contains(&Device::Apic));
}

#[test]
fn a_full_board_is_read_and_defaults_are_filled_in() {
    let (board, sources) = parse(FULL, "b.toml", None).unwrap();
    assert_eq!(board.name, "blade");
    assert_eq!(board.when_all_off, WhenAllOff::PowerOff);
    let [rtos, old] = &board.guests[..] else {
        panic!("two guests: {board:?}");
    };
    assert_eq!(
        (rtos.memory, &rtos.cpus[..], rtos.priority),
        (16 << 20, &[1][..], 200)
    );
    assert_eq!(rtos.command_line, "selftest");
    assert_eq!(rtos.devices, [Device::Com1, Device::Rtc]);
    assert_eq!(rtos.clock, Clock::Tsc);
    assert_eq!(old.clock, Clock::Paravirtual);
    assert!(!rtos.autostart);
    assert_eq!(rtos.on_crash, OnCrash::Restart);
    assert_eq!(rtos.watchdog, None);
    assert_eq!(old.watchdog, Some(Watchdog::Restart));
    assert_eq!(rtos.modules[0].command_line, "first");
    assert_eq!(
        (rtos.image, rtos.modules[0].image, rtos.modules[1].image),
        (0, 1, 2)
    );
    assert_eq!(old.image, 2, "the same file is one module");
    assert_eq!(old.format, ImageFormat::Multiboot);
    assert_eq!(old.priority, PRIORITY_DEFAULT);
    assert_eq!(old.devices, [Device::Com1, Device::Rtc, Device::Pci]);
    assert!(old.autostart);
    assert_eq!(old.on_crash, OnCrash::Stop);
    let origins: Vec<_> = sources.iter().map(|s| (s.origin.clone(), s.line)).collect();
    assert_eq!(
        origins,
        [
            (Origin::Built(BuiltImage::Rtos), 9),
            (Origin::File(PathBuf::from("a.bin")), 15),
            (Origin::File(PathBuf::from("b.bin")), 15),
        ]
    );
    assert_eq!(sources[0].purpose, "image of guest \"rtos\"");
}

#[test]
fn unknown_keys_are_errors_with_a_guess() {
    assert_eq!(
        errors_after("memory =", "memroy ="),
        [
            "7: [[guest]] needs the key \"memory\"",
            "11: [[guest]] has no key \"memroy\"; did you mean \"memory\"?",
        ]
    );
    assert_eq!(
        errors_after("cpus = 2", "cpus = 2\ncolour = 1"),
        ["5: [board] has no key \"colour\"; it may have: name, cpus, when_all_off"]
    );
    assert_eq!(
        errors_after("command_line = \"first\"", "cmdline = \"first\""),
        ["15: a module has no key \"cmdline\"; it may have: image, command_line"]
    );
    assert_eq!(
        errors_after("[board]", "[borad]")[1],
        "2: the file has no key \"borad\"; did you mean \"board\"?"
    );
}

#[test]
fn wrong_values_are_named_with_their_line() {
    for (from, to, expected) in [
        (
            "cpus = 2",
            "cpus = \"2\"",
            "4: cpus must be a whole number, not a TOML string",
        ),
        (
            "cpus = 2",
            "cpus = -1",
            "4: cpus = -1 is outside 0 to 4294967295",
        ),
        (
            "cpu = 1",
            "cpu = 2",
            "12: processor 2 is not on this board: with cpus = 2 the processors are 0 to 1",
        ),
        (
            "cpu = 1",
            "cpu = [0, 2]",
            "12: processor 2 is not on this board: with cpus = 2 the processors are 0 to 1",
        ),
        (
            "cpu = 1",
            "cpu = [0, 1]",
            "12: 2 vCPUs: a multiboot kernel's PC has one processor; name one",
        ),
        (
            "cpu = 1",
            "cpu = [0, true]",
            "12: cpu must be a whole number, not a TOML boolean",
        ),
        (
            "priority = 200",
            "priority = 256",
            "13: priority = 256 is outside 0 to 255",
        ),
        (
            "\"16M\"",
            "16",
            "11: memory = 16 lacks a unit; write it like \"16M\"",
        ),
        (
            "\"16M\"",
            "\"16MB\"",
            "11: the unit \"MB\" is ambiguous; write M or MiB for the power of 1024",
        ),
        (
            "\"16M\"",
            "\"3M\"",
            "11: memory of 3145728 bytes is not a multiple of 2 MiB",
        ),
        (
            "\"restart\"",
            "\"reboot\"",
            "18: on_crash cannot be \"reboot\"; known: \"stop\", \"restart\"",
        ),
        (
            "\"power-off\"",
            "\"poweroff\"",
            "5: when_all_off cannot be \"poweroff\"; did you mean \"power-off\"?",
        ),
        (
            "\"rtc\"]",
            "\"rtc2\"]",
            "16: devices cannot hold \"rtc2\"; did you mean \"rtc\"?",
        ),
        (
            "\"rtc\"]",
            "\"com1\"]",
            "16: the same device is named twice",
        ),
        (
            "autostart = false",
            "autostart = \"no\"",
            "17: autostart must be true or false, not a TOML string",
        ),
        (
            "\"@rtos\"",
            "\"@rots\"",
            "9: the build makes no guest \"@rots\"; did you mean \"rtos\"?",
        ),
        ("\"@rtos\"", "\"\"", "9: image must name a file"),
        (
            "name = \"old\"",
            "name = \"rtos\"",
            "21: there is already a guest named \"rtos\"; names must differ",
        ),
        (
            "name = \"blade\"",
            "name = \"Blade\"",
            "3: the board's name holds 'B'; only the letters a to z, digits and '-' may stand in it",
        ),
    ] {
        assert_eq!(errors_after(from, to), [expected]);
    }
}

#[test]
fn a_linux_guest_names_what_the_build_makes() {
    let text = r#"
[board]
name = "blade"
cpus = 1

[[guest]]
name = "linux"
image = "@linux"
memory = "256M"
cpu = 0
modules = [{ image = "@initramfs" }]

[[guest]]
name = "other"
image = "vmlinuz"
format = "linux"
memory = "256M"
cpu = 0
priority = 1
"#;
    let (board, sources) = parse(text, "b.toml", None).unwrap();
    assert!(
        board
            .guests
            .iter()
            .all(|guest| guest.format == ImageFormat::Linux)
    );
    let origins: Vec<_> = sources.into_iter().map(|source| source.origin).collect();
    assert_eq!(
        origins,
        [
            Origin::Built(BuiltImage::Linux),
            Origin::Built(BuiltImage::Initramfs),
            Origin::File(PathBuf::from("vmlinuz")),
        ]
    );
    let named = text.replace("\"@initramfs\"", "\"@initramfs\", command_line = \"x\"");
    assert_eq!(
        errors(&named),
        ["11: a Linux kernel's modules cannot have command lines"]
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = FULL
        .replace("cpus = 2", "cpus = 0")
        .replace("\"16M\"", "\"big\"")
        .replace("\"64 MiB\"", "7");
    let errors = errors(&text);
    let lines: Vec<_> = errors
        .iter()
        .map(|e| e.split(':').next().unwrap())
        .collect();
    assert_eq!(lines, ["4", "11", "12", "23", "24"], "{errors:#?}");
}

#[test]
fn guests_on_one_processor_need_different_priorities() {
    let text = FULL.replace("cpu = 0", "cpu = 1\npriority = 200");
    assert_eq!(
        errors(&text),
        [
            "25: guests \"rtos\" and \"old\" share processor 1 and priority 200; give one of them \
          another priority (the higher number runs first)"
        ]
    );
}

#[test]
fn a_missing_key_hides_no_other_error_and_causes_none() {
    let text = FULL.replace("cpus = 2\n", "").replace("cpu = 0\n", "");
    assert_eq!(
        errors(&text),
        [
            "2: [board] needs the key \"cpus\"",
            "19: [[guest]] needs the key \"cpu\""
        ]
    );
}

#[test]
fn broken_syntax_is_told_with_its_line() {
    let errors = errors("[board]\nname = \"a\ncpus = 1\n");
    assert!(errors[0].starts_with("2: "), "{errors:?}");
    assert_eq!(errors.len(), 1, "no follow-on errors: {errors:?}");
}

#[test]
fn an_empty_file_says_what_it_needs() {
    assert_eq!(
        errors(""),
        [
            "1: the file needs the key \"board\"",
            "1: a board needs at least one [[guest]], or [management]"
        ]
    );
    assert!(errors("guest = 3")[1].contains("[[guest]]"));
    assert!(errors("guest = [3]")[1].contains("[[guest]]"));
    assert!(errors("board = 3").join("").contains("[board]"));
}

#[test]
fn errors_print_like_a_compilers() {
    let error = parse(&FULL.replace("cpu = 1", "cpu = 9"), "boards/b.toml", None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("boards/b.toml:12: processor 9")
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\[+[a-z]{0,6}\\]+|[a-z_]{1,6} ?= ?[\"0-9a-z\\[\\]{},. ]{0,9}|\n|\\PC){0,12}") {
        let _ = parse(&text, "x", None);
    }

    #[test]
    fn a_changed_character_never_panics(at in any::<prop::sample::Index>(), with in any::<char>()) {
        let at = at.index(FULL.len());
        let text = format!("{}{with}{}", &FULL[..at], &FULL[at + 1..]);
        let _ = parse(&text, "x", None);
    }
}

#[test]
fn watchdogs_have_policies_and_a_bus() {
    assert_eq!(
        errors_after("watchdog = \"restart\"", "watchdog = \"bark\""),
        ["26: watchdog cannot be \"bark\"; known: \"restart\", \"failover\""]
    );
    assert_eq!(
        errors_after("on_crash = \"restart\"", "watchdog = \"restart\""),
        ["18: the watchdog is on the PCI bus: the guest's devices must include \"pci\""]
    );
    assert_eq!(
        errors_after("watchdog = \"restart\"", "watchdog = \"failover\""),
        ["26: only a guest with mirror = \"warm\" has a peer that takes over; write \"restart\""]
    );
}

#[test]
fn disks_and_virtio_devices() {
    let text = r#"
[board]
name = "b"
cpus = 1

[[guest]]
name = "g"
image = "kernel"
memory = "16M"
cpu = 0
devices = ["pci", "virtio-console", "virtio-rng"]
disks = [
    { image = "root.img", size = "64M", read_only = true },
    { size = "4K" },
]
"#;
    let (board, sources) = parse(text, "b.toml", None).unwrap();
    let guest = &board.guests[0];
    assert_eq!(
        guest.devices,
        [Device::Pci, Device::VirtioConsole, Device::VirtioRng]
    );
    assert_eq!(
        guest.disks,
        [
            GuestDisk {
                image: Some(1),
                size: 64 << 20,
                read_only: true,
            },
            GuestDisk {
                image: None,
                size: 4096,
                read_only: false,
            },
        ]
    );
    assert_eq!(sources[1].purpose, "image of disk 0 of guest \"g\"");
    assert_eq!(sources[1].line, 13);
    assert_eq!(
        errors(&text.replace("\"4K\"", "\"5K\"")),
        ["14: a disk of 5120 bytes is not a multiple of 4 KiB"]
    );
    assert_eq!(
        errors(&text.replace("{ size = \"4K\" }", "{ }, 7")),
        [
            "14: a disk needs the key \"size\"",
            "14: a disk is written { image = \"FILE\", size = \"64M\" }"
        ]
    );
}
