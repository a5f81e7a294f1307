//! Linux and the legacy system, both mirrored: connections, the disk and the clock of an unmodified Linux survive its board, and what
//! it has shown to the world of the legacy system's calls is so on the board that survives.

use super::{END, FIRST, PATIENCE, RTOS, STATION, plan, protected, station, warm};
use crate::client::Client;
use crate::client::ledger::Load;
use crate::suite::gateway::check_blob;
use crate::suite::lab::Lab;
use crate::suite::lan::wait_for_gateway;
use crate::suite::management::Metrics;
use crate::twin::{Pair, Role, SIDES, Until};
use crate::wire::{Spells, read_capture};
use anyhow::{Context, Result, bail, ensure};
use mirror::Side;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub(super) const LINUX: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// The guest beside the legacy system.
const GUEST: &str = r#"[[guest]]
name = "linux"
image = "@linux"
memory = "192M"
cpu = 0
command_line = "console=ttyS0 net=10.0.0.3/24 gateway_to=10.0.0.2"
modules = [{ image = "@initramfs" }]
devices = ["com1", "rtc", "pci", "virtio-console", "virtio-rng"]
disks = [{ size = "16M" }]
nics = [{ model = "virtio" }]
mirror = "warm"
epoch = "50ms"

"#;
/// How much is fetched while the board dies, and after how many bytes it does.
const BLOB: &str = "16M";
const KILL_AT: u64 = 3 << 20;
/// How often the gateway is asked for the meters.
const LOOK: Duration = Duration::from_millis(100);

/// The pair's board file with Linux beside the legacy system.
pub(crate) fn with_linux(text: &str) -> String {
    text.replacen("[[uplink]]", &format!("{GUEST}[[uplink]]"), 1)
}

