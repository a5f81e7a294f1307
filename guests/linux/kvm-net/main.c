/*
 * What a frame costs with KVM, vhost-net and Linux's bridge, in ticks of the time-stamp counter.
 *
 * The peer of our own network's measurement, in the same emulator with the same card. It is the /init of a system
 * that holds nothing else: it puts the card and two guests on a bridge, has them send and receive, prints lines
 *
 *     net WAY length=BYTES frames=N ticks=N exits=N interrupts=N card_interrupts=N
 *
 * and in the end "end sent=N", the frames for the wire, and powers the machine off. The totals are of all the N
 * frames, and of everything that the machine did for them.
 *
 * The method. The machine has one processor, where a tick is an instruction, a step of a repeated one, or idle. What a
 * frame costs is every tick that is not idle, whoever spends it: guest, KVM, vhost's thread, bridge, driver, interrupts.
 * A thread of the class for idle time takes all the ticks that nobody else wants, and counts them. A window is opened,
 * frames are sent, their last consequences are waited for, and the window is closed:
 *
 *     busy = ticks of the window - ticks counted as idle - the share of the kernel's timer
 *
 * The share is what the machine is busy for while nothing happens at all. Threads are woken and guests entered in each
 * window, also for no frames; that is measured alike, and taken off. The switches to the idle thread and from it stand
 * for those to the halt of an idle processor and from that.
 *
 * Frames from outside come when they come. So they are collected in the card's ring while its interrupts are held, and
 * the window begins with their release. A line "ask frames=N length=BYTES" has the far end of the wire send them.
 *
 * Build: cc -O2 -static -o init main.c network.c vm.c guest.c
 */
#define _GNU_SOURCE
#include "../bench.h"
#include "network.h"
#include "vm.h"

#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <x86intrin.h>

enum {
	SETTLE = 5000,           /* microseconds until the last consequence of a frame is over */
	READY = 2000,            /* microseconds until a guest waits for frames */
	QUIET = 50000,           /* microseconds in which nothing happens */
	QUIET_WINDOWS = 20,
	SPIN_TICKS = 2,          /* of one turn of the idle thread */
	ETHERNET_HEADER = 14,
};

/* The board knows the first guest by the card's own address: Bochs lets no others in. */
static const uint8_t first_guest[6] = { 0x52, 0x54, 0, 0, 0, 1 };
static const uint8_t second_guest[6] = { 0x52, 0x54, 0, 0, 0, 2 };
static const uint8_t card[6] = { 0x52, 0x54, 0, 0, 0, 0xc };
static const uint8_t far_end[6] = { 0x52, 0x54, 0, 0, 0, 0xfe };
/* IEEE 802's local experimental EtherType. */
static const uint8_t ether_type[2] = { 0x88, 0xb5 };

static struct vm first, second;
static volatile uint64_t spins;
static uint32_t sent;        /* frames, to the wire */

/* A moment, or what passed between moments. */
struct reading {
	int64_t ticks, idle, exits, interrupts, card_interrupts;
};

enum path {
	TO_WIRE, FROM_WIRE, TO_GUEST,
};

struct way {
	const char *name;
	enum path path;
	enum work work;
	uint32_t frames;         /* in a window */
	uint32_t windows;
};

static const struct way ways[] = {
	{ "to-wire single", TO_WIRE, SEND_TOGETHER, 1, 64 },
	{ "to-wire each", TO_WIRE, SEND_ONE_BY_ONE, 64, 8 },
	{ "to-wire batch", TO_WIRE, SEND_TOGETHER, 64, 8 },
	{ "from-wire single", FROM_WIRE, 0, 1, 64 },
	{ "from-wire batch", FROM_WIRE, 0, 64, 8 },
	{ "to-guest single", TO_GUEST, SEND_TOGETHER, 1, 64 },
	{ "to-guest each", TO_GUEST, SEND_ONE_BY_ONE, 64, 8 },
	{ "to-guest batch", TO_GUEST, SEND_TOGETHER, 64, 8 },
};

static const uint32_t lengths[] = { 64, 1500 };

static void *spin(void *nothing)
{
	struct sched_param lowest = { 0 };

	check(sched_setscheduler(0, SCHED_IDLE, &lowest), "SCHED_IDLE");
	__asm__ volatile("1:	incq	%0\n	jmp	1b" : "+m"(spins));
	return nothing;
}

static int64_t exits(void)
{
	char text[32] = "";
	int fd = check(open("/sys/kernel/debug/kvm/exits", O_RDONLY | O_CLOEXEC), "KVM's count of exits");

	check((int)read(fd, text, sizeof text - 1), "KVM's count of exits");
	close(fd);
	return strtoll(text, NULL, 10);
}

/* Adds a moment, or takes it away. The counts are read outside of the window. */
static void open_window(struct reading *sum)
{
	sum->exits -= exits();
	sum->interrupts -= first.shared->interrupts + second.shared->interrupts;
	sum->card_interrupts -= (int64_t)card_interrupts();
	sum->idle -= (int64_t)spins * SPIN_TICKS;
	sum->ticks -= (int64_t)__rdtsc();
}

static void close_window(struct reading *sum)
{
	sum->ticks += (int64_t)__rdtsc();
	sum->idle += (int64_t)spins * SPIN_TICKS;
	sum->card_interrupts += (int64_t)card_interrupts();
	sum->interrupts += first.shared->interrupts + second.shared->interrupts;
	sum->exits += exits();
}

