//! One processor: which machine runs on it, when, and what else it attends to.

use crate::console::{self, Focus, Typed};
use crate::guest::{GuestHandle, GuestState};
use crate::machine::checkpoints;
use crate::machine::{BoardFacts, Machine, VirtualCpu, Want, Yield};
use crate::memory::PhysicalMemory;
use crate::network::{self, Network, network};
use crate::timer::Timer;
use crate::{guest, shell};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering, fence};
use drivers::local_apic::{Ipi, LocalApic};
use drivers::tsc;
use log::{error, info, warn};
use spin::{Mutex, Once};
use svm::SvmCpu;
use vcpu::{DeadlineTimer, HostState, Shell};
use vmx::VmxCpu;

/// Vectors of the host's own interrupts.
pub mod vector {
    /// The local APIC's timer: wakes an idle processor.
    pub const TIMER: u8 = 0xe0;
    /// Another processor wants attention.
    pub const ATTENTION: u8 = 0xe1;
    /// The serial line.
    pub const SERIAL: u8 = 0xe2;
    /// A network card.
    pub const NETWORK: u8 = 0xe3;
    /// Spurious interrupts of the local APIC.
    pub const SPURIOUS: u8 = 0xff;
}

/// The longest a guest runs without the host looking up, in milliseconds. Interrupts end a run at
/// once; this bounds the wait where one is held back, as some emulators do while the guest has
/// interrupts off.
const SLICE_MILLISECONDS: u64 = 10;
/// TSC ticks that guests get at least between two turns of the network.
pub(crate) const PROGRESS: u64 = 4_000;
/// The longest a vCPU runs where another of its guest waits for the same processor.
const TURN_MILLISECONDS: u64 = 1;

/// How long before an event an idle processor is woken for it: about twice as long as it takes to have a vCPU ready.
const WAKE_LEAD_MICROSECONDS: u64 = 20;

/// More urgent than any vCPU.
const BUSY: u16 = u16::MAX;

/// What all processors share.
pub(crate) struct Shared {
    pub(crate) facts: BoardFacts,
    pub(crate) memory: Mutex<PhysicalMemory>,
    pub(crate) local_apic: LocalApic,
    /// APIC IDs by processor number.
    pub(crate) cpus: Vec<u32>,
    /// Set when a processor has mail; it clears the flag as it looks.
    attention: Vec<AtomicBool>,
    /// What runs on each processor: a vCPU of this priority, plus one; 0 for none; or [`BUSY`].
    running: Vec<AtomicU16>,
    /// What the first processor's TSC was moved by, where it tells.
    tsc_adjustment: Option<u64>,
    pub(crate) power: crate::power::Power,
}

impl Shared {
    /// How many TSC ticks before an event an idle processor is woken for it.
    fn wake_lead(&self) -> u64 {
        self.facts.tsc_hz * WAKE_LEAD_MICROSECONDS / 1_000_000
    }
}

static SHARED: Once<Shared> = Once::new();

/// NMIs that came from outside, by whichever processor took them.
static NMIS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn share(
    facts: BoardFacts,
    memory: PhysicalMemory,
    local_apic: LocalApic,
    cpus: Vec<u32>,
    power: crate::power::Power,
) -> &'static Shared {
    SHARED.call_once(|| Shared {
        facts,
        memory: Mutex::new(memory),
        local_apic,
        attention: cpus.iter().map(|_| AtomicBool::new(false)).collect(),
        tsc_adjustment: tsc::adjustment(),
        running: cpus.iter().map(|_| AtomicU16::new(0)).collect(),
        cpus,
        power,
    })
}

pub(crate) fn shared() -> Option<&'static Shared> {
    SHARED.get()
}

/// Makes a processor look at its mail soon.
pub(crate) fn attend(cpu: usize) {
    let Some(shared) = SHARED.get() else { return };
    let (Some(flag), Some(apic_id)) = (shared.attention.get(cpu), shared.cpus.get(cpu)) else {
        return;
    };
    // One interrupt is enough until the processor has looked.
    if !flag.swap(true, Ordering::AcqRel) {
        shared
            .local_apic
            .send(*apic_id, Ipi::Fixed(vector::ATTENTION));
    }
}

/// Makes a processor look soon at a vCPU of this priority, for which something was left. While one of a higher priority
/// runs there it is left alone, since it looks at all of them when that one is done: no guest's messages to its own
/// vCPUs slow down a more urgent guest.
pub(crate) fn attend_vcpu(cpu: usize, priority: u8) {
    let Some(running) = SHARED.get().and_then(|shared| shared.running.get(cpu)) else {
        return;
    };
    // What was left is seen by the owner, which says that nothing runs before it looks; or this sees that.
    fence(Ordering::SeqCst);
    if running.load(Ordering::Relaxed) <= u16::from(priority) + 1 {
        attend(cpu);
    }
}

