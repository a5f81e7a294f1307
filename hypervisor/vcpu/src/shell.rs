//! The interface of a shell over a virtualization extension.
//!
//! Which shell runs is decided once, at boot; the layers above are compiled for each ([`Shell`] is their
//! parameter), so that the exit path calls nothing through a pointer.

use crate::error::{EntryFailure, RestoreError, ShellError, VcpuError};
use crate::exit::{Exit, RareExit, RareReason};
use crate::memory::FrameSource;
use crate::nested::{Format, NestedTables};
use crate::paging::Paging;
use crate::registers::Registers;
use crate::saved::VcpuStateV1;
use crate::state::{Event, Gprs, HostState, Segment, SegmentRegister, StartState};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// What the layers above must know of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How second-level page tables are to be written for it.
    pub tables: Format,
    /// Width of a physical address in bits, 32 to 52.
    pub physical_bits: u8,
    /// The XCR0 bits that guests may set.
    pub xcr0: u64,
    /// Guests may use RDTSCP and RDPID.
    pub rdtscp: bool,
    /// Guests may use INVPCID.
    pub invpcid: bool,
}

/// A timer of the host's that interrupts this processor: where the extension itself cannot end a guest's run in time.
pub trait DeadlineTimer {
    /// An interrupt of the host comes when the TSC is `at`, or somewhat later. It replaces what was asked for before.
    fn arm(&self, at: u64);

    /// What was asked for is wanted no more. It may have come already.
    fn disarm(&self);
}

/// A guest's memory, as a shell needs it.
pub trait GuestView {
    /// Reads code at a linear address by the guest's page tables, as many bytes as there are up to `bytes.len()`; returns
    /// how many.
    fn code(&self, paging: &Paging, user: bool, linear: u64, bytes: &mut [u8]) -> usize;

    /// The four page-directory pointers at a guest-physical address; `None` outside the guest's memory.
    fn page_directory_pointers(&self, physical: u64) -> Option<[u64; 4]>;
}

/// A processor that can run guests. It is this processor's own: neither `Send` nor `Sync`.
pub trait Shell: Sized + 'static {
    /// The vCPUs that it runs.
    type Vcpu: Vcpu<Shell = Self>;
    /// Why it cannot run guests: one sentence for the operator.
    type StartError: fmt::Display;
    /// The extension's name.
    const NAME: &'static str;

    /// Whether CPUID reports the extension, usable or not.
    fn is_reported() -> bool;

    /// Makes this processor ready to run guests.
    ///
    /// # Errors
    ///
    /// What the processor lacks.
    ///
    /// # Safety
    ///
    /// Must be called once on each processor, at privilege level 0 in 64-bit mode with interrupts
    /// off. `host` must describe tables that live and stay valid as long as the processor runs, and
    /// the address space and the FS and GS bases of this moment must stay valid too.
    unsafe fn start(
        host: HostState,
        timer: &'static dyn DeadlineTimer,
        frames: &mut impl FrameSource,
    ) -> Result<Self, Self::StartError>;

    /// What the layers above must know of this processor.
    fn facts(&self) -> Facts;

    /// What distinguishes this processor's extension from the least that is needed, in words.
    fn extras(&self) -> String;

    /// This processor's microcode revision.
    fn microcode_revision(&self) -> u32;
}

/// A virtual processor. It runs on the processor it was made on.
pub trait Vcpu: Sized {
    /// Its processor.
    type Shell: Shell<Vcpu = Self>;
    /// Access to it while the processor runs it.
    type Active<'a>: Active
    where
        Self: 'a;

    /// A virtual processor that is about to start as `start` says. `tag` marks its cached translations: it must be
    /// unique on this processor and not zero; the shell sees to it when the processor has too few tags. `tsc_offset` is added to what RDTSC reads.
    ///
    /// # Errors
    ///
    /// [`VcpuError`]; frames that were taken are not given back.
    ///
    /// # Safety
    ///
    /// `tables` must live, unmoved, as long as the vCPU does.
    unsafe fn new(
        cpu: &mut Self::Shell,
        tables: &NestedTables,
        tag: u16,
        tsc_offset: u64,
        start: &StartState,
        frames: &mut impl FrameSource,
    ) -> Result<Self, VcpuError>;

    /// Makes [`ApicLending::lend_apic`] work where the processor can keep a local APIC. A vCPU whose guest has none needs
    /// none of it.
    ///
    /// # Errors
    ///
    /// [`VcpuError::OutOfMemory`].
    fn provide_apic(
        &mut self,
        cpu: &Self::Shell,
        frames: &mut impl FrameSource,
    ) -> Result<(), VcpuError>;

