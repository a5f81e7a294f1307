//! A guest's machine: what its vCPUs share, and who of them may run.
//!
//! Each vCPU is owned by the processor that runs it ([`VirtualCpu`]). The devices are behind one lock, which a guest
//! with one vCPU holds for the whole of a run: its exits take no lock. What one vCPU means for another goes through
//! mailboxes. The owner of vCPU 0 also leads the guest's life ([`lead`]): it alone starts runs.

mod capture;
pub(crate) mod checkpoints;
mod crash;
mod digest;
mod disk;
mod exits;
mod figures;
mod frozen;
mod lead;
mod local;
mod mailbox;
mod memory_access;
mod origin;
mod pause;
mod platform;
pub(crate) mod pvclock;
mod requests;
mod statistics;
mod string_io;
mod task_switch;
mod trace;
mod tracking;
mod understudy;
mod virtual_cpu;

pub(crate) use capture::{Capture, CapturedState, Missed, PageId, Rendezvous, Wanted};
pub(crate) use digest::Digest;
pub(crate) use figures::Figures;
pub(crate) use statistics::Totals;
pub(crate) use understudy::Understudy;
pub(crate) use virtual_cpu::{VirtualCpu, Want, Yield};

use crate::cpu;
use crate::cpuid::{Cpuid, Offer};
use crate::guest::GuestHandle;
use crate::host::BootModule;
use crate::memory::{GuestMemory, PhysicalMemory};
use crate::network::GuestNetwork;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use capture::Captures;
use config::{Clock, Device, ImageFormat};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use devices::acpi::{self, AcpiConfig, Tables};
use devices::lapic::{Address, LocalApicConfig};
use devices::nic::{NicConfig, NicModel};
use devices::{Pc, PcConfig, Ticks, VirtioConfig, WatchdogConfig};
use disk::Disk;
use drivers::entropy::Generator;
use drivers::tsc;
use frozen::VirtualCpuStateV1;
use local::Local;
use log::warn;
use mailbox::Mailbox;
use origin::Origin;
use requests::Requests;
use spin::Mutex;
use statistics::Published;
use vcpu::{Facts, NestedTables, Permissions};

/// Why a guest could not be set up or started. The message names the cause.
#[derive(Debug)]
pub(crate) struct StartFailure(String);

impl StartFailure {
    /// For this reason.
    pub(crate) fn new(reason: &str) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: core::error::Error> From<E> for StartFailure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Facts of the board that every machine needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoardFacts {
    pub(crate) tsc_hz: u64,
    pub(crate) entry_tsc: u64,
    /// Unix time at TSC 0, if the board has a clock.
    pub(crate) wall_clock_at_zero: Option<i64>,
}

impl BoardFacts {
    /// Unix time when the board's TSC was this, or would have been; 0 if the board has no clock.
    fn wall_clock(&self, tsc: i64) -> u64 {
        let hz = i64::try_from(self.tsc_hz.max(1)).unwrap_or(i64::MAX);
        let elapsed = tsc.div_euclid(hz);
        let seconds = self
            .wall_clock_at_zero
            .map_or(0, |zero| zero.saturating_add(elapsed));
        u64::try_from(seconds).unwrap_or(0)
    }
}

/// Why a run of the guest is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    PowerOff,
    Reset,
    Crash,
    /// It did not feed its watchdog; the board file says this about it.
    Watchdog(config::Watchdog),
}

/// Who may run. A run begins with its number in `number`, and is over once that is zero; it is over for a vCPU, which
/// then touches nothing that is shared, once its owner has noticed and said so ([`VcpuPort::parked`]).
#[derive(Debug, Default)]
struct Run {
    number: AtomicU64,
    /// Whether the owners are to leave their vCPUs' states when it is over, for good or for a while.
    leaves_state: AtomicBool,
    /// Whether it is over only for a while: the vCPUs stay as they are.
    pauses: AtomicBool,
    /// The next one is being made ready, from nothing.
    starts: AtomicBool,
    /// Why it is over, if the guest ended it.
    ending: Mutex<Option<Ending>>,
    /// Where guest time is zero ([`Origin`]).
    origin: AtomicI64,
    /// Frequency in Hz that the guest's clocks take its TSC to have: that of the board where it was started.
    clock_hz: AtomicU64,
}

