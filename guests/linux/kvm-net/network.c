#include "network.h"
#include "shared.h"
#include "../bench.h"

#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define CARD "eth0"
#define BRIDGE "bridge"
#define DEVICE "/sys/class/net/" CARD "/"

/*
 * Registers of the 82540EM, from which Linux's driver takes no notice of us (PCI/PCI-X Family of Gigabit Ethernet
 * Controllers Software Developer's Manual, 13.4). Its causes of interrupts are those that the driver wants.
 */
enum {
	REGISTERS = 0x20000,
	MASK_SET = 0xd0, MASK_CLEAR = 0xd8,
	RECEIVE_LENGTH = 0x2808, RECEIVE_HEAD = 0x2810,
	ALL_CAUSES = 0xffffffff, DRIVERS_CAUSES = 0x9d,
	DESCRIPTOR_BYTES = 16,
};

/* Steps of 10 ms within which a card must have a link, or frames must have come. */
enum { STEP = 10000, PATIENCE = 3000 };

static volatile uint32_t *registers;
static uint32_t head_when_held;
static int control;

static uint32_t card_read(uint32_t offset)
{
	return registers[offset / 4];
}

static void card_write(uint32_t offset, uint32_t value)
{
	registers[offset / 4] = value;
}

static void request(unsigned long what, struct ifreq *request, const char *name)
{
	strncpy(request->ifr_name, name, IFNAMSIZ - 1);
	check(ioctl(control, what, request), name);
}

static void bring_up(const char *name)
{
	struct ifreq flags = { .ifr_flags = IFF_UP };

	request(SIOCSIFFLAGS, &flags, name);
}

static void put_on_bridge(const char *name)
{
	struct ifreq port = { .ifr_ifindex = check((int)if_nametoindex(name), name) };

	request(SIOCBRADDIF, &port, BRIDGE);
	bring_up(name);
}

static void wait_for_link(void)
{
	for (int step = 0; step < PATIENCE; step++) {
		char link = 0;
		int fd = check(open(DEVICE "carrier", O_RDONLY | O_CLOEXEC), DEVICE "carrier");
		ssize_t length = read(fd, &link, 1);
		close(fd);
		if (length == 1 && link == '1')
			return;
		usleep(STEP);
	}
	errno = ETIMEDOUT;
	fail("the card's link");
}

void network_make(const uint8_t card[6])
{
	struct ifreq address = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };

	control = check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	memcpy(address.ifr_hwaddr.sa_data, card, 6);
	request(SIOCSIFHWADDR, &address, CARD);
	check(ioctl(control, SIOCBRADDBR, BRIDGE), BRIDGE);
	/* The bridge would tell everybody that it snoops. */
	write_text("/sys/class/net/" BRIDGE "/bridge/multicast_snooping", "0");
	put_on_bridge(CARD);
	bring_up(BRIDGE);
	wait_for_link();
	int fd = check(open(DEVICE "device/resource0", O_RDWR | O_CLOEXEC), DEVICE "device/resource0");
	registers = mmap(NULL, REGISTERS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (registers == MAP_FAILED)
		fail("the card's registers");
	close(fd);
}

int network_tap(const char *name)
{
	int header = HEADER;
	int tap = check(open("/dev/net/tun", O_RDWR | O_CLOEXEC), "/dev/net/tun");
	struct ifreq kind = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };

	strncpy(kind.ifr_name, name, IFNAMSIZ - 1);
	check(ioctl(tap, TUNSETIFF, &kind), "TUNSETIFF");
	check(ioctl(tap, TUNSETVNETHDRSZ, &header), "TUNSETVNETHDRSZ");
	put_on_bridge(name);
	return tap;
}

void card_hold(void)
{
	card_write(MASK_CLEAR, ALL_CAUSES);
	head_when_held = card_read(RECEIVE_HEAD);
}

void card_release(void)
{
	card_write(MASK_SET, DRIVERS_CAUSES);
}

void card_wait(uint32_t frames)
{
	uint32_t size = card_read(RECEIVE_LENGTH) / DESCRIPTOR_BYTES;

	for (int step = 0; step < PATIENCE; step++) {
		if ((card_read(RECEIVE_HEAD) - head_when_held + size) % size >= frames)
			return;
		usleep(STEP);
	}
	errno = ETIMEDOUT;
	fail("frames from the far end");
}

uint64_t card_interrupts(void)
{
	char line[256];
	uint64_t count = 0;
	FILE *file = fopen("/proc/interrupts", "re");

	if (!file)
		fail("/proc/interrupts");
	/* NUMBER: COUNT CHIP PIN NAME */
	while (fgets(line, sizeof line, file))
		if (strstr(line, CARD))
			count += strtoull(strchr(line, ':') + 1, NULL, 10);
	fclose(file);
	return count;
}