    /// Puts the vCPU into the state of [`Vcpu::new`] again. It need not be the active one, nor does it
    /// become that.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Shell`] when the processor refuses it.
    ///
    /// # Safety
    ///
    /// As [`Vcpu::new`].
    unsafe fn reset(
        &mut self,
        cpu: &mut Self::Shell,
        tables: &NestedTables,
        tsc_offset: u64,
        start: &StartState,
    ) -> Result<(), VcpuError>;

    /// Puts the vCPU into a saved state, which may come from anywhere: it is checked. It need not be the
    /// active one, nor does it become that. `tsc_offset` is as in [`Vcpu::new`].
    ///
    /// # Errors
    ///
    /// [`RestoreError`] says what is wrong with the state, or what this processor lacks for it.
    ///
    /// # Safety
    ///
    /// As [`Vcpu::new`].
    unsafe fn restore(
        &mut self,
        cpu: &mut Self::Shell,
        tables: &NestedTables,
        tsc_offset: u64,
        state: &VcpuStateV1,
    ) -> Result<(), RestoreError>;

    /// Makes this vCPU the one that the processor runs, and gives access to it. `memory` is its guest's.
    ///
    /// # Errors
    ///
    /// [`ShellError::Occupied`] while another vCPU is in the processor (see [`Vcpu::park`]), or what the processor
    /// refuses.
    fn activate<'a>(
        &'a mut self,
        cpu: &'a mut Self::Shell,
        memory: &'a dyn GuestView,
    ) -> Result<Self::Active<'a>, ShellError>;

    /// Takes this vCPU's state out of the processor, so that another one can be activated.
    fn park(&mut self, cpu: &mut Self::Shell);
}

/// What the processor keeps of a local APIC while it runs the guest. Sets of vectors are in words of 64, the lowest
/// vectors first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApicState {
    /// Task priority register.
    pub task_priority: u8,
    /// Interrupt request register.
    pub requests: [u64; 4],
    /// In-service register.
    pub in_service: [u64; 4],
}

/// The vCPU that this processor runs now: its registers, running it, and what its exits ask for.
///
/// Errors of all methods are [`ShellError`], where the processor fails to read or write the vCPU.
#[allow(
    clippy::missing_errors_doc,
    reason = "the trait's documentation has them"
)]
pub trait Active: Events + ControlRegisters + ApicLending + WriteLog {
    /// Runs the guest until it exits, at the latest some time after the TSC is `until`; it is `now`, and `until` is less
    /// than 2^32 ticks ahead.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`]; the guest did not run. A refused guest state may show as a rare exit first.
    fn run(&mut self, now: u64, until: u64) -> Result<Exit, EntryFailure>;

    /// Decodes a rare exit, right after it. An event whose delivery to the guest it interrupted is
    /// queued again for the next entry. A host NMI has been taken; an exception that exits without being the
    /// hypervisor's business has been queued for the guest.
    ///
    /// # Errors
    ///
    /// [`EntryFailure`] when it was no exit: the processor refused the guest state.
    fn rare_exit(&mut self, reason: RareReason) -> Result<RareExit, EntryFailure>;

    /// The guest's general-purpose registers.
    fn gprs(&self) -> &Gprs;

    /// The guest's general-purpose registers.
    fn gprs_mut(&mut self) -> &mut Gprs;

    /// The value of the general-purpose register with this encoding, RSP included.
    fn gpr(&self, encoding: u8) -> Result<u64, ShellError>;

    /// Sets the general-purpose register with this encoding, RSP included.
    fn set_gpr(&mut self, encoding: u8, value: u64) -> Result<(), ShellError>;

    /// The instruction pointer.
    fn rip(&self) -> Result<u64, ShellError>;

    /// The flags register.
    fn rflags(&self) -> Result<u64, ShellError>;

    /// Sets the flags register; reserved bits stay as the processor demands.
    fn set_rflags(&mut self, value: u64) -> Result<(), ShellError>;

    /// A segment register.
    fn segment(&self, register: SegmentRegister) -> Result<Segment, ShellError>;

    /// Whether the guest runs 64-bit code.
    fn is_64_bit(&self) -> Result<bool, ShellError>;

    /// The width in bits of the guest's code: 16, 32 or 64.
    fn code_bits(&self) -> Result<u32, ShellError>;

    /// The current privilege level.
    fn privilege_level(&self) -> Result<u8, ShellError>;