/// A vCPU as others see it.
#[derive(Debug)]
struct VcpuPort {
    /// The processor that owns it.
    cpu: usize,
    /// Its owner knows that the run is over.
    parked: AtomicBool,
    mailbox: Mailbox,
    published: Published,
    /// Its state, left by its owner for the lead at the end of a run or the other way round for the begin of one.
    saved: Mutex<Option<VirtualCpuStateV1>>,
}

/// The part of the devices' state that processors look at without the lock. It is brought up to date before the lock
/// is released.
#[derive(Debug)]
struct Glance {
    /// Guest time of the next timer; [`Ticks::NEVER`] if there is none.
    deadline: AtomicU64,
    /// The 8259A pair asks for vCPU 0.
    interrupt: AtomicBool,
}

/// A guest's machine.
pub(crate) struct Machine {
    handle: &'static GuestHandle,
    config: config::Guest,
    modules: &'static [BootModule],
    board: BoardFacts,
    memory: GuestMemory,
    tables: Mutex<NestedTables>,
    cpuid: Cpuid,
    /// The tables that tell of the APICs, where there are such.
    acpi: Option<Tables>,
    physical_bits: u8,
    devices: Mutex<Pc>,
    disks: Vec<Disk>,
    network: GuestNetwork,
    /// Where random numbers for the guest come from, if the board has such.
    entropy: Option<Generator>,
    glance: Glance,
    vcpus: Vec<VcpuPort>,
    run: Run,
    /// Grows when vCPUs must drop the translations that their processors cached, before they run on.
    translations: AtomicU64,
    captures: Captures,
    /// What the guest is to go on from.
    awakening: Mutex<Option<Awakening>>,
}

/// What a guest goes on from whose memory and disks are there.
#[derive(Debug)]
struct Awakening {
    /// The rest of its state.
    state: Vec<u8>,
    /// The guest's time in nanoseconds ...
    time: u64,
    /// ... when the board's TSC was this.
    tsc: u64,
}

impl Awakening {
    /// Where guest time is zero, for a guest whose clocks take the TSC to have this frequency.
    fn origin(&self, clock_hz: u64) -> Origin {
        let ticks = u128::from(self.time) * u128::from(clock_hz) / NANOSECONDS;
        Origin::of(Ticks(ticks as u64), self.tsc)
    }
}

/// Nanoseconds in a second.
const NANOSECONDS: u128 = 1_000_000_000;

impl Machine {
    /// Takes memory for a guest and makes its machine, not yet started.
    pub(crate) fn new(
        config: config::Guest,
        handle: &'static GuestHandle,
        modules: &'static [BootModule],
        board: BoardFacts,
        facts: &Facts,
        memory: &mut PhysicalMemory,
    ) -> Result<Self, StartFailure> {
        let (guest_memory, host_physical) = guest_memory(config.memory, memory)?;
        let mut tables = NestedTables::new(facts.tables, memory)?;
        // SAFETY: the range was taken for this guest just now; nothing else uses it.
        unsafe {
            tables.map(0, host_physical, config.memory, Permissions::ALL, memory)?;
        }
        let cpuid = Cpuid::new(&Offer {
            tsc_hz: board.tsc_hz,
            xcr0: facts.xcr0,
            rdtscp: facts.rdtscp,
            invpcid: facts.invpcid,
            apic: has_apics(&config),
            vcpus: config.cpus.len() as u32,
            paravirtual_clock: config.clock == Clock::Paravirtual,
        });
        let mut disks = Vec::new();
        for disk in &config.disks {
            let image = match disk.image {
                Some(image) => find_module(modules, image)?,
                None => &[],
            };
            disks.push(Disk::new(disk, image, memory)?);
        }
        let entropy = Generator::new();
        if entropy.is_none() && config.devices.contains(&Device::VirtioRng) {
            warn!(
                "{}: no virtio-rng: the processor has no RDRAND",
                handle.name
            );
        }
        let virtio = virtio_config(&config, &disks, entropy.is_some());
        let devices = Pc::new(pc_config(&config, board, virtio, 0), Ticks(0));
        let vcpus = config.cpus.iter().map(|cpu| VcpuPort {
            cpu: *cpu as usize,
            parked: AtomicBool::new(true),
            mailbox: Mailbox::default(),
            published: Published::default(),
            saved: Mutex::new(None),
        });
        Ok(Self {
            handle,
            vcpus: vcpus.collect(),
            modules,
            board,
            memory: guest_memory,
            tables: Mutex::new(tables),
            cpuid,
            acpi: has_apics(&config)
                .then(|| acpi_tables(&config))
                .transpose()?,
            physical_bits: facts.physical_bits,
            devices: Mutex::new(devices),
            disks,
            network: GuestNetwork::of(handle),
            entropy,
            glance: Glance {
                deadline: AtomicU64::new(Ticks::NEVER.0),
                interrupt: AtomicBool::new(false),
            },
            run: Run::default(),
            translations: AtomicU64::new(0),
            captures: Captures::default(),
            awakening: Mutex::new(None),
            config,
        })
    }

