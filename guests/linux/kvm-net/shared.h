/*
 * What the virtual machine monitor and its guest agree on: the guest's memory, and the work that it is given.
 *
 * Source of the rings: Virtual I/O Device (VIRTIO) 1.1, 2.6 (split virtqueues) and 5.1.6 (network device).
 */
#ifndef SHARED_H
#define SHARED_H

#include <stdint.h>

/* Guest-physical addresses, which are the guest's virtual ones, too. */
enum {
	PAGE_TABLES = 0x1000,     /* three: one for each level, the last with pages of 2 MiB */
	DESCRIPTORS = 0x4000,     /* the GDT */
	GATES = 0x5000,           /* the IDT */
	SHARED = 0x6000,          /* struct shared */
	END_OF_INTERRUPT = 0x7000, /* KVM's paravirtual one */
	STACK = 0xa000,           /* grows downwards */
	CODE = 0x10000,
	RINGS = 0x20000,          /* struct ring, one behind the other */
	BUFFERS = 0x100000,       /* RING_SIZE of BUFFER_SIZE bytes for each queue */
	MEMORY = 4 << 20,
	DOORBELLS = 0x30000000,   /* a page each; no memory is there */
};

enum {
	RECEIVE_QUEUE, TRANSMIT_QUEUE, QUEUES,
};

enum {
	RING_SIZE = 256,
	BUFFER_SIZE = 2048,
	HEADER = 12,              /* bytes of virtio's header in front of a frame */
	FIRST_VECTOR = 0x40,      /* of the receive queue's interrupt; the other's is the next */
	CODE_SELECTOR = 8,
	DATA_SELECTOR = 16,
	DONE_PORT = 0x14,
};

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};

enum { DESCRIPTOR_WRITE = 2 };

struct used_element {
	uint32_t id;
	uint32_t length;
};

/* With VIRTIO_F_EVENT_IDX: each side says at which index it wants to be told. */
struct ring {
	struct descriptor descriptors[RING_SIZE];
	struct {
		uint16_t flags;
		uint16_t index;
		uint16_t ring[RING_SIZE];
		uint16_t used_event;
	} available;
	/* The device's part begins on another page. */
	struct {
		uint16_t flags;
		uint16_t index;
		struct used_element ring[RING_SIZE];
		uint16_t available_event;
	} used __attribute__((aligned(4096)));
};

enum work {
	SEND_ONE_BY_ONE,          /* rings after each frame, where the device asks for it */
	SEND_TOGETHER,            /* rings after the last frame */
	RECEIVE,
};

/* The work, and what came of it. Each side's own fields are written while the other one does not run. */
struct shared {
	uint32_t work;
	uint32_t frames;
	uint32_t length;          /* of a frame, from the destination's address on, without checksum */
	uint32_t interrupts;      /* since the start */
	uint32_t doorbells;       /* since the start */
	uint32_t wrong;           /* frames that came with another length, since the start */
	uint16_t received;        /* index of the next used element of the receive queue */
};

#endif
