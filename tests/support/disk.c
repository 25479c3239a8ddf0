/* A disk that hangs or fails under a program that was linked with the C library, by LD_PRELOAD:
 *
 *     cc -shared -fPIC -o disk.so disk.c
 *     DISK=/tmp/disk LD_PRELOAD=./disk.so hbd run
 *
 * While the file that DISK names exists, its text says what the state's files (their names contain
 * "heartbeat.redb" or "hbd.lock") meet with: "sync" hangs fsync and fdatasync, "write" hangs what
 * writes and those, "all" hangs reads and opens as well; "EIO", "EROFS" and "ENODEV" make writes and
 * syncs fail. A call that hangs goes on when the file is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { SYNC = 1, WRITE = 2, READ = 3 };

/* By system calls: the functions here stand in for those of the C library. */
static int now(char *text, size_t size)
{
    const char *flag = getenv("DISK");
    int fd = flag ? (int)syscall(SYS_openat, AT_FDCWD, flag, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t length = syscall(SYS_read, fd, text, size - 1);
    syscall(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    return 1;
}

static int is_state(const char *path)
{
    return strstr(path, "heartbeat.redb") || strstr(path, "hbd.lock");
}

static int is_state_file(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return is_state(path);
}

/* 0, or the error that the call ends with. */
static int meet(int what)
{
    char text[16];
    while (now(text, sizeof text)) {
        int hangs = (!strcmp(text, "sync") && what == SYNC)
            || (!strcmp(text, "write") && what <= WRITE) || !strcmp(text, "all");
        if (what <= WRITE && !strcmp(text, "EIO"))
            return EIO;
        if (what <= WRITE && !strcmp(text, "EROFS"))
            return EROFS;
        if (what <= WRITE && !strcmp(text, "ENODEV"))
            return ENODEV;
        if (!hangs)
            return 0;
        struct timespec nap = {0, 5000000};
        syscall(SYS_nanosleep, &nap, NULL);
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MEET(fd, what)                                 \
    int error = is_state_file(fd) ? meet(what) : 0;    \
    if (error) {                                       \
        errno = error;                                 \
        return -1;                                     \
    }

int fsync(int fd)
{
    MEET(fd, SYNC)
    return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    MEET(fd, SYNC)
    return REAL(fdatasync)(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    MEET(fd, WRITE)
    return REAL(pwrite64)(fd, bytes, count, offset);
}

int ftruncate64(int fd, off64_t length)
{
    MEET(fd, WRITE)
    return REAL(ftruncate64)(fd, length);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset)
{
    MEET(fd, READ)
    return REAL(pread64)(fd, bytes, count, offset);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    int error = is_state(path) ? meet(READ) : 0;
    if (error) {
        errno = error;
        return -1;
    }
    return REAL(open64)(path, flags, mode);
}