    /// The totals of each vCPU, as of up to a tenth of a second ago.
    pub(crate) fn totals(&self) -> impl Iterator<Item = Totals> + '_ {
        self.vcpus.iter().map(|vcpu| vcpu.published.get())
    }

    /// The guest's time in nanoseconds when its TSC, counted from its start, is `ticks`.
    pub(crate) fn nanoseconds(&self, ticks: Ticks) -> u64 {
        let time = u128::from(ticks.0) * NANOSECONDS / u128::from(self.clock_hz().max(1));
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    /// Adds what the guest sees of its processors to a digest.
    pub(crate) fn hash_processor(&self, digest: &mut impl core::hash::Hasher) {
        self.cpuid.hash_lasting(digest);
    }

    /// The guest's memory.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Whether there are local APICs and an I/O APIC.
    fn has_apics(&self) -> bool {
        has_apics(&self.config)
    }

    fn has_paravirtual_clock(&self) -> bool {
        self.config.clock == Clock::Paravirtual
    }

    /// Whether another vCPU of the guest takes turns with this one.
    fn shares_processor(&self, index: usize) -> bool {
        let cpu = self.vcpus[index].cpu;
        self.vcpus.iter().filter(|vcpu| vcpu.cpu == cpu).count() > 1
    }

    /// Whether nobody else can touch the devices while the one vCPU runs.
    fn is_uniprocessor(&self) -> bool {
        self.vcpus.len() == 1
    }

    /// The number of the run for a vCPU whose owner is about to do something in it; `None` if it is over, which the
    /// owner acknowledges by [`Machine::leave_run`] if the vCPU is not parked.
    fn enter_run(&self, index: usize) -> Option<u64> {
        let parked = &self.vcpus[index].parked;
        if !self.is_running() {
            return None;
        }
        // Set before the number is read, and read by the lead after the number is cleared: one of the two
        // processors sees the other's store.
        parked.store(false, Ordering::SeqCst);
        let number = self.run.number.load(Ordering::SeqCst);
        (number != 0).then_some(number)
    }

    /// A vCPU's owner knows that the run is over, and has left the vCPU's state if that is wanted.
    fn leave_run(&self, index: usize) {
        self.vcpus[index].parked.store(true, Ordering::SeqCst);
        if index != 0 {
            cpu::attend(self.vcpus[0].cpu);
        }
    }

    /// Ends the run to keep the guest's state: the owners of the vCPUs leave theirs.
    fn freeze_run(&self) {
        self.run.leaves_state.store(true, Ordering::Relaxed);
        self.end_run(None);
    }

    /// Makes every vCPU drop the translations that its processor cached, before it runs on. All are parked.
    fn forget_translations(&self) {
        self.translations.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the run: the owners of the vCPUs park them soon. The first cause counts.
    fn end_run(&self, ending: Option<Ending>) {
        if let Some(ending) = ending {
            self.run.ending.lock().get_or_insert(ending);
        }
        self.run.number.store(0, Ordering::SeqCst);
        for vcpu in &self.vcpus {
            cpu::attend(vcpu.cpu);
        }
    }

    /// Whether a vCPU's owner knows that the run is over.
    fn is_parked(&self, index: usize) -> bool {
        self.vcpus[index].parked.load(Ordering::Relaxed)
    }

    /// Whether a run is being made ready, from nothing.
    pub(crate) fn starts(&self) -> bool {
        self.run.starts.load(Ordering::Relaxed)
    }

    /// Whether every owner knows that the run is over.
    fn is_quiet(&self) -> bool {
        self.vcpus
            .iter()
            .all(|vcpu| vcpu.parked.load(Ordering::SeqCst))
    }

    /// Whether a run is under way.
    fn is_running(&self) -> bool {
        self.run.number.load(Ordering::SeqCst) != 0
    }

    /// The board's TSC at guest time zero.
    fn origin(&self) -> Origin {
        Origin(self.run.origin.load(Ordering::Relaxed))
    }

    /// The guest's time now.
    pub(crate) fn time(&self) -> Ticks {
        self.origin().time(tsc::read())
    }

    /// The frequency in Hz that the guest's clocks take its TSC to have.
    fn clock_hz(&self) -> u64 {
        self.run.clock_hz.load(Ordering::Relaxed)
    }

    /// Memory as large as the guest's, for a copy of it.
    fn memory_like_its(&self, frames: &Mutex<PhysicalMemory>) -> Result<GuestMemory, StartFailure> {
        guest_memory(self.memory.size(), &mut frames.lock()).map(|(memory, _)| memory)
    }

    /// Forgets states that vCPUs left at the end of a run.
    fn forget_saved(&self) {
        for vcpu in &self.vcpus {
            *vcpu.saved.lock() = None;
        }
    }

    /// Takes everything of the devices back from where others reach it, at the end of a run: nobody touches the guest's
    /// memory from here on.
    fn leave_network(&'static self, goes_on: bool) {
        self.devices.lock().rest(&mut Requests::new(self));
        self.network.close(goes_on);
    }

    /// The devices as a reset leaves them, at guest time zero, which is the board's TSC `start`.
    fn new_devices(&self, start: u64) -> Pc {
        let timed_out = self.devices.lock().watchdog_timed_out();
        let mut config = self.pc_config(start);
        config.watchdog = config.watchdog.map(|_| WatchdogConfig { timed_out });
        Pc::new(config, Ticks(0))
    }

    /// Begins run `number` with these devices. A guest that `moved` here asks
    /// its drivers to tell the network so.
    fn begin_run(&'static self, number: u64, devices: Pc, origin: Origin, moved: bool) {
        self.run.starts.store(false, Ordering::Relaxed);
        let clock_hz = devices.clock_hz();
        let mut shared = self.devices.lock();
        *shared = devices;
        self.network.open();
        let now = origin.time(tsc::read());
        shared.excuse_absence(now);
        if moved {
            for nic in (0..).take(self.config.nics.len()) {
                shared.announce(nic, now);
            }
        }
        shared.resume(now, &mut Requests::new(self));
        self.glance.update(&shared);
        drop(shared);
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            let mut saved = vcpu.saved.lock();
            if index != 0 && saved.is_none() {
                *saved = Some(VirtualCpuStateV1::waiting(self.local_apic(index)));
            }
            // A message may come before the owner has looked: it is for the local APIC as the owner will find it, and
            // joins what was left.
            let local = match &*saved {
                Some(saved) => Local::restore(self.local_apic(index), &saved.local),
                None => Ok(Local::new(self.local_apic(index))),
            };
            let address = local.map_or(Address::from_bits(0), |local| local.address());
            vcpu.mailbox.reset(address);
            if let Some(saved) = &*saved {
                vcpu.mailbox.restore(&saved.mailbox);
            }
        }
        *self.run.ending.lock() = None;
        self.run.pauses.store(false, Ordering::Relaxed);
        self.run.leaves_state.store(false, Ordering::Relaxed);
        self.run.origin.store(origin.0, Ordering::Relaxed);
        self.run.clock_hz.store(clock_hz, Ordering::Relaxed);
        self.run.number.store(number, Ordering::SeqCst);
        for vcpu in &self.vcpus[1..] {
            cpu::attend(vcpu.cpu);
        }
    }

    /// The file that the boot loader brought under this number.
    fn module(&self, index: u16) -> Result<&'static [u8], StartFailure> {
        find_module(self.modules, index)
    }

    /// What the devices are, when the board's TSC is `now`; a state of theirs brings its own time.
    fn pc_config(&self, now: u64) -> PcConfig {
        let virtio = virtio_config(&self.config, &self.disks, self.entropy.is_some());
        pc_config(&self.config, self.board, virtio, now)
    }

    /// The local APIC of a vCPU, where the machine has such.
    fn local_apic(&self, index: usize) -> Option<LocalApicConfig> {
        has_apics(&self.config).then_some(LocalApicConfig {
            id: index as u32,
            bootstrap: index == 0,
            physical_bits: self.physical_bits,
            x2apic: true,
            tsc_deadline: true,
        })
    }
}

