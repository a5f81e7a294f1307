//! Bochs: how it is configured and called, and what its log says about an end.

use super::{CardModel, Chipset, End, Pace, Setup, Watch, process};
use crate::paths;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// Instructions a second of board time, and so the rate of the board's time-stamp counter.
pub(crate) const IPS: u64 = 50_000_000;
/// The processor model unless another is named: the one that has all that the hypervisor can use.
const CPU_MODEL: &str = "corei7_skylake_x";
/// Network cards that Bochs has at most.
const CARDS_MAX: usize = 4;
/// The board's clock at power-on, in seconds of the Unix era: 9 September 2001, 01:46:40 UTC.
pub(crate) const TIME0: u64 = 1_000_000_000;

/// The configuration file.
pub(crate) fn configuration(setup: &Setup, folder: &Path, com1_port: u16) -> String {
    let clock = match setup.pace {
        Pace::Fast => "none",
        Pace::RealTime => "slowdown",
    };
    let slots: String = (1..=setup.cards.len())
        .map(|slot| format!(", slot{slot}=e1000"))
        .collect();
    let mut text = format!(
        "config_interface: textconfig\n\
         display_library: {display}\n\
         megs: {megs}\n\
         cpu: model={model}, count={cpus}, ips={IPS}, reset_on_triple_fault=0\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path=\"{iso}\", status=inserted\n\
         boot: cdrom\n\
         pci: enabled=1, chipset=i440fx{slots}\n\
         com1: enabled=1, mode=socket-client, dev=127.0.0.1:{com1_port}\n\
         log: \"{log}\"\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=report\n\
         debug: action=ignore\n\
         clock: sync={clock}, time0={TIME0}\n",
        display = if setup.debugger {
            "rfb, options=\"timeout=0\""
        } else {
            "term"
        },
        megs = setup.megabytes,
        model = setup.cpu_model.as_deref().unwrap_or(CPU_MODEL),
        cpus = setup.cpus,
        iso = setup.iso.display(),
        log = folder.join("bochs.log").display(),
    );
    if !setup.cards.is_empty() {
        text.push_str("plugin_ctrl: e1000=true\n");
    }
    for (number, card) in setup.cards.iter().enumerate() {
        let (address, port) = (card.address_text(), card.plug.port);
        text += &format!(
            "e1000: card={number}, enabled=1, mac={address}, ethmod=socket, ethdev={port}, script=none\n"
        );
    }
    if matches!(setup.watch, Watch::Traces(_) | Watch::Marks(_)) {
        text.push_str("magic_break: enabled=1\n");
    }
    text
}

/// The debugger's commands: run to the end, with stops on the way if asked.
pub(crate) fn debugger_script(watch: Watch) -> String {
    let mut text = match watch {
        Watch::Nothing => String::new(),
        Watch::Traces(count) => "c\ntrace on\nc\ntrace off\n".repeat(count as usize),
        Watch::Marks(count) => "c\n".repeat(count as usize),
        Watch::Address(address) => format!("pb {address:#x}\nc\nd 1\n"),
    };
    text.push_str("c\nq\n");
    text
}

/// The ticks of the debugger's stops in what it printed, without the one at power-on.
pub(crate) fn stops(output: &str) -> Vec<u64> {
    let stops = output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Next at t=")?.parse().ok());
    stops.filter(|tick| *tick > 0).collect()
}

/// Writes the configuration and returns the call.
///
/// # Errors
///
/// Where the setup has what Bochs lacks, or the folder cannot be written.
pub(crate) fn command(setup: &Setup, folder: &Path, com1_port: u16) -> Result<Command> {
    if setup.chipset == Some(Chipset::Q35) {
        bail!("Bochs has no Q35 chipset, only the older pc (--machine pc); QEMU has both");
    }
    if setup.cards.len() > CARDS_MAX
        || setup
            .cards
            .iter()
            .any(|card| card.model != CardModel::E1000)
    {
        bail!("Bochs has up to {CARDS_MAX} cards of the kind 82540EM and no others; QEMU has more");
    }
    let file = folder.join("bochsrc");
    paths::write(&file, configuration(setup, folder, com1_port))?;
    let mut command = process::command("bochs-bin");
    command.arg("-q").arg("-f").arg(file);
    if !setup.debugger {
        let script = folder.join("debugger-script");
        paths::write(&script, debugger_script(setup.watch))?;
        command.arg("-rc").arg(script);
    }
    // The text display asks the terminal database even where it writes into a file.
    command
        .env("TERM", "vt100")
        .env("LINES", "25")
        .env("COLUMNS", "80");
    Ok(command)
}

