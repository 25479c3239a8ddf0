/* Another time for a program that was linked with the C library, by LD_PRELOAD:
 *
 *     cc -shared -fPIC -o clock.so clock.c
 *     WALL_SHIFT=-86400 LD_PRELOAD=./clock.so hbd run
 *
 * WALL_SHIFT and BOOT_SHIFT are seconds that are added to CLOCK_REALTIME and CLOCK_BOOTTIME;
 * BOOT_ID is a file to read in place of the kernel's boot id. Seconds that begin with @ are the name of
 * a file that they are read from each time: a clock that is set while the program runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static time_t shift_of(const char *name)
{
    char text[32] = "";
    const char *seconds = getenv(name);
    if (seconds && *seconds == '@') {
        int file = open(seconds + 1, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            ssize_t length = read(file, text, sizeof text - 1);
            text[length > 0 ? length : 0] = 0;
            close(file);
        }
        seconds = text;
    }
    return seconds ? (time_t)strtoll(seconds, NULL, 10) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME)
        time->tv_sec += shift_of("WALL_SHIFT");
    if (result == 0 && clock == CLOCK_BOOTTIME)
        time->tv_sec += shift_of("BOOT_SHIFT");
    return result;
}

int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    if (!real)
        real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    const char *other = getenv("BOOT_ID");
    if (other && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
        path = other;
    return real(path, flags, mode);
}