/// Takes memory for a guest; returns its physical address, too.
fn guest_memory(
    size: u64,
    memory: &mut PhysicalMemory,
) -> Result<(GuestMemory, u64), StartFailure> {
    let host_physical = memory.take_for_guest(size)?;
    let map = vcpu::FrameSource::direct_map(memory);
    // SAFETY: the range was taken just now, so nobody else uses it, and free memory is mapped for good.
    let guest_memory = unsafe { GuestMemory::new(map, host_physical, size) };
    Ok((guest_memory, host_physical))
}

/// Where a guest's ACPI tables are.
const ACPI_TABLES: u64 = 0xe_0000;

/// The guest's ACPI tables. Composing them takes long for a processor that a guest with deadlines shares, so it is done
/// before any guest runs.
fn acpi_tables(config: &config::Guest) -> Result<Tables, StartFailure> {
    let has = |device| config.devices.contains(&device);
    Ok(acpi::build(
        &AcpiConfig {
            cpus: config.cpus.len() as u32,
            io_apic_id: 0,
            com1: has(Device::Com1),
            rtc: has(Device::Rtc),
            pci: has(Device::Pci),
        },
        ACPI_TABLES,
    )?)
}

/// Whether a guest gets APICs; kernels of the old formats know none, unless the board file says so.
fn has_apics(config: &config::Guest) -> bool {
    config.format == ImageFormat::Linux || config.devices.contains(&Device::Apic)
}

