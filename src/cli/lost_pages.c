#include "lost_pages.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "dsa/status.h"

/* The system says it by SIGBUS at the page that is missing. Only what a signal handler may do happens here: reading the
 * list of mappings to learn the file's name, and writing a line. */

enum { LINE = 4352, PATH_COLUMN = 5 };

static void say(const char *text)
{
	(void)!write(STDERR_FILENO, text, strlen(text));
}

static uintptr_t hexadecimal(const char **text)
{
	uintptr_t value = 0;
	for (;; (*text)++) {
		const char c = **text;
		if (c >= '0' && c <= '9')
			value = value << 4 | (uintptr_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uintptr_t)(c - 'a' + 10);
		else
			return value;
	}
}

/* "begin-end flags offset device inode   path": the path if the address lies between, else NULL. */
static const char *path_of(const char *line, uintptr_t address)
{
	const uintptr_t begin = hexadecimal(&line);
	if (*line++ != '-' || address < begin || address >= hexadecimal(&line))
		return NULL;
	for (int column = 1; column <= PATH_COLUMN - 1; column++) {
		line += strspn(line, " ");
		line += strcspn(line, " ");
	}
	line += strspn(line, " ");
	return *line == '/' ? line : NULL;
}

/* Says the path of the mapped file around the address; false: there is none. */
static bool say_path(uintptr_t address)
{
	char line[LINE];
	size_t used = 0;
	ssize_t got;
	const char *path = NULL;
	const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (!path && (got = read(fd, line + used, sizeof line - 1 - used)) > 0) {
		used += (size_t)got;
		line[used] = 0;
		char *end;
		while (!path && (end = strchr(line, '\n'))) {
			*end = 0;
			path = path_of(line, address);
			if (path)
				say(path);
			used -= (size_t)(end + 1 - line);
			memmove(line, end + 1, used + 1);
		}
		if (used == sizeof line - 1)
			used = 0; /* no path is as long */
	}
	close(fd);
	return path;
}

static void on_lost_page(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	say("dsacal: ");
	if (!say_path((uintptr_t)info->si_addr))
		say("a mapped file");
	say(": cut short while it was read, or its disk failed: a page that was there is gone; wait until nothing "
	    "writes "
	    "to it, see that it is whole, and run again: with --resume a run goes on where it was\n");
	_exit(dsa_status_exit(DSA_E_IO));
}

void dsa_cli_watch_lost_pages(void)
{
	struct sigaction action = {.sa_sigaction = on_lost_page, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND};
	sigemptyset(&action.sa_mask);
	(void)sigaction(SIGBUS, &action, NULL);
}