/// Runs what a processor does before it looks at its vCPUs: for those nobody needs to make it look meanwhile.
pub(crate) fn before_look(cpu: usize, work: impl FnOnce()) {
    let running = SHARED.get().and_then(|shared| shared.running.get(cpu));
    if let Some(running) = running {
        running.store(BUSY, Ordering::Relaxed);
    }
    work();
    if let Some(running) = running {
        running.store(0, Ordering::Relaxed);
        // See `attend_vcpu`.
        fence(Ordering::SeqCst);
    }
}

/// Handles an interrupt of the host, acknowledged by the processor.
pub fn host_interrupt(vector: u8) {
    let Some(shared) = SHARED.get() else { return };
    match vector {
        vector::SPURIOUS => return,
        vector::SERIAL => console::service(typed),
        vector::NETWORK => {
            if let Some(network) = network() {
                network.interrupt();
            }
        }
        // These have done their work by coming.
        vector::TIMER | vector::ATTENTION => {}
        other => warn!("unexpected interrupt, vector {other:#x}"),
    }
    shared.local_apic.end_of_interrupt();
}

/// Handles an NMI.
pub fn host_nmi() {
    NMIS.fetch_add(1, Ordering::Relaxed);
}

/// NMIs so far.
pub(crate) fn nmis() -> u64 {
    NMIS.load(Ordering::Relaxed)
}

/// A machine check: the hardware is broken, and going on could spread wrong data.
pub(crate) fn machine_check(when: &str) -> ! {
    panic!("machine check {when}")
}

fn typed(what: Typed) {
    match what {
        Typed::Nothing => {}
        Typed::Shell(byte) => shell::input(byte),
        Typed::Guest(index, byte) => {
            if let Some(guest) = guest::all().get(index) {
                guest.type_byte(byte);
            }
        }
        Typed::Switched(Focus::Shell) => shell::prompt(),
        Typed::Switched(Focus::Guest(index)) => {
            if let Some(guest) = guest::all().get(index) {
                console::write(format_args!("\n[{}: {}]\n", guest.name, guest.state()));
            }
        }
    }
}

/// A processor and the vCPUs bound to it.
struct Cpu<S: Shell> {
    number: usize,
    shared: &'static Shared,
    shell: S,
    timer: &'static Timer,
    /// Highest priority first. Those of one priority are of one guest, and take turns: the next one is in front.
    vcpus: Vec<VirtualCpu<S::Vcpu>>,
    /// The TSC since which the processor has worked for the vCPUs without having booked that.
    busy_since: u64,
    ticks_per_millisecond: u64,
}

/// Runs processor `number` for good, by the virtualization extension that it has.
///
/// # Safety
///
/// Once per processor, with the host context as [`Shell::start`] demands it, interrupts off.
pub(crate) unsafe fn run(
    number: usize,
    shared: &'static Shared,
    host: HostState,
    guests: &[config::Guest],
    modules: &'static [crate::host::BootModule],
) -> ! {
    if let (Some(first), Some(own)) = (shared.tsc_adjustment, tsc::adjustment())
        && first != own
    {
        // The vCPUs of a guest see one time, whichever processor they run on.
        warn!("cpu {number}: its TSC was moved; setting it like the first processor's");
        // SAFETY: the register exists, and this processor has not used its counter yet.
        unsafe { tsc::set_adjustment(first) };
    }
    shared.local_apic.enable(vector::SPURIOUS);
    let timer = Timer::new(shared.local_apic, shared.facts.tsc_hz);
    let base = Base {
        number,
        shared,
        timer: Box::leak(Box::new(timer)),
    };
    // SAFETY: passed on to the caller.
    unsafe {
        if VmxCpu::is_reported() {
            base.run_by::<VmxCpu>(host, guests, modules)
        } else if SvmCpu::is_reported() {
            base.run_by::<SvmCpu>(host, guests, modules)
        }
    }
    no_guests(
        number,
        shared,
        base.timer,
        &"this processor has neither Intel VT-x nor AMD-V",
    )
}

/// A processor before it is known how it runs guests.
struct Base {
    number: usize,
    shared: &'static Shared,
    timer: &'static Timer,
}

