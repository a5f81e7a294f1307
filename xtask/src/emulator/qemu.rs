//! QEMU: how it is called on hosts with nested virtualization and on any other, and what its exit says.

use super::choice::Virtualization;
use super::{CardModel, Chipset, End, Pace, Setup, process};
use std::fs::{self, OpenOptions};
use std::process::{Command, ExitStatus};

/// The processor that TCG shows unless another is named: one with AMD-V.
const TCG_MODEL: &str = "EPYC";
/// The chipset unless another is named: GRUB reads its CD drive twice as fast as that of `pc`, and the cards that signal by
/// messages (82574, 82576) are PCI Express devices.
const CHIPSET: Chipset = Chipset::Q35;

/// How board time passes at [`Pace::Fast`] in TCG: each instruction takes 8 ns, and time in which all processors idle is
/// skipped. All clocks of the board follow that, and one host thread runs its processors by turns.
///
/// Without it, TCG's boards live in the host's time, and a busy host is a board whose processors stall: natively, with
/// four other threads on the two processors of a host, the RTOS missed 204 of 2,000 periods of a millisecond and failed its
/// self-test; alone it was released up to 0.2 ms late. Counted, it is released 5.4 to 6.1 µs late whatever the host does,
/// and Debian's kernel comes to its first program in 3 s instead of 2. Longer instructions make fewer of them to a
/// second of the board's time, and so faster tests; these still leave 125,000 to a millisecond.
const COUNTED_TIME: &str = "shift=3,sleep=off";

/// How several processors of such a board come to take short turns. QEMU ends a turn at the board's next timer, which may be
/// milliseconds away, and an interrupt for another processor waits for that: beside a busy Linux, the RTOS lost a quarter
/// of its ticks of a millisecond. This filter of a network port that nothing is plugged into has a timer every 50 µs.
const TURNS: &str = "filter-buffer,id=filter,netdev=turns,interval=50";

/// What runs the processors of QEMU's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The host's own processors, which show a guest of theirs this.
    Kvm(Virtualization),
    /// QEMU's translator. It emulates AMD-V with nested paging, and no VT-x.
    Tcg,
}

impl Accelerator {
    /// The fastest that this host offers, and why it is that.
    pub(crate) fn of_this_host() -> (Self, &'static str) {
        let usable = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        let nested = |module: &str| {
            let file = format!("/sys/module/{module}/parameters/nested");
            fs::read_to_string(file).is_ok_and(|value| is_yes(&value))
        };
        match (usable, nested("kvm_intel"), nested("kvm_amd")) {
            (true, true, _) => (
                Self::Kvm(Virtualization::VtX),
                "this host offers nested VT-x",
            ),
            (true, _, true) => (
                Self::Kvm(Virtualization::AmdV),
                "this host offers nested AMD-V",
            ),
            (true, false, false) => (
                Self::Tcg,
                "KVM of this host offers no nested virtualization",
            ),
            (false, ..) => (Self::Tcg, "this host lets us use no KVM"),
        }
    }

    /// What a board sees.
    pub(crate) const fn virtualization(self) -> Virtualization {
        match self {
            Self::Kvm(virtualization) => virtualization,
            Self::Tcg => Virtualization::AmdV,
        }
    }

    /// The processor: its model, the support for hypervisors, which models leave out, and what it lacks.
    fn cpu(self, setup: &Setup) -> String {
        let (usual, more) = match self {
            Self::Kvm(Virtualization::VtX) => ("host", "+vmx"),
            Self::Kvm(Virtualization::AmdV) => ("host", "+svm"),
            Self::Tcg => (TCG_MODEL, "+svm,+npt"),
        };
        let mut cpu = format!("{},{more}", setup.cpu_model.as_deref().unwrap_or(usual));
        if let Some(feature) = setup.lacks {
            cpu += &format!(",-{feature}");
        }
        cpu
    }
}

/// Whether a module's parameter is on: a boolean is `Y`, an old integer one `1`.
fn is_yes(value: &str) -> bool {
    matches!(value.trim(), "Y" | "1")
}

/// The call.
pub(crate) fn command(accelerator: Accelerator, setup: &Setup, com1_port: u16) -> Command {
    let mut command = process::command("qemu-system-x86_64");
    command.args(arguments(accelerator, setup, com1_port));
    command.arg("-cdrom").arg(&setup.iso);
    command
}