    /// The registers, for the log.
    fn registers(&self) -> Registers;

    /// The vCPU's state, which may run on afterwards.
    ///
    /// An event that was to be delivered at the next entry is part of it.
    fn save(&mut self) -> Result<VcpuStateV1, ShellError>;

    /// Moves the guest behind the instruction that exited, and ends its interrupt shadow.
    fn skip_instruction(&mut self) -> Result<(), ShellError>;

    /// As [`Active::skip_instruction`], for exits that do not tell the instruction's length in bytes.
    fn skip(&mut self, length: u32) -> Result<(), ShellError>;

    /// What the end of an instruction, or of one iteration of a repeated one, brings: the interrupt shadow
    /// ends, and a single step traps.
    fn complete_iteration(&mut self) -> Result<(), ShellError>;

    /// The linear address that an INS or OUTS named (valid right after such an exit).
    fn string_address(&self) -> Result<u64, ShellError>;

    /// The address size in bits of an INS or OUTS (valid right after such an exit).
    fn string_address_bits(&self) -> Result<u32, ShellError>;

    /// The segment of an OUTS (valid right after such an exit).
    fn string_segment(&self) -> Result<SegmentRegister, ShellError>;

    /// Sets what is added to the TSC that the guest reads.
    fn set_tsc_offset(&mut self, offset: u64) -> Result<(), ShellError>;

    /// Makes a loop around PAUSE exit after about so many TSC ticks, where the processor can; until then none does.
    fn set_pause_window(&mut self, ticks: u32) -> Result<(), ShellError>;

    /// What a hardware task switch needs, where the processor leaves those to the hypervisor.
    fn task_switching(&mut self) -> Option<&mut dyn TaskSwitching>;
}

/// Interrupts and exceptions for the guest.
#[allow(
    clippy::missing_errors_doc,
    reason = "as those of the trait that extends this one"
)]
pub trait Events {
    /// Whether an interrupt can be injected now.
    fn can_take_interrupt(&self) -> Result<bool, ShellError>;

    /// Whether the guest has interrupts enabled, shadows aside.
    fn interrupts_enabled(&self) -> Result<bool, ShellError>;

    /// Asks for an exit as soon as the guest can take an interrupt, or no longer.
    fn want_interrupt_window(&mut self, wanted: bool) -> Result<(), ShellError>;

    /// Delivers `event` at the next entry. One event at a time: a second one replaces the first, unless the processor can
    /// keep an interrupt behind it.
    fn inject(&mut self, event: Event) -> Result<(), ShellError>;

    /// Delivers an NMI at the next entry if the guest can take one; else asks for an exit when it can
    /// and returns `false`.
    fn inject_nmi(&mut self) -> Result<bool, ShellError>;

    /// Raises #PF for a linear address.
    fn inject_page_fault(&mut self, linear: u64, code: u32) -> Result<(), ShellError>;

    /// Whether the exit came while an event was being delivered to the guest.
    fn is_delivering_event(&self) -> Result<bool, ShellError>;
}

/// Control registers, IA32_EFER and XCR0, and what a change of them asks for.
#[allow(
    clippy::missing_errors_doc,
    reason = "as those of the trait that extends this one"
)]
pub trait ControlRegisters {
    /// How the guest translates linear addresses now.
    fn paging(&self) -> Result<Paging, ShellError>;

    /// XCR0 as the guest set it.
    fn xcr0(&self) -> u64;

    /// MOV to CR0 or CR4, where that exits, with this value. Returns `false` when the processor would raise #GP(0);
    /// nothing has changed then. `None`: a write of this register does not exit.
    fn write_control_register(
        &mut self,
        register: u8,
        value: u64,
    ) -> Result<Option<bool>, ShellError>;

    /// WRMSR to IA32_EFER with this value; `false` for #GP(0).
    fn write_efer(&mut self, value: u64) -> Result<bool, ShellError>;

    /// XSETBV of XCR0 with this value; `false` for #GP(0) (Intel SDM volume 1, section 13.3).
    fn write_xcr0(&mut self, value: u64) -> bool;

    /// Drops the guest's cached translations, linear and guest-physical.
    fn flush(&mut self) -> Result<(), ShellError>;
}

/// A guest's local APIC in the processor's hands.
#[allow(
    clippy::missing_errors_doc,
    reason = "as those of the trait that extends this one"
)]
pub trait ApicLending {
    /// Whether [`Self::lend_apic`] can be used: the processor can keep a local APIC, and was made ready for that.
    fn can_lend_apic(&self) -> bool;

