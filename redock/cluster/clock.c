/*
 * A wall clock that can be wrong, for all programs of a node: listed in
 * /etc/ld.so.preload, so that ld.so(8) puts it in front of the C library.
 *
 * REDOCK_CLOCK names a file that holds a signed number of nanoseconds in the
 * byte order of the machine. It is mapped once by each process and added to
 * what the kernel says about CLOCK_REALTIME; writing the file in place changes
 * the clock of processes that run. All other clocks are the kernel's.
 *
 * What programs do before and while they start is done with this: it allocates
 * nothing, locks nothing, looks up no symbol, and leaves errno alone. Calls of
 * the kernel are made directly, because the functions of the C library for them
 * are the ones that are replaced here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef __LP64__
#error "the clock of a node needs a 64 bit machine"
#endif

#define BILLION 1000000000LL

static const volatile long long nothing;
static const volatile long long *offset;

__attribute__((constructor)) static void map_offset(void)
{
    int before = errno;
    void *page = MAP_FAILED;
    long file;

    if (offset)
        return;
    file = syscall(SYS_openat, AT_FDCWD, REDOCK_CLOCK, O_RDONLY | O_CLOEXEC, 0);
    if (file >= 0) {
        page = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, (int)file, 0);
        syscall(SYS_close, file);
    }
    offset = page == MAP_FAILED ? &nothing : page;
    errno = before;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, clock, now);

    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long by, nanoseconds;

        /* Constructors of other libraries may be run before ours. */
        if (!offset)
            map_offset();
        by = *offset;
        now->tv_sec += by / BILLION;
        nanoseconds = now->tv_nsec + by % BILLION;
        if (nanoseconds < 0) {
            nanoseconds += BILLION;
            now->tv_sec--;
        } else if (nanoseconds >= BILLION) {
            nanoseconds -= BILLION;
            now->tv_sec++;
        }
        now->tv_nsec = nanoseconds;
    }
    return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;

    if (zone) {
        struct timezone *none = zone;
        none->tz_minuteswest = none->tz_dsttime = 0;
    }
    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec precise;

    if (clock_gettime(CLOCK_REALTIME, &precise))
        return -1;
    if (now)
        *now = precise.tv_sec;
    return precise.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
