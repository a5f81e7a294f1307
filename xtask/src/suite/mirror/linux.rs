//! Linux and the legacy system, both mirrored: connections, the disk and the clock of an unmodified Linux survive its board, and what
//! it has shown to the world of the legacy system's calls is so on the board that survives.

use super::{END, FIRST, PATIENCE, RTOS, STATION, pair_text, plan, protected, station, warm};
use crate::client::Client;
use crate::client::ledger::Load;
use crate::cpio::Archive;
use crate::suite::gateway::check_blob;
use crate::suite::lab::Lab;
use crate::suite::lan::wait_for_gateway;
use crate::suite::management::Metrics;
use crate::twin::{Pair, Role, SIDES, Until};
use crate::wire::{Spells, read_capture};
use crate::{packages, paths};
use anyhow::{Context, Result, bail, ensure};
use mirror::Side;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
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
/// Its first file system, to which another one can be added.
const INITRAMFS: &str = r#"{ image = "@initramfs" }"#;
/// Makes a file system on its disk, and something to be kept there.
const MAKE: &str = "mke2fs /dev/vda >/tmp/log && mkdir /disk && mount -t ext2 /dev/vda /disk && \
    dd if=/dev/urandom of=/disk/kept bs=1k count=900 && sha256sum /disk/kept >/kept.sum && sync && echo writ''ten";
/// Makes, writes and removes files and folders there from then on.
const WRITE: &str = "while [ ! -e /stop ]; do n=$((n + 1)); d=/disk/$((n % 5)); mkdir -p $d; \
    dd if=/dev/urandom of=$d/$((n % 7)) bs=1k count=$((n * 37 % 300)) conv=fsync 2>/tmp/log; rm -rf /disk/$(((n + 2) % 5)); \
    sleep 0.2; done & echo bu''sy";
/// Ends that, and sees whether the disk is a sound file system with what was to be kept, by what it says and not by what is remembered of it.
const CHECK: &str = "touch /stop; wait; umount /disk && e2fsck -fn /dev/vda && mount -t ext2 /dev/vda /disk && \
    sha256sum -c /kept.sum && echo so''und";
/// How much is fetched while the board dies, and after how many bytes it does.
const BLOB: &str = "16M";
const DIE_AT: u64 = 3 << 20;
/// So many frames go each way between the guests at least: the gateway asks the exchange with each page that it shows.
const INSIDE_MIN: f64 = 50.0;
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

/// An archive that Linux unpacks over its first file system: with the checker of file systems, which BusyBox lacks.
fn checker(lab: &Lab) -> Result<PathBuf> {
    let tree = packages::unpacked("e2fsck-static", "amd64", lab.may_install)?;
    let mut archive = Archive::default();
    archive.file(
        "bin/e2fsck",
        &paths::read(&tree.join("sbin/e2fsck.static"))?,
    )?;
    let file = lab.folder("checker")?.join("e2fsck.cpio");
    paths::write(&file, archive.finish())?;
    Ok(file)
}

/// How a board dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its plug is pulled.
    Plug,
    /// It breaks at a step of the mirror's work.
    Step(&'static str),
}

/// The steps of a board that serves; the last one is of a switchover.
const STEPS: [Death; 7] = [
    Death::Step("freeze"),
    Death::Step("seal"),
    Death::Step("page"),
    Death::Step("state"),
    Death::Step("acknowledge"),
    Death::Step("release"),
    Death::Step(HAND_OVER),
];
const HAND_OVER: &str = "hand-over";

impl Death {
    fn befalls(self, pair: &mut Pair, side: Side) -> Result<()> {
        match self {
            Self::Plug => pair.kill(side),
            Self::Step(step) => {
                pair.shell(side, &format!("mirror die {step}"))?;
                if step == HAND_OVER {
                    pair.shell(side, "mirror switchover")?;
                }
                Ok(())
            }
        }
    }
}

/// What a board's death does to what the world has from it.
pub(super) fn survives(lab: &Lab) -> Result<()> {
    dies(lab, &with_linux(&pair_text(None)?), &[Death::Plug]).map(drop)
}

/// The same where what the guests send each other is not held.
pub(super) fn group_survives(lab: &Lab) -> Result<()> {
    let text = in_group(&with_linux(&pair_text(None)?));
    let page = dies(lab, &text, &[Death::Plug])?;
    for guest in ["linux", "rtos"] {
        let name = format!("understudy_mirror_inside_frames_total{{guest=\"{guest}\"}}");
        let frames = page.of(&name)?;
        ensure!(frames > INSIDE_MIN, "{frames} frames of {guest}'s passed");
    }
    let [linux, rtos] = [epochs_of("linux"), epochs_of("rtos")].map(|name| page.of(&name));
    ensure!(linux? == rtos?, "they have no epochs in common: {page:?}");
    Ok(())
}

fn epochs_of(guest: &str) -> String {
    format!("understudy_mirror_epoch_ended{{guest=\"{guest}\"}}")
}

