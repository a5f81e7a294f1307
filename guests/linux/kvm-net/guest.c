/*
 * The guest: drives two virtio queues of a network device, and does nothing else.
 *
 * It is copied into the guest's memory, so it has no data of its own and calls nothing outside of its section.
 * It works as the network drivers of operating systems do: it halts until an interrupt comes, takes all
 * that is there, and wants no further interrupts meanwhile. It never looks into a frame.
 */
#pragma GCC target("general-regs-only")
#pragma GCC optimize("no-jump-tables", "no-tree-loop-distribute-patterns", "no-stack-protector")

#include "shared.h"

#define GUEST __attribute__((section("guest"), used))
#define INLINE static inline __attribute__((always_inline))

#define job ((volatile struct shared *)SHARED)
#define rings ((volatile struct ring *)RINGS)

/* MSRs: Intel SDM volume 4, table 2-2; KVM's own: Documentation/virt/kvm/x86/msr.rst. */
enum {
	APIC_BASE = 0x1b,
	APIC_BASE_X2APIC = 0xfee00d00, /* boot processor, enabled, x2APIC */
	X2APIC_EOI = 0x80b,
	X2APIC_SPURIOUS = 0x80f,
	APIC_ENABLED = 0x1ff,
	KVM_PV_EOI = 0x4b564d04,
};

/*
 * The handler of both interrupts. KVM sets the bit at END_OF_INTERRUPT if the interrupt needs no EOI
 * at the APIC, which would be an exit.
 */
__asm__(
	".pushsection guest, \"ax\"\n"
	".globl guest_interrupt\n"
	"guest_interrupt:\n"
	"	incl	0x600c\n"        /* job->interrupts */
	"	btrl	$0, 0x7000\n"    /* END_OF_INTERRUPT */
	"	jc	1f\n"
	"	push	%rax\n"
	"	push	%rcx\n"
	"	push	%rdx\n"
	"	mov	$0x80b, %ecx\n"  /* X2APIC_EOI */
	"	xor	%eax, %eax\n"
	"	xor	%edx, %edx\n"
	"	wrmsr\n"
	"	pop	%rdx\n"
	"	pop	%rcx\n"
	"	pop	%rax\n"
	"1:	iretq\n"
	".popsection\n");
_Static_assert(SHARED + __builtin_offsetof(struct shared, interrupts) == 0x600c, "as above");
_Static_assert(END_OF_INTERRUPT == 0x7000 && X2APIC_EOI == 0x80b, "as above");

INLINE void write_msr(uint32_t msr, uint32_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0) : "memory");
}

INLINE void disable_interrupts(void)
{
	__asm__ volatile("cli" : : : "memory");
}

INLINE void enable_interrupts(void)
{
	__asm__ volatile("sti" : : : "memory");
}

/* Halts until an interrupt comes, unless the device has used up to another index meanwhile. */
INLINE void wait_while_used(int queue, uint16_t index)
{
	disable_interrupts();
	if (rings[queue].used.index == index)
		__asm__ volatile("sti\n\thlt" : : : "memory");
	else
		enable_interrupts();
}

/* Whether an index between the old one, which is included, and the new one is the event. */
INLINE int reaches(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* Gives the device what became available since the old index, and rings if it asks for that. */
INLINE void ring_doorbell(int queue, uint16_t old)
{
	__sync_synchronize();
	if (reaches(rings[queue].used.available_event, rings[queue].available.index, old)) {
		*(volatile uint16_t *)(uintptr_t)(DOORBELLS + queue * 0x1000) = (uint16_t)queue;
		job->doorbells++;
	}
}

/* Makes a buffer available. */
INLINE void offer(int queue, uint16_t buffer)
{
	uint16_t index = rings[queue].available.index;

	rings[queue].available.ring[index % RING_SIZE] = buffer;
	__atomic_signal_fence(__ATOMIC_RELEASE);
	rings[queue].available.index = (uint16_t)(index + 1);
}

/* Sends frames and waits until the device has used them all, which is one interrupt. */
INLINE void send(uint32_t frames, int one_by_one)
{
	volatile struct ring *ring = &rings[TRANSMIT_QUEUE];
	uint16_t start = ring->available.index, end = (uint16_t)(start + frames);

	if (!frames)
		return;
	ring->available.used_event = (uint16_t)(end - 1);
	for (uint16_t index = start; index != end; index++) {
		ring->descriptors[index % RING_SIZE].length = HEADER + job->length;
		offer(TRANSMIT_QUEUE, index % RING_SIZE);
		if (one_by_one)
			ring_doorbell(TRANSMIT_QUEUE, index);
	}
	if (!one_by_one)
		ring_doorbell(TRANSMIT_QUEUE, start);
	for (uint16_t used = ring->used.index; used != end; used = ring->used.index)
		wait_while_used(TRANSMIT_QUEUE, used);
}

/* Receives frames, and gives their buffers back to the device. */
INLINE void receive(uint32_t frames)
{
	volatile struct ring *ring = &rings[RECEIVE_QUEUE];
	uint16_t next = job->received;

	while (frames) {
		if (ring->used.index == next) {
			ring->available.used_event = next;
			__sync_synchronize();
			wait_while_used(RECEIVE_QUEUE, next);
			continue;
		}
		volatile struct used_element *used = &ring->used.ring[next % RING_SIZE];
		if (used->length != HEADER + job->length)
			job->wrong++;
		offer(RECEIVE_QUEUE, (uint16_t)used->id);
		ring_doorbell(RECEIVE_QUEUE, (uint16_t)(ring->available.index - 1));
		next++;
		frames--;
	}
	job->received = next;
}

GUEST __attribute__((noreturn)) void guest_main(void)
{
	write_msr(APIC_BASE, APIC_BASE_X2APIC);
	write_msr(X2APIC_SPURIOUS, APIC_ENABLED);
	write_msr(KVM_PV_EOI, END_OF_INTERRUPT | 1);
	enable_interrupts();
	for (;;) {
		__asm__ volatile("outb %%al, %0" : : "N"(DONE_PORT), "a"(0) : "memory");
		if (job->work == RECEIVE)
			receive(job->frames);
		else
			send(job->frames, job->work == SEND_ONE_BY_ONE);
	}
}