/// The file that the boot loader brought under this number.
fn find_module(modules: &'static [BootModule], index: u16) -> Result<&'static [u8], StartFailure> {
    let name = alloc::format!("module:{index}");
    modules
        .iter()
        .find(|module| module.name == name)
        .map(|module| module.bytes)
        .ok_or_else(|| StartFailure(alloc::format!("the boot loader brought no file \"{name}\"")))
}

fn virtio_config(config: &config::Guest, disks: &[Disk], entropy: bool) -> VirtioConfig {
    VirtioConfig {
        disks: disks.iter().map(Disk::config).collect(),
        console: config.devices.contains(&Device::VirtioConsole),
        entropy: entropy && config.devices.contains(&Device::VirtioRng),
    }
}

fn pc_config(
    config: &config::Guest,
    board: BoardFacts,
    virtio: VirtioConfig,
    now: u64,
) -> PcConfig {
    PcConfig {
        tsc_hz: board.tsc_hz,
        memory_bytes: config.memory,
        wall_clock: board.wall_clock(now.cast_signed()),
        com1: config.devices.contains(&Device::Com1),
        rtc: config.devices.contains(&Device::Rtc),
        pci: config.devices.contains(&Device::Pci),
        io_apic: has_apics(config),
        virtio,
        nics: config.nics.iter().map(nic_config).collect(),
        watchdog: config.watchdog.map(|_| WatchdogConfig::default()),
    }
}

fn nic_config(nic: &config::GuestNic) -> NicConfig {
    NicConfig {
        model: match nic.model {
            config::NicModel::Virtio => NicModel::Virtio { pairs: nic.queues },
            config::NicModel::Rtl8029 => NicModel::Rtl8029,
            config::NicModel::Ne2000 { port, irq } => NicModel::Ne2000 { port, irq },
        },
        mac: nic.mac,
        mtu: nic.mtu,
    }
}