fn arguments(accelerator: Accelerator, setup: &Setup, com1_port: u16) -> Vec<String> {
    let mut list = Vec::new();
    let mut option = |name: &str, value: String| list.extend([name.to_owned(), value]);
    let accel = match accelerator {
        Accelerator::Kvm(_) => "kvm",
        Accelerator::Tcg => "tcg",
    };
    option("-accel", accel.into());
    option("-machine", name_of(setup.chipset.unwrap_or(CHIPSET)).into());
    option("-cpu", accelerator.cpu(setup));
    option("-smp", setup.cpus.to_string());
    option("-m", setup.megabytes.to_string());
    option("-display", "none".into());
    option("-monitor", "none".into());
    option("-nic", "none".into());
    option("-serial", format!("tcp:127.0.0.1:{com1_port}"));
    let clock = match (accelerator, setup.pace) {
        (Accelerator::Tcg, Pace::Fast) => {
            option("-icount", COUNTED_TIME.into());
            if setup.cpus > 1 {
                option("-netdev", "hubport,id=turns,hubid=0".into());
                option("-object", TURNS.into());
            }
            "vm"
        }
        _ => "host",
    };
    // The date of Bochs's boards, so that tests can know it.
    option("-rtc", format!("base=2001-09-09T01:46:40,clock={clock}"));
    for (number, card) in setup.cards.iter().enumerate() {
        let (local, remote) = (card.plug.port, card.plug.remote());
        option(
            "-netdev",
            format!(
                "dgram,id=net{number},local.type=inet,local.host=127.0.0.1,local.port={local},\
                 remote.type=inet,remote.host=127.0.0.1,remote.port={remote}"
            ),
        );
        // Without the ROM of a boot from the network, which would only take time.
        let (model, rest) = match card.model {
            CardModel::E1000 => ("e1000", "romfile="),
            CardModel::E1000e => ("e1000e", "romfile="),
            CardModel::Igb => ("igb", "romfile="),
            // Doorbells in ports, all else in memory: so both are tried.
            CardModel::Virtio => (
                "virtio-net-pci",
                "disable-legacy=on,modern-pio-notify=on,romfile=",
            ),
            CardModel::Rtl8029 => ("ne2k_pci", "romfile="),
            CardModel::Ne2000 => ("ne2k_isa", "iobase=0x300,irq=5"),
        };
        let address = card.address_text();
        option(
            "-device",
            format!("{model},netdev=net{number},mac={address},{rest}"),
        );
    }
    list.push("-no-reboot".into());
    list
}

const fn name_of(chipset: Chipset) -> &'static str {
    match chipset {
        Chipset::Pc => "pc",
        Chipset::Q35 => "q35",
    }
}

/// Tells from its exit status why QEMU ended: a power-off and a reset both give 0.
pub(crate) fn end(status: ExitStatus, complaint: &str) -> End {
    if status.success() {
        End::PowerOff
    } else {
        End::Fault(format!("QEMU ended with {status}: {complaint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::NetworkCard;
    use crate::wire::Plug;
    use std::path::PathBuf;

    #[test]
    fn parameters_of_modules_are_read() {
        for (value, on) in [("Y\n", true), ("1\n", true), ("N\n", false), ("0\n", false)] {
            assert_eq!(is_yes(value), on, "{value:?}");
        }
    }

    #[test]
    fn the_call_carries_the_setup() {
        let mut setup = Setup::new(PathBuf::from("/out/a.iso"), 2, 512);
        let text = arguments(Accelerator::Tcg, &setup, 4711).join(" ");
        for part in [
            "-accel tcg ",
            "-cpu EPYC,+svm,+npt ",
            "-smp 2 ",
            "-m 512 ",
            "-serial tcp:127.0.0.1:4711 ",
            "-icount shift=3,sleep=off ",
            "-rtc base=2001-09-09T01:46:40,clock=vm ",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        setup.cards = vec![NetworkCard {
            model: CardModel::Igb,
            address: [0x52, 0x54, 0, 0, 0, 10],
            plug: Plug {
                end: 0,
                port: 20_000,
            },
        }];
        let text = arguments(Accelerator::Tcg, &setup, 4711).join(" ");
        for part in [
            "local.port=20000,",
            "remote.port=20001 ",
            "-device igb,netdev=net0,mac=52:54:00:00:00:0a,",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        setup.chipset = Some(Chipset::Pc);
        setup.cpu_model = Some("EPYC-Milan".into());
        let kvm = |kind| arguments(Accelerator::Kvm(kind), &setup, 1).join(" ");
        assert!(kvm(Virtualization::AmdV).contains("-accel kvm -machine pc -cpu EPYC-Milan,+svm "));
        setup.lacks = Some("aes");
        let text = arguments(Accelerator::Tcg, &setup, 1).join(" ");
        assert!(text.contains("-cpu EPYC-Milan,+svm,+npt,-aes "), "{text}");
        (setup.cpu_model, setup.lacks) = (None, None);
        let text = arguments(Accelerator::Kvm(Virtualization::VtX), &setup, 1).join(" ");
        assert!(text.contains("-cpu host,+vmx "), "{text}");
        assert!(!text.contains("icount"), "{text}");
        setup.pace = Pace::RealTime;
        let text = arguments(Accelerator::Tcg, &setup, 1).join(" ");
        assert!(
            !text.contains("icount") && text.contains(",clock=host "),
            "{text}"
        );
    }
}
