//! A guest's machine: its memory, its processor, its devices. Owned by the processor that runs it.

mod exits;
mod memory_access;
mod platform;
mod statistics;
mod string_io;

use crate::cpuid::{Cpuid, Offer};
use crate::guest::{GuestHandle, GuestState};
use crate::host::BootModule;
use crate::loader::{Loaded, Module, linux, multiboot};
use crate::memory::{GuestMemory, PhysicalMemory};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use config::{Device, ImageFormat, OnCrash};
use core::fmt;
use devices::PcConfig;
use devices::acpi::{self, AcpiConfig};
use devices::lapic::LocalApicConfig;
use drivers::tsc;
use log::{error, info, warn};
use platform::Platform;
use statistics::Statistics;
use vmx::{Ept, MemoryType, Permissions, SecondaryControls, StartState, Vcpu, VmxCpu};

/// Why a guest could not be set up or started. The message names the cause.
#[derive(Debug)]
pub(crate) struct StartFailure(String);

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

/// What a machine that is not stopped is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Its memory is being zeroed, up to this address, before it is loaded.
    Scrubbing(u64),
    /// Its kernel is being copied.
    Loading,
    /// It runs, or could.
    Running,
    /// It halted and waits for an interrupt.
    Halted,
    /// It halted with interrupts off: nothing wakes it.
    Dead,
}

/// What a machine wants of its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Nothing before [`Machine::next_event`].
    Nothing,
    /// Another look at once: it is being made ready, step by step.
    Attention,
    /// To run.
    Run,
}

/// Why a machine gave its processor back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Yield {
    /// It waits for an interrupt.
    Halted,
    /// Its time is up, or the processor has something else to look at.
    Interrupted,
    /// It is no longer running.
    Stopped,
}

/// Facts of the board that every machine needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoardFacts {
    pub(crate) tsc_hz: u64,
    pub(crate) entry_tsc: u64,
    /// Unix time at TSC 0, if the board has a clock.
    pub(crate) wall_clock_at_zero: Option<i64>,
}

/// A guest that crashes or resets itself starts again at most once in this many seconds, so that one
/// that does so at once does not keep its processor busy with loading it.
const RESTART_INTERVAL_SECONDS: u64 = 5;

/// Bytes of memory zeroed or copied in one step toward a guest's start: some microseconds, in which
/// nobody else gets the processor.
const STEP: u64 = 32 << 10;

/// A guest's machine.
pub(crate) struct Machine {
    handle: &'static GuestHandle,
    config: config::Guest,
    modules: &'static [BootModule],
    board: BoardFacts,
    memory: GuestMemory,
    ept: Ept,
    /// Made at the first start.
    vcpu: Option<Vcpu>,
    vpid: u16,
    platform: Platform,
    cpuid: Box<Cpuid>,
    /// What RDTSC adds to guest time: not zero once the guest wrote its TSC.
    tsc_adjust: u64,
    activity: Activity,
    /// The kernel on its way into memory.
    loading: Option<Loaded<'static>>,
    /// The first entry since the start was not yet reported.
    fresh: bool,
    restart_at: Option<u64>,
    statistics: Statistics,
}

impl Machine {
    /// Takes memory for a guest and makes its machine, not yet started.
    pub(crate) fn new(
        config: config::Guest,
        handle: &'static GuestHandle,
        modules: &'static [BootModule],
        board: BoardFacts,
        vpid: u16,
        cpu: &VmxCpu,
        memory: &mut PhysicalMemory,
    ) -> Result<Self, StartFailure> {
        let host_physical = memory.take_for_guest(config.memory)?;
        let caps = cpu.capabilities();
        let mut ept = Ept::new(caps, memory)?;
        // SAFETY: the range was taken for this guest just now; nothing else uses it.
        unsafe {
            ept.map(
                0,
                host_physical,
                config.memory,
                Permissions::ALL,
                MemoryType::WriteBack,
                memory,
            )?;
        }
        let map = vmx::FrameSource::direct_map(memory);
        // SAFETY: as above, and free memory is mapped for good.
        let guest_memory = unsafe { GuestMemory::new(map, host_physical, config.memory) };
        let secondary = caps.secondary();
        let cpuid = Box::new(Cpuid::new(&Offer {
            tsc_hz: board.tsc_hz,
            xcr0: cpu.xcr0_supported(),
            rdtscp: secondary.contains(SecondaryControls::RDTSCP),
            invpcid: secondary.contains(SecondaryControls::INVPCID),
            apic: has_apics(&config),
        }));
        let platform = new_platform(&config, board, 0);
        Ok(Self {
            handle,
            config,
            modules,
            board,
            memory: guest_memory,
            ept,
            vcpu: None,
            vpid,
            platform,
            cpuid,
            tsc_adjust: 0,
            activity: Activity::Running,
            loading: None,
            fresh: false,
            restart_at: None,
            statistics: Statistics::default(),
        })
    }