/// Reads from the log why Bochs ended.
pub(crate) fn end(log: &str) -> End {
    let last_panic = log
        .lines()
        .rev()
        .find(|line| line.get(11..12) == Some("p") && line.contains('['));
    match last_panic {
        Some(line) if line.contains("soft power off") || line.contains("Shutdown port") => {
            End::PowerOff
        }
        Some(line) => {
            let reason = line.split_once(']').map_or(line, |(_, reason)| reason);
            End::Fault(reason.trim().to_owned())
        }
        None => End::Quit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::NetworkCard;
    use crate::wire::Plug;
    use std::path::PathBuf;

    fn setup() -> Setup {
        Setup::new(PathBuf::from("/out/understudy.iso"), 2, 512)
    }

    #[test]
    fn the_configuration_carries_the_setup() {
        let text = configuration(&setup(), Path::new("/out/run"), 4711);
        for line in [
            "cpu: model=corei7_skylake_x, count=2, ips=50000000, reset_on_triple_fault=0",
            "ata0-master: type=cdrom, path=\"/out/understudy.iso\", status=inserted",
            "com1: enabled=1, mode=socket-client, dev=127.0.0.1:4711",
            "log: \"/out/run/bochs.log\"",
            "clock: sync=none, time0=1000000000",
            "display_library: term",
            "megs: 512",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("magic_break") && !text.contains("e1000"));
        let real = Setup {
            pace: Pace::RealTime,
            watch: Watch::Marks(2),
            cards: vec![NetworkCard {
                model: CardModel::E1000,
                address: [0x52, 0x54, 0, 0, 0, 10],
                plug: Plug {
                    end: 0,
                    port: 20_000,
                },
            }],
            ..setup()
        };
        let text = configuration(&real, Path::new("/out/run"), 1);
        assert!(text.contains("chipset=i440fx, slot1=e1000\n"), "{text}");
        assert!(
            text.contains("mac=52:54:00:00:00:0a, ethmod=socket, ethdev=20000,"),
            "{text}"
        );
        assert!(text.contains("sync=slowdown") && text.contains("magic_break: enabled=1"));
    }

    #[test]
    fn the_debugger_runs_on_or_stops_on_the_way() {
        for (watch, script) in [
            (Watch::Nothing, "c\nq\n"),
            (Watch::Traces(1), "c\ntrace on\nc\ntrace off\nc\nq\n"),
            (Watch::Marks(2), "c\nc\nc\nq\n"),
            (Watch::Address(0x100_0000), "pb 0x1000000\nc\nd 1\nc\nq\n"),
        ] {
            assert_eq!(debugger_script(watch), script);
        }
    }

    #[test]
    fn stops_are_read() {
        let output = "Next at t=0\n(0) [0x0000fffffff0] f000:fff0 (unk. ctxt): jmpf 0xf000:e05b\n\
                      (0) Breakpoint 1, 0x0000000001000000 in ?? ()\nNext at t=438626050\n\
                      (0) Magic breakpoint\nNext at t=438626060\n";
        assert_eq!(stops(output), [438_626_050, 438_626_060]);
    }

    #[test]
    fn the_log_tells_ends_apart() {
        let head = "00000000000i[      ] Bochs x86 Emulator 2.7\n";
        let off = format!("{head}00912345678p[ACPI  ] >>PANIC<< ACPI control: soft power off\n");
        assert_eq!(end(&off), End::PowerOff);
        let fault =
            format!("{head}00000012345p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception\n");
        assert_eq!(
            end(&fault),
            End::Fault(">>PANIC<< exception(): 3rd (13) exception".into())
        );
        assert_eq!(end(head), End::Quit);
    }
}