/* Has all transmit buffers of a guest hold the start of a frame. */
static void address(struct vm *from, const uint8_t *to, const uint8_t *by)
{
	uint8_t header[ETHERNET_HEADER];

	memcpy(header, to, 6);
	memcpy(header + 6, by, 6);
	memcpy(header + 12, ether_type, 2);
	vm_fill(from, header, sizeof header);
}

/* Has the far end send frames, and waits until the card, whose interrupts are held from now on, has them. */
static void collect(uint32_t frames, uint32_t length)
{
	card_hold();
	if (frames) {
		printf("ask frames=%u length=%u\n", frames, length);
		card_wait(frames);
	}
	usleep(SETTLE);
}

/* Opens a window, and has this many frames go their way in it. */
static void observe(const struct way *way, uint32_t frames, uint32_t length, struct reading *sum)
{
	if (way->path == FROM_WIRE)
		collect(frames, length);
	else
		address(&first, way->path == TO_GUEST ? second_guest : far_end, first_guest);
	open_window(sum);
	switch (way->path) {
	case TO_WIRE:
		sent += frames;
		vm_start(&first, way->work, frames, length);
		break;
	case FROM_WIRE:
		vm_start(&first, RECEIVE, frames, length);
		usleep(READY);
		card_release();
		break;
	case TO_GUEST:
		vm_start(&second, RECEIVE, frames, length);
		usleep(READY);
		vm_start(&first, way->work, frames, length);
		vm_wait(&second);
		break;
	}
	vm_wait(&first);
	usleep(SETTLE);
	close_window(sum);
}

static void observe_quiet(uint32_t microseconds, struct reading *sum)
{
	for (int window = 0; window < QUIET_WINDOWS; window++) {
		open_window(sum);
		usleep(microseconds);
		close_window(sum);
	}
}

/* The part of the time in which the machine is busy with nothing, in millionths: what longer windows have more of. */
static int64_t quiet_share(void)
{
	struct reading brief = { 0 }, lengthy = { 0 };

	observe_quiet(SETTLE, &brief);
	observe_quiet(QUIET, &lengthy);
	int64_t ticks = lengthy.ticks - brief.ticks, idle = lengthy.idle - brief.idle;
	return (ticks - idle) * 1000000 / ticks;
}

static int64_t busy(const struct reading *sum, int64_t share)
{
	return sum->ticks - sum->idle - sum->ticks * share / 1000000;
}

/* There must not be frames but those that were sent. */
static void check_frames(void)
{
	uint32_t wrong = first.shared->wrong + second.shared->wrong;

	if (wrong) {
		printf("failed: %u frames with another length\n", wrong);
		power_off();
	}
}

static void measure(const struct way *way, uint32_t length, int64_t share)
{
	struct reading with = { 0 }, without = { 0 }, warm_up = { 0 };

	observe(way, way->frames, length, &warm_up);
	observe(way, 0, length, &warm_up);
	check_frames();
	for (uint32_t window = 0; window < way->windows; window++) {
		observe(way, way->frames, length, &with);
		observe(way, 0, length, &without);
	}
	printf("net %s length=%u frames=%u ticks=%" PRId64 " exits=%" PRId64 " interrupts=%" PRId64
	       " card_interrupts=%" PRId64 "\n",
	       way->name, length, way->frames * way->windows, busy(&with, share) - busy(&without, share),
	       with.exits - without.exits, with.interrupts - without.interrupts,
	       with.card_interrupts - without.card_interrupts);
}

/* Each sends a frame, by which the bridge learns where everybody is. It gives the first one to both guests. */
static void meet(void)
{
	collect(1, 64);
	vm_start(&first, RECEIVE, 1, 64);
	vm_start(&second, RECEIVE, 1, 64);
	usleep(READY);
	card_release();
	vm_wait(&first);
	vm_wait(&second);
	address(&first, far_end, first_guest);
	vm_start(&first, SEND_TOGETHER, 1, 64);
	vm_wait(&first);
	address(&second, far_end, second_guest);
	vm_start(&second, SEND_TOGETHER, 1, 64);
	vm_wait(&second);
	sent += 2;
	check_frames();
}

static void mount_all(void)
{
	check(mount("proc", "/proc", "proc", 0, ""), "/proc");
	check(mount("sys", "/sys", "sysfs", 0, ""), "/sys");
	check(mount("debug", "/sys/kernel/debug", "debugfs", 0, ""), "/sys/kernel/debug");
}

int main(void)
{
	pthread_t spinner;

	setlinebuf(stdout);
	mount_all();
	load_modules();
	/* KVM's poll for wake-ups would be taken for work. */
	write_text("/sys/module/kvm/parameters/halt_poll_ns", "0");
	network_make(card);
	int kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm_make(&first, kvm, network_tap("tap1"));
	vm_make(&second, kvm, network_tap("tap2"));
	if (pthread_create(&spinner, NULL, spin, NULL))
		fail("idle thread");

	meet();
	int64_t share = quiet_share();
	for (size_t length = 0; length < sizeof lengths / sizeof *lengths; length++)
		for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
			measure(&ways[way], lengths[length], share);
	printf("end sent=%u\n", sent);
	power_off();
}
