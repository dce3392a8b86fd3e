/* System calls that write below one folder, counted; the k-th of them is disturbed.
 *
 * Preloaded (LD_PRELOAD) into a process and inherited by those that it starts. SAMT_FAULT_STATE
 * names a file that all of them map: how many calls there were, and which. SAMT_FAULT_FOLDER is the
 * folder, SAMT_FAULT_MODE what happens at call number SAMT_FAULT_AT (from 1), SAMT_FAULT_VALUE the
 * errno, or the seconds by which the clock jumps.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 8192, NAME = 120, HANDLES = 4096 };
struct state { long count; char names[MOST][NAME]; };

static struct state *state;
static char folder[4096], mode[16];
static size_t length;
static long at, value;
static unsigned char ours[HANDLES]; /* 1: opened below the folder, 2: for writing */

void fault_arm(void)
{
    const char *path = getenv("SAMT_FAULT_STATE"), *below = getenv("SAMT_FAULT_FOLDER");
    if (!path || !below)
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR);
    void *mapped = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (mapped == MAP_FAILED)
        _exit(99);
    length = strlen(strncpy(folder, below, sizeof folder - 1));
    strncpy(mode, getenv("SAMT_FAULT_MODE"), sizeof mode - 1);
    at = atol(getenv("SAMT_FAULT_AT"));
    value = atol(getenv("SAMT_FAULT_VALUE"));
    state = mapped;
}

__attribute__((constructor)) static void start(void) { fault_arm(); }

static int is_mode(const char *name) { return strcmp(mode, name) == 0; }

static int below(const char *path)
{
    return state && path && strncmp(path, folder, length) == 0
        && (path[length] == '/' || path[length] == 0);
}

/* Count a call. Returns -1 if it must fail, 0 if not; 1 if the process must die behind it, 2 if only
 * a part is to be written. `frees` is whether it needs no room on the disk. */
static int enter(const char *name, const char *detail, int frees)
{
    long number = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    if (number <= MOST) {
        char *line = state->names[number - 1];
        size_t used = strlen(strncpy(line, name, NAME - 2));
        line[used] = ' ';
        strncpy(line + used + 1, detail ? detail + length : "", NAME - used - 2);
    }
    if (number < at || at == 0)
        return 0;
    errno = value;
    if (is_mode("dead") || (is_mode("full") && !frees))
        return -1;
    if (number > at)
        return 0;
    if (is_mode("before"))
        kill(getpid(), SIGKILL);
    if (is_mode("fail"))
        return -1;
    return is_mode("after") ? 1 : is_mode("short") ? 2 : 0;
}

static long leave(int entered, long result)
{
    if (entered == 1)
        kill(getpid(), SIGKILL);
    return result;
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int opened(int fd, const char *path, int writes)
{
    if (fd >= 0 && fd < HANDLES)
        ours[fd] = below(path) ? 1 + writes : 0;
    return fd;
}

#define OPEN(name, ARGUMENTS, PASSED) \
    int name ARGUMENTS \
    { \
        NEXT(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t rights = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        int writes = (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0; \
        int entered = writes && below(path) ? enter("open", path, 0) : 0; \
        if (entered < 0) \
            return -1; \
        return leave(entered, opened(next PASSED, path, writes)); \
    }
OPEN(open, (const char *path, int flags, ...), (path, flags, rights))
OPEN(open64, (const char *path, int flags, ...), (path, flags, rights))
OPEN(openat, (int at_fd, const char *path, int flags, ...), (at_fd, path, flags, rights))
OPEN(openat64, (int at_fd, const char *path, int flags, ...), (at_fd, path, flags, rights))

#define ON_HANDLE(type, name, least, frees, ARGUMENTS, PASSED) \
    type name ARGUMENTS \
    { \
        NEXT(name); \
        int mine = state && fd >= 0 && fd < HANDLES && ours[fd] >= least; \
        int entered = mine ? enter(#name, NULL, frees) : 0; \
        if (entered < 0) \
            return -1; \
        return leave(entered, next PASSED); \
    }
ON_HANDLE(int, fsync, 1, 0, (int fd), (fd))
ON_HANDLE(int, fdatasync, 1, 0, (int fd), (fd))
ON_HANDLE(int, ftruncate, 1, 1, (int fd, off_t size), (fd, size))
ON_HANDLE(int, ftruncate64, 1, 1, (int fd, off64_t size), (fd, size))
ON_HANDLE(ssize_t, writev, 1, 0, (int fd, const struct iovec *v, int n), (fd, v, n))

#define WRITES(name, ARGUMENTS, PASSED) \
    ssize_t name ARGUMENTS \
    { \
        NEXT(name); \
        int mine = state && fd >= 0 && fd < HANDLES && ours[fd]; \
        int entered = mine ? enter(#name, NULL, 0) : 0; \
        if (entered < 0) \
            return -1; \
        if (entered == 2 && size > 1) \
            size /= 2; \
        return leave(entered, next PASSED); \
    }
WRITES(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset))

int close(int fd)
{
    NEXT(close);
    int mine = state && fd >= 0 && fd < HANDLES && ours[fd] == 2;
    int entered = mine ? enter("close", NULL, 1) : 0;
    int error = errno;
    if (fd >= 0 && fd < HANDLES)
        ours[fd] = 0;
    int result = next(fd); /* an error of close does not keep the handle open */
    if (entered < 0) {
        errno = error;
        return -1;
    }
    return leave(entered, result);
}

#define ON_PATH(name, frees, ARGUMENTS, PASSED) \
    int name ARGUMENTS \
    { \
        NEXT(name); \
        int entered = below(path) ? enter(#name, path, frees) : 0; \
        if (entered < 0) \
            return -1; \
        return leave(entered, next PASSED); \
    }
ON_PATH(rename, 1, (const char *from, const char *path), (from, path))
ON_PATH(renameat, 1, (int a, const char *from, int b, const char *path), (a, from, b, path))
ON_PATH(renameat2, 1, (int a, const char *from, int b, const char *path, unsigned int how),
        (a, from, b, path, how))
ON_PATH(link, 0, (const char *from, const char *path), (from, path))
ON_PATH(linkat, 0, (int a, const char *from, int b, const char *path, int how),
        (a, from, b, path, how))
ON_PATH(symlink, 0, (const char *from, const char *path), (from, path))
ON_PATH(unlink, 1, (const char *path), (path))
ON_PATH(unlinkat, 1, (int a, const char *path, int how), (a, path, how))
ON_PATH(rmdir, 1, (const char *path), (path))
ON_PATH(mkdir, 0, (const char *path, mode_t rights), (path, rights))
ON_PATH(mkdirat, 0, (int a, const char *path, mode_t rights), (a, path, rights))
ON_PATH(truncate, 1, (const char *path, off_t size), (path, size))

static long jump(void)
{
    return state && is_mode("clock") && __atomic_load_n(&state->count, __ATOMIC_SEQ_CST) >= at
        ? value : 0;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    NEXT(clock_gettime);
    int result = next(which, now);
    if (which == CLOCK_REALTIME)
        now->tv_sec += jump();
    return result;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
