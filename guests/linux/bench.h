/*
 * What the programs have in common that are the /init of a measurement: no return from errors, modules, power-off.
 */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline void power_off(void)
{
	fflush(stdout);
	usleep(200000); /* for the serial line to drain */
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static inline void fail(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	power_off();
}

static inline int check(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static inline void write_text(const char *file, const char *text)
{
	int fd = check(open(file, O_WRONLY | O_CLOEXEC), file);

	check((int)write(fd, text, strlen(text)), file);
	close(fd);
}

/* Loads the modules of the initial file system, in the order that its list gives. */
static inline void load_modules(void)
{
	char line[128], file[160];
	FILE *order = fopen("/modules/order", "re");

	if (!order)
		fail("/modules/order");
	while (fgets(line, sizeof line, order)) {
		line[strcspn(line, "\n")] = 0;
		snprintf(file, sizeof file, "/modules/%s", line);
		int fd = check(open(file, O_RDONLY | O_CLOEXEC), file);
		check((int)syscall(SYS_finit_module, fd, "", 0), file);
		close(fd);
	}
	fclose(order);
}

#endif