    pub(crate) fn handle(&self) -> &'static GuestHandle {
        self.handle
    }

    pub(crate) fn priority(&self) -> u8 {
        self.config.priority
    }

    pub(crate) fn autostart(&self) -> bool {
        self.config.autostart
    }

    /// Starts the guest afresh. Its memory is zeroed first, step by step as it is polled.
    pub(crate) fn start(&mut self, cpu: &mut VmxCpu) {
        self.park(cpu);
        self.restart_at = None;
        self.activity = Activity::Scrubbing(0);
        self.handle.set_state(GuestState::Running);
    }

    /// Another step toward the start: zeroes or copies a piece, and starts once all is there.
    fn make_ready(
        &mut self,
        cpu: &mut VmxCpu,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<(), StartFailure> {
        if let Activity::Scrubbing(from) = self.activity {
            let end = (from + STEP).min(self.memory.size());
            self.memory.scrub(from..end);
            self.activity = Activity::Scrubbing(end);
            if end == self.memory.size() {
                self.loading = Some(self.load()?);
                self.activity = Activity::Loading;
            }
            return Ok(());
        }
        let Some(loading) = self.loading.as_mut() else {
            return Ok(());
        };
        let Some(start) = loading.step(&mut self.memory, STEP as usize)? else {
            return Ok(());
        };
        self.loading = None;
        self.begin(&start, cpu, frames)?;
        self.activity = Activity::Running;
        info!("{}: started", self.handle.name);
        Ok(())
    }

    /// Checks the kernel and its files and finds room for them.
    fn load(&mut self) -> Result<Loaded<'static>, StartFailure> {
        let image = self.module(self.config.image)?;
        let mut files = Vec::new();
        for module in &self.config.modules {
            files.push(Module {
                bytes: self.module(module.image)?,
                command_line: &module.command_line,
            });
        }
        let (command_line, memory) = (&self.config.command_line, &mut self.memory);
        Ok(match self.config.format {
            ImageFormat::Multiboot => multiboot::load(image, command_line, &files, memory)?,
            ImageFormat::Linux => {
                let rsdp = write_acpi_tables(&self.config, memory)?;
                linux::load(image, command_line, &files, Some(rsdp), memory)?
            }
        })
    }

    /// Resets the devices and the vCPU, and lets the guest's time begin.
    fn begin(
        &mut self,
        start: &StartState,
        cpu: &mut VmxCpu,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Result<(), StartFailure> {
        let base = tsc::read();
        self.platform = new_platform(&self.config, self.board, base);
        self.tsc_adjust = 0;
        self.fresh = true;
        self.statistics = Statistics::default();
        let offset = base.wrapping_neg();
        // SAFETY: the page tables are this machine's and live beside the vCPU.
        unsafe {
            match self.vcpu.as_mut() {
                Some(vcpu) => vcpu.reset(cpu, &self.ept, offset, start)?,
                None => {
                    let mut memory = frames.lock();
                    let new = Vcpu::new(cpu, &self.ept, self.vpid, offset, start, &mut *memory)?;
                    self.vcpu = Some(new);
                }
            }
        }
        Ok(())
    }

    fn module(&self, index: u16) -> Result<&'static [u8], StartFailure> {
        let name = alloc::format!("module:{index}");
        self.modules
            .iter()
            .find(|module| module.name == name)
            .map(|module| module.bytes)
            .ok_or_else(|| {
                StartFailure(alloc::format!("the boot loader brought no file \"{name}\""))
            })
    }

    /// Stops the guest; its memory stays as it is until the next start.
    pub(crate) fn stop(&mut self, cpu: &mut VmxCpu) {
        self.park(cpu);
        self.restart_at = None;
        if self.handle.state() == GuestState::Running {
            info!("{}: stopped", self.handle.name);
        }
        self.handle.set_state(GuestState::Stopped);
    }

    /// Takes the guest's state out of the processor.
    pub(crate) fn park(&mut self, cpu: &mut VmxCpu) {
        if let Some(vcpu) = self.vcpu.as_mut() {
            vcpu.park(cpu);
        }
    }

    /// Prints the guest's registers.
    pub(crate) fn dump(&mut self, cpu: &mut VmxCpu) {
        let name = &self.handle.name;
        let Some(vcpu) = self.vcpu.as_mut() else {
            info!("{name}: never started");
            return;
        };
        match vcpu.activate(cpu) {
            Ok(active) => {
                let dump = active.dump();
                info!(
                    "{name}: {} {}\n{}",
                    self.handle.state(),
                    match self.activity {
                        Activity::Scrubbing(_) | Activity::Loading => "(being made ready)",
                        Activity::Running => "",
                        Activity::Halted => "(halted)",
                        Activity::Dead => "(halted with interrupts off)",
                    },
                    dump.guest_registers()
                );
            }
            Err(error) => warn!("{name}: {error}"),
        }
        vcpu.park(cpu);
    }

    /// Prints what the guest's exits were.
    pub(crate) fn print_statistics(&self) {
        info!("{}: {}", self.handle.name, self.statistics);
        for (port, count) in self.platform.pc.unclaimed() {
            info!(
                "{}: port {port:#06x}: nobody there, {count} accesses",
                self.handle.name
            );
        }
    }

    /// When, in the board's TSC, this machine needs the processor although it is not running now.
    pub(crate) fn next_event(&self) -> Option<u64> {
        match (self.handle.state(), self.activity) {
            (GuestState::Running, Activity::Dead) => None,
            (GuestState::Running, _) => self.platform.next_deadline(),
            (GuestState::Restarting, _) => self.restart_at,
            _ => None,
        }
    }

    /// Brings the machine up to now; returns what it wants of the processor.
    pub(crate) fn poll(
        &mut self,
        now: u64,
        cpu: &mut VmxCpu,
        frames: &spin::Mutex<PhysicalMemory>,
    ) -> Want {
        match self.handle.state() {
            GuestState::Running => {}
            GuestState::Restarting if self.restart_at.is_some_and(|at| at <= now) => {
                info!("{}: restarting", self.handle.name);
                self.start(cpu);
            }
            _ => return Want::Nothing,
        }
        match self.activity {
            Activity::Scrubbing(_) | Activity::Loading => {
                if let Err(failure) = self.make_ready(cpu, frames) {
                    self.loading = None;
                    self.handle.set_state(GuestState::Crashed);
                    error!("{}: cannot start: {failure}", self.handle.name);
                }
                return Want::Attention;
            }
            Activity::Dead => return Want::Nothing,
            Activity::Running | Activity::Halted => {}
        }
        self.platform.expire(now);
        self.platform.feed_console(self.handle);
        if self.activity == Activity::Halted && !self.platform.event_pending() {
            return Want::Nothing;
        }
        self.activity = Activity::Running;
        Want::Run
    }

    fn power_off(&mut self, cpu: &mut VmxCpu) -> Yield {
        self.park(cpu);
        self.handle.set_state(GuestState::Off);
        info!("{}: powered off", self.handle.name);
        Yield::Stopped
    }

    fn reset(&mut self, cpu: &mut VmxCpu) -> Yield {
        info!("{}: reset by the guest", self.handle.name);
        self.start_again(cpu);
        Yield::Stopped
    }

    /// Starts the guest again: at once if it has run for a while, else later.
    fn start_again(&mut self, cpu: &mut VmxCpu) {
        let earliest = self
            .platform
            .base()
            .saturating_add(RESTART_INTERVAL_SECONDS * self.board.tsc_hz);
        if earliest <= tsc::read() {
            self.start(cpu);
        } else {
            self.park(cpu);
            self.restart_at = Some(earliest);
            self.handle.set_state(GuestState::Restarting);
        }
    }

    /// The end of a guest that cannot go on: its registers go to the log, and the board file says
    /// whether it is started again.
    fn crash(&mut self, cpu: &mut VmxCpu, cause: &dyn fmt::Display) -> Yield {
        let name = &self.handle.name;
        error!("{name}: crashed: {cause}");
        if let Some(vcpu) = self.vcpu.as_mut() {
            if let Ok(active) = vcpu.activate(cpu) {
                error!("{name}: registers\n{}", active.dump().guest_registers());
            }
            vcpu.park(cpu);
        }
        match self.config.on_crash {
            OnCrash::Stop => self.handle.set_state(GuestState::Crashed),
            OnCrash::Restart => self.start_again(cpu),
        }
        Yield::Stopped
    }
}