impl Base {
    /// Makes the vCPUs bound to the processor and schedules them.
    ///
    /// # Safety
    ///
    /// As [`run`].
    unsafe fn run_by<S: Shell>(
        self,
        host: HostState,
        guests: &[config::Guest],
        modules: &'static [crate::host::BootModule],
    ) -> ! {
        let Self {
            number,
            shared,
            timer,
        } = self;
        // SAFETY: passed on to the caller.
        let started = unsafe { S::start(host, timer, &mut *shared.memory.lock()) };
        let shell = match started {
            Ok(shell) => shell,
            Err(reason) => no_guests(number, shared, timer, &reason),
        };
        if number == 0 {
            info!(
                "{}: {}; microcode {:#x}",
                S::NAME,
                shell.extras(),
                shell.microcode_revision()
            );
        }
        let mut cpu = Cpu {
            number,
            shared,
            shell,
            timer,
            vcpus: Vec::new(),
            busy_since: tsc::read(),
            ticks_per_millisecond: shared.facts.tsc_hz / 1000,
        };
        cpu.make_vcpus(guests, modules);
        cpu.schedule()
    }
}

/// A processor that cannot run guests, for this reason: those that are bound to it cannot run at all.
fn no_guests(
    number: usize,
    shared: &'static Shared,
    timer: &'static Timer,
    reason: &dyn fmt::Display,
) -> ! {
    error!("cpu {number}: cannot run guests: {reason}");
    for guest in guest::all() {
        if guest.cpus.first() == Some(&number) {
            guest.machine.call_once(|| None);
        }
        if guest.cpus.contains(&number) {
            guest.set_state(GuestState::Crashed);
        }
    }
    let tended = tended_by(number);
    loop {
        take_interrupts();
        shared.attention[number].store(false, Ordering::Release);
        let until = tended.map_or(u64::MAX, |network| {
            network.tend(tsc::read(), core::iter::empty());
            network.next_look()
        });
        shared.power.off_if_idle();
        idle(number, shared, timer, tsc::read(), until);
    }
}

/// The network, if this processor tends it.
fn tended_by(number: usize) -> Option<&'static Network> {
    network().filter(|_| number == network::TENDER)
}

/// Lets pending interrupts of the host in.
pub(crate) fn take_interrupts() {
    x86_64::instructions::interrupts::enable();
    // STI takes effect behind the next instruction.
    x86_64::instructions::nop();
    x86_64::instructions::interrupts::disable();
}

/// Halts until an interrupt, at the latest until the TSC is `until`. The timer wakes the processor somewhat earlier, so that
/// the way out of the halt is not added to how late the event is seen. The caller's `now` is what it has decided by.
fn idle(number: usize, shared: &Shared, timer: &Timer, now: u64, until: u64) {
    let lead = shared.wake_lead();
    if until.saturating_sub(now) <= lead {
        while tsc::read() < until {
            core::hint::spin_loop();
        }
        return;
    }
    if until != u64::MAX {
        timer.arm(until - lead);
    }
    if !shared.attention[number].load(Ordering::Acquire) {
        x86_64::instructions::interrupts::enable_and_hlt();
        x86_64::instructions::interrupts::disable();
    }
    if until != u64::MAX {
        timer.disarm();
    }
}

impl<S: Shell> Cpu<S> {
    fn make_vcpus(
        &mut self,
        guests: &[config::Guest],
        modules: &'static [crate::host::BootModule],
    ) {
        for (config, handle) in guests.iter().zip(guest::all()) {
            if !handle.cpus.contains(&self.number) {
                continue;
            }
            let Some(machine) = self.machine(config, handle, modules) else {
                continue;
            };
            for (index, cpu) in handle.cpus.iter().enumerate() {
                if *cpu == self.number {
                    self.vcpus.push(VirtualCpu::new(machine, index));
                }
            }
        }
        self.vcpus
            .sort_by_key(|vcpu| core::cmp::Reverse(vcpu.priority()));
        for vcpu in &mut self.vcpus {
            vcpu.autostart();
        }
        if self.number == 0 {
            let memory = self.shared.memory.lock();
            info!("memory: {} MiB free for guests", memory.free() >> 20);
        }
    }

