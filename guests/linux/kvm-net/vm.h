/* A virtual machine of KVM's with a network device of vhost's, which is on a tap. */
#ifndef VM_H
#define VM_H

#include "shared.h"

#include <pthread.h>
#include <semaphore.h>

struct vm {
	uint8_t *memory;
	volatile struct shared *shared;
	int vcpu;
	struct kvm_run *state;
	pthread_t thread;
	sem_t start, done;
};

/* Makes one whose frames go through the tap, and starts its thread. The guest waits for work then. */
void vm_make(struct vm *vm, int kvm, int tap);

/* Writes the same bytes into all of its transmit buffers, behind virtio's header. */
void vm_fill(struct vm *vm, const void *frame, uint32_t length);

/* Gives the guest work, which its thread begins when the caller sleeps. */
void vm_start(struct vm *vm, enum work work, uint32_t frames, uint32_t length);

/* Waits until the work is done. */
void vm_wait(struct vm *vm);

#endif
