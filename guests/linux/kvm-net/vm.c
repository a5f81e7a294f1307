#include "vm.h"
#include "../bench.h"

#include <linux/kvm.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* The guest's code, which is linked into this program and copied from there. */
extern const char __start_guest[], __stop_guest[], guest_main[], guest_interrupt[];

enum {
	CPUID_ENTRIES = 256,
	PAGE = 0x1000,
	/* Intel SDM volume 3, 4.5. */
	PRESENT_WRITABLE = 3, LARGE_PAGE = 0x80,
};

static void write64(struct vm *vm, uint32_t address, uint64_t value)
{
	memcpy(vm->memory + address, &value, sizeof value);
}

/* Page tables, descriptors and gates for 64-bit mode (Intel SDM volume 3, 4.5, 3.4.5 and 6.14.1). */
static void write_tables(struct vm *vm)
{
	uint64_t handler = CODE + (uint64_t)(guest_interrupt - __start_guest);

	write64(vm, PAGE_TABLES, (PAGE_TABLES + PAGE) | PRESENT_WRITABLE);
	write64(vm, PAGE_TABLES + PAGE, (PAGE_TABLES + 2 * PAGE) | PRESENT_WRITABLE);
	for (uint64_t page = 0; page < 512; page++)
		write64(vm, PAGE_TABLES + 2 * PAGE + page * 8, page << 21 | LARGE_PAGE | PRESENT_WRITABLE);
	write64(vm, DESCRIPTORS + CODE_SELECTOR, 0x00209b0000000000);
	write64(vm, DESCRIPTORS + DATA_SELECTOR, 0x00cf93000000ffff);
	for (uint32_t vector = FIRST_VECTOR; vector < FIRST_VECTOR + QUEUES; vector++) {
		uint64_t gate = (handler & 0xffff) | (handler & 0xffff0000) << 32 | CODE_SELECTOR << 16 | 0x8eULL << 40;
		write64(vm, GATES + vector * 16, gate);
	}
}

/* The receive buffers are the device's from the start. */
static void write_rings(struct vm *vm)
{
	struct ring *rings = (struct ring *)(vm->memory + RINGS);

	for (uint32_t queue = 0; queue < QUEUES; queue++)
		for (uint32_t buffer = 0; buffer < RING_SIZE; buffer++)
			rings[queue].descriptors[buffer] = (struct descriptor){
				.address = BUFFERS + (queue * RING_SIZE + buffer) * BUFFER_SIZE,
				.length = BUFFER_SIZE,
				.flags = queue == RECEIVE_QUEUE ? DESCRIPTOR_WRITE : 0,
			};
	for (uint16_t buffer = 0; buffer < RING_SIZE; buffer++)
		rings[RECEIVE_QUEUE].available.ring[buffer] = buffer;
	rings[RECEIVE_QUEUE].available.index = RING_SIZE;
}

