/* Records what a program does to the files of a directory, by LD_PRELOAD:
 *
 *     cc -shared -fPIC -o writes.so writes.c
 *     WRITES_OF=/var/lib/hbd WRITES_TO=/tmp/trace LD_PRELOAD=./writes.so hbd run
 *
 * Each record is a letter, the inode, an offset, the length of what follows, and that: W bytes that were
 * written, T the file was cut or grown to the offset, F before a sync and S after it (of the directory,
 * too), N the name that a file was opened by, R two names of a rename with a zero between, U a name that
 * was removed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* What comes behind the directory in a path: a name, or nothing; NULL where it is elsewhere. */
static const char *name_of(const char *path)
{
    const char *directory = getenv("WRITES_OF");
    size_t length = directory ? strlen(directory) : 0;
    if (!directory || strncmp(path, directory, length) != 0)
        return NULL;
    if (path[length] == 0)
        return path + length;
    return path[length] == '/' ? path + length + 1 : NULL;
}

/* The inode of an open file that is recorded, or 0. */
static uint64_t inode_of(int file)
{
    char link[64], path[PATH_MAX];
    struct stat status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return name_of(path) && fstat(file, &status) == 0 ? status.st_ino : 0;
}

static void record(char kind, uint64_t inode, uint64_t offset, const void *bytes, uint64_t count)
{
    static int trace = -1;
    if (trace < 0)
        trace = open(getenv("WRITES_TO"), O_WRONLY | O_APPEND | O_CLOEXEC);
    char head[25] = {kind};
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &count, 8);
    struct iovec parts[] = {{head, sizeof head}, {(void *)bytes, count}};
    /* In one call: others append, too. */
    if (writev(trace, parts, 2) != (ssize_t)(sizeof head + count))
        abort();
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    ssize_t result = real(file, bytes, count, offset);
    uint64_t inode = result > 0 ? inode_of(file) : 0;
    if (inode)
        record('W', inode, offset, bytes, result);
    return result;
}

ssize_t write(int file, const void *bytes, size_t count)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    ssize_t result = real(file, bytes, count);
    uint64_t inode = result > 0 ? inode_of(file) : 0;
    if (inode)
        record('W', inode, lseek(file, 0, SEEK_CUR) - result, bytes, result);
    return result;
}

int ftruncate64(int file, off64_t length)
{
    REAL(int, "ftruncate64", int, off64_t);
    int result = real(file, length);
    uint64_t inode = result == 0 ? inode_of(file) : 0;
    if (inode)
        record('T', inode, length, NULL, 0);
    return result;
}

static int sync_by(int (*real)(int), int file)
{
    uint64_t inode = inode_of(file);
    if (inode)
        record('F', inode, 0, NULL, 0);
    int result = real(file);
    if (inode && result == 0)
        record('S', inode, 0, NULL, 0);
    return result;
}

int fsync(int file)
{
    REAL(int, "fsync", int);
    return sync_by(real, file);
}

int fdatasync(int file)
{
    REAL(int, "fdatasync", int);
    return sync_by(real, file);
}

int open64(const char *path, int flags, ...)
{
    REAL(int, "open64", const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    int file = real(path, flags, mode);
    const char *name = name_of(path);
    if (file >= 0 && name && *name && (flags & O_CREAT)) {
        record('N', inode_of(file), 0, name, strlen(name));
        if (flags & O_TRUNC)
            record('T', inode_of(file), 0, NULL, 0);
    }
    return file;
}

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    int result = real(from, to);
    if (result == 0 && name_of(from) && name_of(to)) {
        char names[2 * NAME_MAX + 2];
        int length = snprintf(names, sizeof names, "%s%c%s", name_of(from), 0, name_of(to));
        record('R', 0, 0, names, length);
    }
    return result;
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    int result = real(path);
    if (result == 0 && name_of(path))
        record('U', 0, 0, name_of(path), strlen(name_of(path)));
    return result;
}
