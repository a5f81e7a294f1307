//! Boards of a pair in board files.

use config::toml::{ConfigErrors, parse};
use config::{Arbiter, Board, Card, GuestMirror, Mirror, MirrorMode, OnSilence, Watchdog};
use mirror::Side;

const BOARD: &str = r#"[board]
name = "pair"
cpus = 2

[[guest]]
name = "rtos"
image = "@rtos"
memory = "16M"
cpu = 1
mirror = "warm"
epoch = "5 ms"
nics = [{ model = "virtio" }]

[[uplink]]
name = "lan"
card = { a = "52:54:00:00:00:01", b = "52:54:00:00:00:11" }

[management]
address = { a = "192.0.2.2/24", b = "192.0.2.3/24" }

[mirror]
card = "00:04.0"
mtu = 9000
key = "000102030405060708090a0b0c0d0e0f"
witness = "192.0.2.9:7400"
heartbeat = "20 ms"
"#;

fn read(text: &str, side: Side) -> Result<Board, ConfigErrors> {
    parse(text, "b.toml", Some(side)).map(|(board, _)| board)
}

/// The first error of the board with something changed.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    assert!(BOARD.contains(from), "{from}");
    let errors = read(&BOARD.replacen(from, to, 1), Side::A).expect_err(to);
    format!("{}: {}", errors.errors[0].line, errors.errors[0].reason)
}

#[test]
fn one_file_is_two_boards() {
    let [a, b] = [Side::A, Side::B].map(|side| read(BOARD, side).expect("a sound board"));
    let mirror = Mirror {
        side: Side::A,
        card: Card::Slot {
            bus: 0,
            device: 4,
            function: 0,
        },
        mtu: 9000,
        images: 0,
        key: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        lan: 0,
        arbiter: Arbiter::Witness {
            address: [192, 0, 2, 9],
            port: 7400,
        },
        heartbeat: 20_000,
        dead_after: 200_000,
    };
    assert_eq!(a.mirror.as_ref(), Some(&mirror));
    assert_eq!(
        b.mirror,
        Some(Mirror {
            side: Side::B,
            ..mirror
        })
    );
    let guest = GuestMirror {
        mode: MirrorMode::Warm,
        epoch: 5_000,
        group: 0,
    };
    assert_eq!(a.guests[0].mirror, Some(guest));
    // What the guests have is the same on both, and what is the board's own is not.
    assert_eq!(a.guests, b.guests);
    let stations = [&a, &b].map(|board| board.management.clone().expect("a station"));
    assert_eq!(stations[0].address, [192, 0, 2, 2]);
    assert_eq!(stations[1].address, [192, 0, 2, 3]);
    assert_ne!(stations[0].mac, stations[1].mac);
    assert_ne!(a.uplinks[0].card, b.uplinks[0].card);
}

#[test]
fn rules_for_silence() {
    for (word, rule) in [
        ("hold", OnSilence::Hold),
        ("backup", OnSilence::Backup),
        ("assume-dead", OnSilence::AssumeDead),
    ] {
        let text = BOARD.replace(
            "witness = \"192.0.2.9:7400\"",
            &format!("on_silence = \"{word}\""),
        );
        let board = read(&text, Side::A).expect("a sound board");
        let arbiter = board.mirror.map(|mirror| mirror.arbiter);
        assert_eq!(arbiter, Some(Arbiter::OnSilence(rule)));
    }
}

#[test]
fn only_a_warm_guest_fails_over() {
    let with = |policy: &str, mode: &str| {
        let text = BOARD.replace(
            "mirror = \"warm\"",
            &format!("mirror = \"{mode}\"\nwatchdog = \"{policy}\""),
        );
        read(&text, Side::A).map(|board| board.guests[0].watchdog)
    };
    assert_eq!(
        with("failover", "warm").ok(),
        Some(Some(Watchdog::Failover))
    );
    assert_eq!(with("restart", "warm").ok(), Some(Some(Watchdog::Restart)));
    assert_eq!(with("restart", "cold").ok(), Some(Some(Watchdog::Restart)));
    let errors = with("failover", "cold").expect_err("nobody to take over");
    assert_eq!(errors.errors[0].line, 11, "{errors}");
    assert!(errors.to_string().contains("mirror = \"warm\""), "{errors}");
}

#[test]
fn the_side_must_be_said_and_only_of_a_pair() {
    let errors = parse(BOARD, "b.toml", None).expect_err("no side");
    let lines: Vec<_> = errors.errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [16, 19, 21], "{errors}");
    assert!(errors.to_string().contains("--side a or --side b"));
    let (alone, _) = BOARD.split_once("[mirror]").expect("a mirror");
    let alone = alone.replace("mirror = \"warm\"\nepoch = \"5 ms\"\n", "");
    let errors = read(&alone, Side::B).expect_err("no pair");
    assert!(
        errors.to_string().contains("only the boards of a pair"),
        "{errors}"
    );
}