/// A meter of a subscriber's: its number, and the meter's name.
type Meters = BTreeMap<(u64, &'static str), u64>;

/// The meters that the gateway shows.
fn meters(client: &Client) -> Result<Meters> {
    let (status, text) = client.http_text(LINUX, 80, "/exchange.json", END)?;
    ensure!(status == 200, "status {status}: {text}");
    let shown: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let subscribers = shown["subscribers"].as_array();
    let mut meters = Meters::new();
    for subscriber in subscribers.context("no subscribers")? {
        let number = subscriber["number"].as_u64().context("no number")?;
        for name in ["pulses", "calls", "connected_ms"] {
            if let Some(value) = subscriber[name].as_u64() {
                meters.insert((number, name), value);
            }
        }
    }
    Ok(meters)
}

/// No meter shows less than it did: what was shown is not undone.
fn check_meters(before: &Meters, after: &Meters) -> Result<()> {
    for ((number, name), value) in before {
        let now = after.get(&(*number, *name)).copied();
        ensure!(
            now.is_some_and(|now| now >= *value),
            "{number} was shown with {value} {name}, and has {now:?}"
        );
    }
    Ok(())
}

fn console(pair: &mut Pair, side: Side, command: &str, answer: &str) -> Result<String> {
    let machine = pair.machine(side)?;
    machine.send(&format!("\u{f}2{command}\n"))?;
    machine.expect(answer, PATIENCE)
}

/// Linux's uptime in seconds.
fn uptime(pair: &mut Pair, side: Side) -> Result<f64> {
    let command = "echo; cat /proc/uptime | sed 's/^/u''p /'";
    console(pair, side, command, "\nup ")?;
    let said = pair.machine(side)?.expect(" ", PATIENCE)?;
    let said = said.trim();
    said.parse().with_context(|| format!("{said:?} is no time"))
}

/// The same with both in a group.
fn in_group(text: &str) -> String {
    let grouped = "epoch = \"20ms\"\nmirror_group = \"exchange\"";
    let own = |text: &str, epoch: &str| text.replacen(epoch, grouped, 1);
    own(&own(text, "epoch = \"20ms\""), "epoch = \"50ms\"")
}

/// What a board's death does to what the world has from it.
pub(super) fn survives(lab: &Lab) -> Result<()> {
    survives_with(lab, with_linux(&super::pair_text(None)?))?;
    Ok(())
}

/// The same where what the guests send each other is not held.
pub(super) fn group_survives(lab: &Lab) -> Result<()> {
    let page = survives_with(lab, in_group(&with_linux(&super::pair_text(None)?)))?;
    for guest in ["linux", "rtos"] {
        let name = format!("understudy_mirror_inside_frames_total{{guest=\"{guest}\"}}");
        let (frames, of) = (page.of(&name)?, page.of(&epochs_of("linux"))?);
        ensure!(
            frames > of / 10.0,
            "{frames} frames of {guest}'s passed in {of} epochs"
        );
    }
    let [linux, rtos] = [epochs_of("linux"), epochs_of("rtos")].map(|name| page.of(&name));
    ensure!(linux? == rtos?, "they have no epochs in common: {page:?}");
    Ok(())
}

fn epochs_of(guest: &str) -> String {
    format!("understudy_mirror_epoch_ended{{guest=\"{guest}\"}}")
}

/// Returns what board a told of itself before it died.
fn survives_with(lab: &Lab, text: String) -> Result<Metrics> {
    let (mut pair, guests) = lab.pair(&[text.clone(), text])?;
    let capture = lab.folder("wires")?.join("lan.pcapng");
    pair.lan.capture(&capture)?;
    let client = Client::attach(&pair.lan, STATION)?;
    pair.client_is(client.end());
    for side in SIDES {
        pair.start(side)?;
    }
    protected(&mut pair)?;
    wait_for_gateway(lab, &client, LINUX, "/healthz")?;
    let write = "dd if=/dev/urandom of=/kept bs=1k count=900; sha256sum /kept > /kept.sum; dd if=/kept of=/dev/vda bs=1k; sync; echo writ''ten";
    console(&mut pair, Side::A, write, "written")?;
    let mut load = Load::start(&client, plan(FIRST))?;
    warm(lab, &load)?;
    // The gateway shows whom it was asked for.
    for subscriber in 0..8 {
        let path = format!("/?number={}", FIRST.1 + subscriber);
        client.http_text(LINUX, 80, &path, END)?;
    }
    let before = uptime(&mut pair, Side::A)?;

    let (fetched, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (published, page) = thread::scope(|scope| -> Result<(Meters, Metrics)> {
        let fetch = scope.spawn(|| {
            let mut sum = crc32fast::Hasher::new();
            let mut take = |piece: &[u8]| {
                sum.update(piece);
                fetched.fetch_add(piece.len() as u64, Ordering::Relaxed);
            };
            let path = format!("/blob/{BLOB}");
            client.http_get(LINUX, 80, &path, PATIENCE, &mut take)?;
            anyhow::Ok(format!("{:08x}\n", sum.finalize()))
        });
        let look = scope.spawn(|| {
            let (mut shown, mut looks) = (Meters::new(), 0_u32);
            while !over.load(Ordering::Relaxed) {
                let now = meters(&client)?;
                check_meters(&shown, &now)?;
                (shown, looks) = (now, looks + 1);
                thread::sleep(LOOK);
            }
            ensure!(looks > 2 && !shown.is_empty(), "{looks} looks, {shown:?}");
            Ok(shown)
        });
        while fetched.load(Ordering::Relaxed) < KILL_AT {
            if fetch.is_finished() || lab.left().is_zero() {
                over.store(true, Ordering::Relaxed);
                bail!("the board was to die while something is fetched");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let page = Metrics::read_from(&client, station(Side::A));
        let killed = pair
            .kill(Side::A)
            .and_then(|()| pair.until(Side::B, &Until::Is(Role::Solo, None), PATIENCE));
        let fetch = fetch.join();
        over.store(true, Ordering::Relaxed);
        let look = look.join();
        killed?;
        let (Ok(sum), Ok(shown)) = (fetch, look) else {
            bail!("a thread of the test's has panicked");
        };
        let sum = sum.context("a download across the board's death")?;
        let path = format!("/blob/{BLOB}.crc32");
        let (_, told) = client.http_text(LINUX, 80, &path, END)?;
        ensure!(sum == told, "the checksum is {sum} and not {told}");
        Ok((
            shown.context("the gateway across the board's death")?,
            page?,
        ))
    })?;

    load.halt(END)?;
    load.inspect(END)?;
    if let Err(faults) = load.ledger().judge() {
        let all: Vec<_> = faults.iter().take(5).map(ToString::to_string).collect();
        bail!("{} answers are wrong: {}", faults.len(), all.join("; "));
    }
    check_meters(&published, &meters(&client)?).context("behind the board's death")?;
    client.ping(RTOS, 56, END)?;
    check_blob(&client, LINUX, "1M").context("behind the board's death")?;
    let after = uptime(&mut pair, Side::B)?;
    ensure!(
        after >= before,
        "Linux's clock went back from {before} s to {after} s"
    );
    console(&mut pair, Side::B, "sha256sum -c /kept.sum", "/kept: OK")?;
    let disk = "dd if=/dev/vda bs=1k count=900 iflag=direct | cmp - /kept && echo sa''me";
    console(&mut pair, Side::B, disk, "same")?;
    let packets = read_capture(&crate::paths::read(&capture)?)?;
    for guest in guests {
        let boards = Spells::of(&packets, pair.lan_ends(), guest).boards();
        ensure!(
            boards == [Side::A, Side::B],
            "for the guest {guest:02x?} transmitted {boards:?}"
        );
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_stands_beside_the_legacy_system() {
        let text = with_linux(&super::super::pair_text(None).unwrap());
        let (board, _) = config::toml::parse(&text, "b", Some(Side::A)).unwrap();
        let names: Vec<_> = board
            .guests
            .iter()
            .map(|guest| guest.name.as_str())
            .collect();
        assert_eq!(names, ["rtos", "linux"]);
        let groups = |board: &config::Board| -> Vec<_> {
            let mirrors = board.guests.iter().filter_map(|guest| guest.mirror);
            mirrors.map(|mirror| mirror.group).collect()
        };
        assert_eq!(groups(&board), [0, 1]);
        let (board, _) = config::toml::parse(&in_group(&text), "b", Some(Side::A)).unwrap();
        assert_eq!(groups(&board), [0, 0]);
    }

    #[test]
    fn meters_may_only_grow() {
        let before = Meters::from([((1001, "pulses"), 5)]);
        let more = Meters::from([((1001, "pulses"), 6), ((1002, "calls"), 1)]);
        check_meters(&before, &more).unwrap();
        check_meters(&more, &before).unwrap_err();
        check_meters(&before, &Meters::new()).unwrap_err();
    }
}
