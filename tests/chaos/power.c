/*
 * Notes what a loss of power would undo below $POWER_ROOT: preloaded into a daemon, read by power.rs.
 *
 *   w FILE        written from here on; its contents last after s
 *   s FILE        synced
 *   r FROM\tTO    renamed; the new name lasts after d of its directory
 *   d DIRECTORY   synced
 *
 * Each line is one write to $POWER_LOG. What is told too late makes the harness undo what lasts, which no program can
 * tell from a loss a moment earlier. Must not know: trackd.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_ours(const char *path)
{
	const char *root = getenv("POWER_ROOT");
	return root && path && strncmp(path, root, strlen(root)) == 0;
}

static void note(char what, const char *one, const char *other)
{
	static int file = -1;
	char line[9000];
	int length = snprintf(line, sizeof line, "%c %s%s%s\n", what, one, other ? "\t" : "", other ? other : "");
	if (file < 0)
		file = REAL(open64)(getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (length >= (int)sizeof line || write(file, line, (size_t)length) != length)
		abort();
}

int open64(const char *path, int flags, ...)
{
	mode_t mode = 0;
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_list rest;
		va_start(rest, flags);
		mode = va_arg(rest, mode_t);
		va_end(rest);
	}
	if ((flags & O_ACCMODE) != O_RDONLY && is_ours(path))
		note('w', path, NULL);
	return REAL(open64)(path, flags, mode);
}

int fsync(int file)
{
	char link[64], path[4096];
	struct stat about;
	int done = REAL(fsync)(file);
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (done != 0 || length < 0 || fstat(file, &about) != 0)
		return done;
	path[length] = 0;
	if (is_ours(path))
		note(S_ISDIR(about.st_mode) ? 'd' : 's', path, NULL);
	return done;
}

int fdatasync(int file)
{
	return fsync(file);
}

int rename(const char *from, const char *to)
{
	int done = REAL(rename)(from, to);
	if (done == 0 && is_ours(to))
		note('r', from, to);
	return done;
}