/// The same at each step of the mirror's work, board by board in turn.
pub(super) fn survives_each_step(lab: &Lab) -> Result<()> {
    dies(lab, &with_linux(&pair_text(None)?), &STEPS).map(drop)
}

/// Returns what the last board that died told of itself before.
fn dies(lab: &Lab, text: &str, deaths: &[Death]) -> Result<Metrics> {
    let with_checker = format!("{INITRAMFS}, {{ image = \"{}\" }}", checker(lab)?.display());
    let text = text.replacen(INITRAMFS, &with_checker, 1);
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
    console(&mut pair, Side::A, MAKE, "written")?;
    console(&mut pair, Side::A, WRITE, "busy")?;
    let mut load = Load::start(&client, plan(FIRST))?;
    warm(lab, &load)?;
    // The gateway shows whom it was asked for.
    for subscriber in 0..8 {
        let path = format!("/?number={}", FIRST.1 + subscriber);
        client.http_text(LINUX, 80, &path, END)?;
    }
    let (mut serving, mut in_turn) = (Side::A, vec![Side::A]);
    let (mut published, mut told) = (Meters::new(), None);
    for (round, death) in deaths.iter().enumerate() {
        if round > 0 {
            returns(&mut pair, serving)?;
        }
        let before = uptime(&mut pair, serving)?;
        let (shown, page) = within_a_download(lab, &mut pair, &client, (serving, *death))
            .with_context(|| format!("board {serving} dies: {death:?}"))?;
        check_meters(&published, &shown)?;
        (published, told, serving) = (shown, Some(page), serving.peer());
        in_turn.push(serving);
        let after = uptime(&mut pair, serving)?;
        ensure!(
            after >= before,
            "Linux's clock went back from {before} s to {after} s"
        );
    }

    load.halt(END)?;
    load.inspect(END)?;
    if let Err(faults) = load.ledger().judge() {
        let all: Vec<_> = faults.iter().take(5).map(ToString::to_string).collect();
        bail!("{} answers are wrong: {}", faults.len(), all.join("; "));
    }
    check_meters(&published, &meters(&client)?).context("behind the board's death")?;
    client.ping(RTOS, 56, END)?;
    check_blob(&client, LINUX, "1M").context("behind the board's death")?;
    console(&mut pair, serving, CHECK, "sound")?;
    let packets = read_capture(&paths::read(&capture)?)?;
    for guest in guests {
        let boards = Spells::of(&packets, pair.lan_ends(), guest).boards();
        ensure!(
            boards == in_turn,
            "for the guest {guest:02x?} transmitted {boards:?}, not {in_turn:?}"
        );
    }
    told.context("no board died")
}

/// The board that died is on again, and keeps an understudy.
fn returns(pair: &mut Pair, serving: Side) -> Result<()> {
    pair.ended()?;
    let peer = serving.peer();
    // A board that has panicked stands still.
    if pair.runs(peer) {
        pair.kill(peer)?;
    }
    pair.start(peer)?;
    let primary = Until::Is(Role::Primary, Some(true));
    pair.until(serving, &primary, PATIENCE)?;
    pair.until(peer, &Until::Is(Role::Backup, None), PATIENCE)
}

/// Lets the board that serves die while something is fetched from Linux and its meters are looked at. Returns what these showed last, and what the
/// board told of itself before it died.
fn within_a_download(
    lab: &Lab,
    pair: &mut Pair,
    client: &Client,
    (serving, death): (Side, Death),
) -> Result<(Meters, Metrics)> {
    let (fetched, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
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
                let now = meters(client)?;
                check_meters(&shown, &now)?;
                (shown, looks) = (now, looks + 1);
                thread::sleep(LOOK);
            }
            ensure!(looks > 2 && !shown.is_empty(), "{looks} looks, {shown:?}");
            Ok(shown)
        });
        while fetched.load(Ordering::Relaxed) < DIE_AT {
            if fetch.is_finished() || lab.left().is_zero() {
                over.store(true, Ordering::Relaxed);
                bail!("the board was to die while something is fetched");
            }
            thread::sleep(Duration::from_millis(10));
        }
        let page = Metrics::read_from(client, station(serving));
        let solo = Until::Is(Role::Solo, None);
        let died = death
            .befalls(pair, serving)
            .and_then(|()| pair.until(serving.peer(), &solo, PATIENCE));
        let fetch = fetch.join();
        over.store(true, Ordering::Relaxed);
        let look = look.join();
        died?;
        let (Ok(sum), Ok(shown)) = (fetch, look) else {
            bail!("a thread of the test's has panicked");
        };
        let sum = sum.context("a download across the board's death")?;
        let path = format!("/blob/{BLOB}.crc32");
        let (_, told) = client.http_text(LINUX, 80, &path, END)?;
        ensure!(sum == told, "the checksum is {sum} and not {told}");
        let shown = shown.context("the gateway across the board's death")?;
        Ok((shown, page?))
    })
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
        assert!(board.guests.iter().all(|guest| guest.mirror.is_some()));
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
