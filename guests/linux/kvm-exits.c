/*
 * What a VM exit costs in KVM, in ticks of the time-stamp counter, seen from inside a KVM guest.
 *
 * This is the peer of the probes' "bench-exits": the same loops, in 32-bit code, in the same
 * emulator. It is the /init of a system that holds nothing else: it loads KVM's modules, runs one
 * guest, prints lines "bench NAME ticks=N" and powers the machine off.
 *
 * Build: cc -O2 -static -o init kvm-exits.c
 */
#include "bench.h"

#include <linux/kvm.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum {
	ROUNDS = 1000,          /* also the constant in the guest's code */
	MEMORY = 1 << 20,
	CODE = 0x1000,
	RESULTS = 0x2000,
	UNCLAIMED_PORT = 0x2f0, /* leaves the kernel, as nothing there has it */
	KICK_PORT = 0x12,       /* an eventfd, as a virtio device's notification */
	DONE_PORT = 0x14,
};

/*
 * The guest. Each loop runs a whole round as a warm-up and then ROUNDS times between two readings
 * of the time-stamp counter; the difference goes to the next result. EBX holds the port for EDX,
 * which the time stamp overwrites. The first loop is the floor.
 */
extern const char guest_start[], guest_end[];
__asm__(
	".pushsection .rodata\n"
	".code32\n"
	".macro begin_loop\n"
	"	mov	$1000, %edi\n"
	"	mov	%ebx, %edx\n"
	"	call	2f\n"
	"	mov	$1000, %edi\n"
	"	rdtsc\n"
	"	mov	%eax, %esi\n"
	"	mov	%ebx, %edx\n"
	"	call	2f\n"
	"	rdtsc\n"
	"	sub	%esi, %eax\n"
	"	mov	%eax, (%ebp)\n"
	"	add	$4, %ebp\n"
	"	jmp	3f\n"
	"2:	xor	%eax, %eax\n"
	".endm\n"
	".macro end_loop\n"
	"	dec	%edi\n"
	"	jnz	2b\n"
	"	ret\n"
	"3:\n"
	".endm\n"
	"guest_start:\n"
	"	begin_loop\n"
	"	end_loop\n"
	"	xor	%ecx, %ecx\n"
	"	begin_loop\n"
	"	cpuid\n"
	"	end_loop\n"
	"	begin_loop\n"
	"	in	$0x21, %al\n"
	"	end_loop\n"
	"	mov	$0x2f0, %ebx\n"
	"	begin_loop\n"
	"	in	%dx, %al\n"
	"	end_loop\n"
	"	begin_loop\n"
	"	in	$0x40, %al\n"
	"	end_loop\n"
	"	mov	$0x8b, %ecx\n"
	"	begin_loop\n"
	"	rdmsr\n"
	"	end_loop\n"
	"	begin_loop\n"
	"	out	%al, $0x12\n"
	"	end_loop\n"
	"	out	%al, $0x14\n"
	"guest_end:\n"
	".code64\n"
	".popsection\n");

static const char *const names[] = {
	"cpuid", "pic_read", "unclaimed_port", "pit_read", "msr_read", "kick",
};
enum { NAMES = sizeof names / sizeof *names };

/* Flat 32-bit protected mode without paging. */
static void set_mode(int vcpu)
{
	struct kvm_sregs s;
	struct kvm_segment flat = {
		.limit = 0xffffffff, .selector = 8, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1,
	};

	check(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cs = flat;
	s.cs.type = 11;
	s.cr0 |= 1;
	check(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");

	struct kvm_regs g = { .rip = CODE, .rflags = 2, .rbp = RESULTS, .rsp = RESULTS };
	check(ioctl(vcpu, KVM_SET_REGS, &g), "KVM_SET_REGS");
}

static void run(int vcpu, struct kvm_run *state)
{
	for (;;) {
		check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		if (state->exit_reason != KVM_EXIT_IO) {
			printf("failed: exit reason %u\n", state->exit_reason);
			power_off();
		}
		if (state->io.port == DONE_PORT)
			return;
		if (state->io.port != UNCLAIMED_PORT) {
			printf("failed: port %#x came to user space\n", state->io.port);
			power_off();
		}
		*((uint8_t *)state + state->io.data_offset) = 0xff;
	}
}

int main(void)
{
	load_modules();

	int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	check(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	struct kvm_pit_config pit = { .flags = 0 };
	check(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");

	uint8_t *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("guest memory");
	memcpy(memory + CODE, guest_start, (size_t)(guest_end - guest_start));
	struct kvm_userspace_memory_region region = {
		.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory,
	};
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

	struct kvm_ioeventfd kick = {
		.addr = KICK_PORT, .len = 1, .fd = check(eventfd(0, EFD_CLOEXEC), "eventfd"),
		.flags = KVM_IOEVENTFD_FLAG_PIO,
	};
	check(ioctl(vm, KVM_IOEVENTFD, &kick), "KVM_IOEVENTFD");

	int vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	int size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *state = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (state == MAP_FAILED)
		fail("vCPU state");

	set_mode(vcpu);
	run(vcpu, state);

	uint32_t results[1 + NAMES];
	memcpy(results, memory + RESULTS, sizeof results);
	for (int i = 0; i < NAMES; i++)
		printf("bench %s ticks=%u\n", names[i], (results[1 + i] - results[0]) / ROUNDS);
	power_off();
}