#[test]
fn mistakes_are_named() {
    for (from, to, wanted) in [
        (
            "card = \"00:04.0\"",
            "card = \"52:54:00:00:00:01\"",
            "22: the link needs a card of its own",
        ),
        (
            "card = \"00:04.0\"",
            "",
            "21: [mirror] needs the key \"card\"",
        ),
        (
            "mtu = 9000",
            "mtu = 1000",
            "23: mtu = 1000 is outside 1500 to 9000",
        ),
        ("0e0f", "0e", "24: key cannot be"),
        (
            "000102030405060708090a0b0c0d0e0f",
            "00000000000000000000000000000000",
            "24: a key of zeroes",
        ),
        (
            "heartbeat = \"20 ms\"",
            "lan = \"wan\"",
            "26: there is no [[uplink]] named \"wan\"",
        ),
        (
            "witness = \"192.0.2.9:7400\"\n",
            "",
            "21: [mirror] needs witness",
        ),
        (
            "192.0.2.9:7400",
            "192.0.2.9",
            "25: witness cannot be \"192.0.2.9\"",
        ),
        (
            "192.0.2.9:7400",
            "127.0.0.1:7400",
            "25: no witness can be there",
        ),
        (
            "heartbeat = \"20 ms\"",
            "on_silence = \"hold\"",
            "26: with a witness",
        ),
        (
            "heartbeat = \"20 ms\"",
            "heartbeat = \"2 s\"",
            "26: heartbeats come every",
        ),
        (
            "heartbeat = \"20 ms\"",
            "dead_after = \"30 ms\"",
            "26: the peer is taken for dead after 4",
        ),
        (
            "mirror = \"warm\"",
            "mirror = \"hot\"",
            "10: mirror cannot be \"hot\"",
        ),
        (
            "mirror = \"warm\"",
            "mirror = \"off\"",
            "11: only a guest with mirror",
        ),
        (
            "epoch = \"5 ms\"",
            "epoch = \"5 us\"",
            "11: a checkpoint is taken every",
        ),
    ] {
        let reason = refused(from, to);
        assert!(reason.starts_with(wanted), "{to}: {reason}");
    }
}

/// The board with two more guests: one in the group of the first, and one in none.
fn grouped(second: &str) -> String {
    let more = format!(
        "[[guest]]\nname = \"second\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 0\nmirror = \"warm\"\n\n\
         [[guest]]\nname = \"third\"\nimage = \"@rtos\"\nmemory = \"16M\"\ncpu = 0\npriority = 50\n{second}\n\n[[uplink]]"
    );
    let named = "epoch = \"5 ms\"\nmirror_group = \"exchange\"";
    BOARD
        .replacen("[[uplink]]", &more, 1)
        .replacen("epoch = \"5 ms\"", named, 1)
}

#[test]
fn a_group_has_the_number_of_its_first_guest() {
    let good = "mirror = \"warm\"\nepoch = \"5 ms\"\nmirror_group = \"exchange\"";
    let board = read(&grouped(good), Side::A).expect("a good board");
    let groups: Vec<_> = board
        .guests
        .iter()
        .map(|guest| guest.mirror.map(|it| it.group))
        .collect();
    assert_eq!(groups, [Some(0), Some(1), Some(0)]);
    for (bad, wanted) in [
        (good.replace("5 ms", "6 ms"), "have one epoch"),
        (
            good.replace("warm", "cold"),
            "only guests with mirror = \"warm\"",
        ),
        (
            "mirror_group = \"exchange\"".into(),
            "has the key \"mirror_group\"",
        ),
    ] {
        let errors = read(&grouped(&bad), Side::A).expect_err("a bad group");
        assert!(errors.to_string().contains(wanted), "{errors}");
    }
}

#[test]
fn a_mirrored_guest_needs_a_peer() {
    let (alone, _) = BOARD.split_once("[mirror]").expect("a mirror");
    let alone = alone
        .replace(
            "{ a = \"52:54:00:00:00:01\", b = \"52:54:00:00:00:11\" }",
            "\"00:03.0\"",
        )
        .replace(
            "{ a = \"192.0.2.2/24\", b = \"192.0.2.3/24\" }",
            "\"192.0.2.2/24\"",
        );
    let errors = parse(&alone, "b.toml", None).expect_err("no pair");
    assert_eq!(errors.errors[0].line, 10, "{errors}");
    assert!(errors.to_string().contains("no [mirror]"), "{errors}");
}