    /// Lets the processor keep the local APIC's interrupts from the next entry on: with this task priority, these
    /// vectors in service, and no requests yet. The guest's local APIC must be enabled and in x2APIC mode. To end an
    /// interrupt with a vector in `eoi_exits` exits ([`RareExit::EndOfInterrupt`]). Sets are in words of 64.
    /// Where [`Self::can_lend_apic`] says no, nothing happens.
    fn lend_apic(
        &mut self,
        task_priority: u8,
        in_service: [u64; 4],
        eoi_exits: [u64; 4],
    ) -> Result<(), ShellError>;

    /// Makes the next entry deliver an interrupt of a local APIC that the processor keeps; the guest must be able to take
    /// it now ([`Events::can_take_interrupt`]). `eoi_exit` says whether to end it exits. Returns `false` if its priority
    /// is too low, or another one has been requested.
    fn request_interrupt(&mut self, vector: u8, eoi_exit: bool) -> Result<bool, ShellError>;

    /// What the processor has made of the local APIC's interrupts. It is to be lent again before the next entry, or
    /// [`Self::keep_apic`] to be called.
    fn take_apic(&mut self) -> Result<ApicState, ShellError>;

    /// Makes every access to the local APIC exit from the next entry on.
    fn keep_apic(&mut self) -> Result<(), ShellError>;
}

/// The processor's log of the pages that a guest writes.
#[allow(
    clippy::missing_errors_doc,
    reason = "as those of the trait that extends this one"
)]
pub trait WriteLog {
    /// Makes the processor log each page as it sets the dirty bit of the page's leaf, from the next entry on, or no more.
    /// It does not while the vCPU is new, or after [`Vcpu::reset`] and [`Vcpu::restore`]. Where the tables' format knows
    /// no log ([`Format::write_log`]), nothing happens.
    fn log_writes(&mut self, on: bool) -> Result<(), ShellError>;

    /// Hands the guest-physical addresses that were logged to `take`, and empties the log. Those that were logged come
    /// once; it is to be called at the end of every run, and when the log is full ([`RareExit::LogFull`]).
    fn take_log(&mut self, take: &mut dyn FnMut(u64)) -> Result<(), ShellError>;
}

/// What a hardware task switch needs of the vCPU beside the rest: VT-x makes each of them an exit, AMD-V does
/// them in the guest.
#[allow(
    clippy::missing_errors_doc,
    reason = "as those of the trait that this one extends"
)]
pub trait TaskSwitching: Active {
    /// Base and limit in bytes of the global descriptor table.
    fn global_descriptor_table(&self) -> Result<(u64, u32), ShellError>;

    /// Sets a segment register, hidden part included. The next entry checks it (Intel SDM volume 3,
    /// section 27.3.1.2).
    fn set_segment(
        &mut self,
        register: SegmentRegister,
        segment: Segment,
    ) -> Result<(), ShellError>;

    /// Sets the instruction pointer, and ends an interrupt shadow: what was in progress is over.
    fn jump(&mut self, rip: u64) -> Result<(), ShellError>;

    /// Loads CR3 as a task switch does; `false` for #GP(0).
    fn switch_cr3(&mut self, value: u32) -> Result<bool, ShellError>;

    /// The length in bytes of the instruction that exited, or that raised the software event in
    /// whose delivery the exit came.
    fn instruction_length(&self) -> Result<u32, ShellError>;

    /// The event that was being delivered to the guest as it exited, if one was.
    fn event_in_delivery(&self) -> Result<Option<Event>, ShellError>;

    /// What every task switch leaves in control and debug registers (Intel SDM volume 3, section 8.3): CR0.TS is set,
    /// and the local breakpoints of DR7 are off.
    fn mark_task_switched(&mut self) -> Result<(), ShellError>;

    /// Raises the debug exception of a task whose TSS asks for it. Entry delivers the exception only; what
    /// else it does to the debug registers is done here (section 18.2.3).
    fn inject_task_trap(&mut self) -> Result<(), ShellError>;

    /// Blocks NMIs, as the delivery of one does, or lets them in again, as IRET does.
    fn block_nmis(&mut self, blocked: bool) -> Result<(), ShellError>;
}

/// The names of what is there, as one text.
#[must_use]
pub fn listed(features: &[(bool, &'static str)]) -> String {
    let names: Vec<_> = features
        .iter()
        .filter_map(|(there, name)| there.then_some(*name))
        .collect();
    names.join(", ")
}
