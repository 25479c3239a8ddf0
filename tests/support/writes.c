/* Records what a program does to its store, by LD_PRELOAD:
 *
 *     cc -shared -fPIC -o writes.so writes.c
 *     WRITES_OF=heartbeat.redb WRITES_TO=/tmp/trace LD_PRELOAD=./writes.so hbd run
 *
 * Each record is a letter and two numbers of 8 bytes: W offset length, and the bytes, when they were
 * written; T length 0, when the file was cut or grown; F 0 0 before a sync, S 0 0 when it was done. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_recorded(int file)
{
    const char *name = getenv("WRITES_OF");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!name || length < (ssize_t)strlen(name))
        return 0;
    path[length] = 0;
    return strcmp(path + length - strlen(name), name) == 0;
}

static void record(char kind, uint64_t first, uint64_t second, const void *bytes, size_t count)
{
    static int trace = -1;
    if (trace < 0)
        trace = open(getenv("WRITES_TO"), O_WRONLY | O_APPEND | O_CLOEXEC);
    char head[17] = {kind};
    memcpy(head + 1, &first, 8);
    memcpy(head + 9, &second, 8);
    struct iovec parts[] = {{head, sizeof head}, {(void *)bytes, count}};
    /* In one call: others append, too. */
    if (writev(trace, parts, 2) != (ssize_t)(sizeof head + count))
        abort();
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    ssize_t result = real(file, bytes, count, offset);
    if (result > 0 && is_recorded(file))
        record('W', offset, result, bytes, result);
    return result;
}

int ftruncate64(int file, off64_t length)
{
    static int (*real)(int, off64_t);
    if (!real)
        real = (int (*)(int, off64_t))dlsym(RTLD_NEXT, "ftruncate64");
    int result = real(file, length);
    if (result == 0 && is_recorded(file))
        record('T', length, 0, NULL, 0);
    return result;
}

static int sync_by(const char *name, int file)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int recorded = is_recorded(file);
    if (recorded)
        record('F', 0, 0, NULL, 0);
    int result = real(file);
    if (recorded && result == 0)
        record('S', 0, 0, NULL, 0);
    return result;
}

int fsync(int file)
{
    return sync_by("fsync", file);
}

int fdatasync(int file)
{
    return sync_by("fdatasync", file);
}