/// Whether a kernel of this format gets APICs; those of the old formats know none.
fn has_apics(config: &config::Guest) -> bool {
    config.format == ImageFormat::Linux
}

/// The devices of a machine whose time begins at this TSC of the board.
fn new_platform(config: &config::Guest, board: BoardFacts, base: u64) -> Platform {
    let apic = has_apics(config).then_some(LocalApicConfig {
        id: 0,
        bootstrap: true,
        physical_bits: 36,
        x2apic: true,
        tsc_deadline: true,
    });
    Platform::new(pc_config(config, board, base), apic, base)
}

/// Writes the guest's ACPI tables; returns where their root is.
fn write_acpi_tables(
    config: &config::Guest,
    memory: &mut GuestMemory,
) -> Result<u64, StartFailure> {
    const TABLES: u64 = 0xe_0000;
    let tables = acpi::build(
        &AcpiConfig {
            cpus: 1,
            io_apic_id: 0,
            com1: config.devices.contains(&Device::Com1),
            rtc: config.devices.contains(&Device::Rtc),
            pci: config.devices.contains(&Device::Pci),
        },
        TABLES,
    )?;
    memory.write(TABLES, &tables.bytes)?;
    Ok(tables.rsdp)
}

fn pc_config(config: &config::Guest, board: BoardFacts, now: u64) -> PcConfig {
    let elapsed = (now / board.tsc_hz.max(1)) as i64;
    let wall_clock = board
        .wall_clock_at_zero
        .map_or(0, |zero| zero.saturating_add(elapsed));
    PcConfig {
        tsc_hz: board.tsc_hz,
        memory_bytes: config.memory,
        wall_clock: u64::try_from(wall_clock).unwrap_or(0),
        com1: config.devices.contains(&Device::Com1),
        rtc: config.devices.contains(&Device::Rtc),
        pci: config.devices.contains(&Device::Pci),
        io_apic: has_apics(config),
    }
}