static void set_mode(struct vm *vm)
{
	struct kvm_sregs s;
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = DATA_SELECTOR, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1,
	};
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = CODE_SELECTOR, .type = 11, .present = 1, .l = 1, .s = 1, .g = 1,
	};
	struct kvm_regs g = { .rip = CODE + (uint64_t)(guest_main - __start_guest), .rflags = 2, .rsp = STACK };

	check(ioctl(vm->vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cs = code;
	s.gdt = (struct kvm_dtable){ .base = DESCRIPTORS, .limit = DATA_SELECTOR + 7 };
	s.idt = (struct kvm_dtable){ .base = GATES, .limit = PAGE - 1 };
	s.cr0 = 0x80000031; /* paging, numeric errors, extension type, protection */
	s.cr3 = PAGE_TABLES;
	s.cr4 = 0x20;       /* physical-address extension */
	s.efer = 0x500;     /* 64-bit mode, active */
	check(ioctl(vm->vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	check(ioctl(vm->vcpu, KVM_SET_REGS, &g), "KVM_SET_REGS");
}

/* The guest has all that KVM can offer; the x2APIC is what it needs of that. */
static void set_cpuid(struct vm *vm, int kvm)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + CPUID_ENTRIES * sizeof cpuid->entries[0]);

	if (!cpuid)
		fail("CPUID");
	cpuid->nent = CPUID_ENTRIES;
	check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	check(ioctl(vm->vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
}

/*
 * Joins a queue's doorbell and interrupt to vhost, both within the kernel. A doorbell without a length is found
 * before the instruction is decoded, which is KVM's fastest; the interrupt is a message to the guest's APIC.
 */
static void join_queue(struct vm *vm, int machine, int vhost, int tap, uint32_t queue)
{
	uint64_t ring = (uintptr_t)vm->memory + RINGS + queue * sizeof(struct ring);
	int doorbell = check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
	int interrupt = check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
	struct kvm_ioeventfd to_vhost = { .addr = DOORBELLS + queue * PAGE, .len = 0, .fd = doorbell };
	struct kvm_irqfd to_guest = { .fd = (uint32_t)interrupt, .gsi = queue };
	struct vhost_vring_state size = { .index = queue, .num = RING_SIZE };
	struct vhost_vring_state base = { .index = queue, .num = 0 };
	struct vhost_vring_addr address = {
		.index = queue,
		.desc_user_addr = ring + offsetof(struct ring, descriptors),
		.avail_user_addr = ring + offsetof(struct ring, available),
		.used_user_addr = ring + offsetof(struct ring, used),
	};
	struct vhost_vring_file kick = { .index = queue, .fd = doorbell };
	struct vhost_vring_file call = { .index = queue, .fd = interrupt };
	struct vhost_vring_file backend = { .index = queue, .fd = tap };

	check(ioctl(machine, KVM_IOEVENTFD, &to_vhost), "KVM_IOEVENTFD");
	check(ioctl(machine, KVM_IRQFD, &to_guest), "KVM_IRQFD");
	check(ioctl(vhost, VHOST_SET_VRING_NUM, &size), "VHOST_SET_VRING_NUM");
	check(ioctl(vhost, VHOST_SET_VRING_BASE, &base), "VHOST_SET_VRING_BASE");
	check(ioctl(vhost, VHOST_SET_VRING_ADDR, &address), "VHOST_SET_VRING_ADDR");
	check(ioctl(vhost, VHOST_SET_VRING_KICK, &kick), "VHOST_SET_VRING_KICK");
	check(ioctl(vhost, VHOST_SET_VRING_CALL, &call), "VHOST_SET_VRING_CALL");
	check(ioctl(vhost, VHOST_NET_SET_BACKEND, &backend), "VHOST_NET_SET_BACKEND");
}

/* Messages to the only APIC, in place of all other routes. */
static void route_interrupts(int machine)
{
	struct kvm_irq_routing *routes = calloc(1, sizeof *routes + QUEUES * sizeof routes->entries[0]);

	if (!routes)
		fail("interrupt routes");
	routes->nr = QUEUES;
	for (uint32_t queue = 0; queue < QUEUES; queue++) {
		routes->entries[queue].gsi = queue;
		routes->entries[queue].type = KVM_IRQ_ROUTING_MSI;
		routes->entries[queue].u.msi.address_lo = 0xfee00000;
		routes->entries[queue].u.msi.data = FIRST_VECTOR + queue;
	}
	check(ioctl(machine, KVM_SET_GSI_ROUTING, routes), "KVM_SET_GSI_ROUTING");
	free(routes);
}

static void join_network(struct vm *vm, int machine, int tap)
{
	const uint64_t wanted = 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_EVENT_IDX
		| 1ULL << VIRTIO_NET_F_MRG_RXBUF;
	uint64_t features;
	int vhost = check(open("/dev/vhost-net", O_RDWR | O_CLOEXEC), "/dev/vhost-net");
	struct vhost_memory *memory = calloc(1, sizeof *memory + sizeof memory->regions[0]);

	if (!memory)
		fail("vhost's memory");
	memory->nregions = 1;
	memory->regions[0].memory_size = MEMORY;
	memory->regions[0].userspace_addr = (uintptr_t)vm->memory;
	check(ioctl(vhost, VHOST_SET_OWNER), "VHOST_SET_OWNER");
	check(ioctl(vhost, VHOST_GET_FEATURES, &features), "VHOST_GET_FEATURES");
	if ((features & wanted) != wanted)
		fail("vhost's features");
	check(ioctl(vhost, VHOST_SET_FEATURES, &wanted), "VHOST_SET_FEATURES");
	check(ioctl(vhost, VHOST_SET_MEM_TABLE, memory), "VHOST_SET_MEM_TABLE");
	free(memory);
	route_interrupts(machine);
	for (uint32_t queue = 0; queue < QUEUES; queue++)
		join_queue(vm, machine, vhost, tap, queue);
}

/* Runs the guest until its work is done. */
static void run(struct vm *vm)
{
	check(ioctl(vm->vcpu, KVM_RUN, 0), "KVM_RUN");
	if (vm->state->exit_reason != KVM_EXIT_IO || vm->state->io.port != DONE_PORT) {
		printf("failed: exit reason %u\n", vm->state->exit_reason);
		power_off();
	}
}

static void *serve(void *argument)
{
	struct vm *vm = argument;

	for (;;) {
		run(vm);
		sem_post(&vm->done);
		while (sem_wait(&vm->start) < 0)
			;
	}
	return NULL;
}

void vm_make(struct vm *vm, int kvm, int tap)
{
	int machine = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	int size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");

	vm->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (vm->memory == MAP_FAILED)
		fail("guest memory");
	vm->shared = (volatile struct shared *)(vm->memory + SHARED);
	memcpy(vm->memory + CODE, __start_guest, (size_t)(__stop_guest - __start_guest));
	write_tables(vm);
	write_rings(vm);
	check(ioctl(machine, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	check(ioctl(machine, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	struct kvm_userspace_memory_region region = {
		.memory_size = MEMORY, .userspace_addr = (uintptr_t)vm->memory,
	};
	check(ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	vm->vcpu = check(ioctl(machine, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	vm->state = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (vm->state == MAP_FAILED)
		fail("vCPU state");
	set_cpuid(vm, kvm);
	set_mode(vm);
	join_network(vm, machine, tap);
	sem_init(&vm->start, 0, 0);
	sem_init(&vm->done, 0, 0);
	if (pthread_create(&vm->thread, NULL, serve, vm))
		fail("vCPU thread");
	vm_wait(vm);
}

void vm_fill(struct vm *vm, const void *frame, uint32_t length)
{
	for (uint32_t buffer = 0; buffer < RING_SIZE; buffer++) {
		uint8_t *place = vm->memory + BUFFERS + (TRANSMIT_QUEUE * RING_SIZE + buffer) * BUFFER_SIZE;
		memcpy(place + HEADER, frame, length);
	}
}

void vm_start(struct vm *vm, enum work work, uint32_t frames, uint32_t length)
{
	vm->shared->work = work;
	vm->shared->frames = frames;
	vm->shared->length = length;
	sem_post(&vm->start);
}

void vm_wait(struct vm *vm)
{
	while (sem_wait(&vm->done) < 0)
		;
}