    /// The machine of a guest, made by the processor of its vCPU 0; the others wait for that. All go through the
    /// guests in the same order, so no two wait for each other.
    fn machine(
        &self,
        config: &config::Guest,
        handle: &'static GuestHandle,
        modules: &'static [crate::host::BootModule],
    ) -> Option<&'static Machine> {
        if handle.cpus.first() != Some(&self.number) {
            return *handle.machine.wait();
        }
        *handle.machine.call_once(|| {
            let made = Machine::new(
                config.clone(),
                handle,
                modules,
                self.shared.facts,
                &self.shell.facts(),
                &mut self.shared.memory.lock(),
            );
            match made {
                Ok(machine) => Some(Box::leak(Box::new(machine))),
                Err(failure) => {
                    handle.set_state(GuestState::Crashed);
                    error!("{}: cannot be set up: {failure}", config.name);
                    None
                }
            }
        })
    }

    fn schedule(mut self) -> ! {
        let tended = tended_by(self.number);
        loop {
            take_interrupts();
            self.take_commands();
            // Where the run of the chosen vCPU must end for the sake of one above it, or of the network.
            let mut until = u64::MAX;
            if let Some(network) = tended {
                let now = tsc::read();
                let vcpus = self.vcpus.iter_mut();
                network.tend(now, vcpus.filter_map(|vcpu| vcpu.urgent_timer(now)));
                until = network.next_look();
            }
            if self.number == network::TENDER {
                if checkpoints::tend(tsc::read(), &self.shared.memory) {
                    // As behind what is moved for a guest that is being made ready.
                    self.park_all();
                    self.busy_since = tsc::read();
                }
                until = until.min(checkpoints::next_look());
            }
            let now = tsc::read();
            // However long that took, guests get on.
            until = until.max(now + PROGRESS);
            let mut wanted = None;
            // The halted vCPU whose timer is the next event of all, and where its run must end.
            let mut next = None;
            for (index, vcpu) in self.vcpus.iter_mut().enumerate() {
                let want = vcpu.poll(now, &mut self.shell, &self.shared.memory);
                if want != Want::Nothing {
                    wanted = Some((index, want));
                    break;
                }
                if let Some(at) = vcpu.next_event()
                    && at < until
                {
                    next = vcpu.waits_for_timer().then_some((index, until));
                    until = at;
                }
            }
            match wanted {
                Some((index, Want::Run)) => self.run_vcpu(index, now, until),
                Some((index, Want::Leave)) => {
                    self.park_others(index);
                    self.vcpus[index].leave(&mut self.shell);
                }
                Some((_, Want::Attention | Want::Nothing)) => {
                    // What was moved for one guest is in the caches: the next vCPU that runs is loaded anew, which
                    // flushes them.
                    self.park_all();
                    // Being made ready is on no guest's account.
                    self.busy_since = tsc::read();
                }
                None if tended.is_some_and(Network::hurries) => {}
                None => {
                    self.shared.power.off_if_idle();
                    let now = tsc::read();
                    let left = until.saturating_sub(now);
                    match next.filter(|_| left <= self.shared.wake_lead()) {
                        // All that need not wait for the timer is done before it is due.
                        Some((index, until)) => self.run_vcpu(index, now, until),
                        None => {
                            idle(self.number, self.shared, self.timer, now, until);
                            self.busy_since = tsc::read();
                        }
                    }
                }
            }
        }
    }

    /// Takes every vCPU's state out of the processor.
    fn park_all(&mut self) {
        for vcpu in &mut self.vcpus {
            vcpu.park(&mut self.shell);
        }
    }

    /// Takes every vCPU's state but this one's out of the processor.
    fn park_others(&mut self, index: usize) {
        for (other, vcpu) in self.vcpus.iter_mut().enumerate() {
            if other != index {
                vcpu.park(&mut self.shell);
            }
        }
    }

    fn run_vcpu(&mut self, index: usize, now: u64, until: u64) {
        self.park_others(index);
        let priority = self.vcpus[index].priority();
        let behind = self.vcpus[index..]
            .iter()
            .take_while(|vcpu| vcpu.priority() == priority)
            .count();
        let vcpu = &mut self.vcpus[index];
        let mut until = until.min(now + SLICE_MILLISECONDS * self.ticks_per_millisecond);
        if behind > 1 {
            if vcpu.turn_ends == 0 {
                vcpu.turn_ends = now + TURN_MILLISECONDS * self.ticks_per_millisecond;
            }
            until = until.min(vcpu.turn_ends);
        }
        let running = &self.shared.running[self.number];
        running.store(u16::from(priority) + 1, Ordering::Relaxed);
        let ended = vcpu.run(&mut self.shell, self.busy_since, until, &self.shared.memory);
        running.store(0, Ordering::Relaxed);
        // Before the vCPUs are looked at: see `attend_vcpu`.
        fence(Ordering::SeqCst);
        self.busy_since = tsc::read();
        let over = behind > 1 && self.busy_since >= vcpu.turn_ends;
        if ended != Yield::Interrupted || over {
            vcpu.turn_ends = 0;
        }
        if ended == Yield::Turn || over {
            self.vcpus[index..index + behind].rotate_left(1);
        }
    }

    fn take_commands(&mut self) {
        if !self.shared.attention[self.number].swap(false, Ordering::AcqRel) {
            return;
        }
        for index in 0..self.vcpus.len() {
            while let Some(command) = self.vcpus[index].next_command() {
                self.park_all();
                self.vcpus[index].command(command, &mut self.shell, &self.shared.memory);
            }
        }
        // What the operator wanted is on no guest's account.
        self.busy_since = tsc::read();
    }
}
