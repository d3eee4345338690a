/*
 * Stand between a process and its disk: write down what it does to files below a folder, let calls fail, or kill the
 * process at one of them. Built by `torture/shim.py`, loaded with LD_PRELOAD.
 *
 *   DISK_BELOW   the folder; files elsewhere are left alone
 *   DISK_LOG     where to append the record: a line "operation TAB path TAB other path TAB offset TAB length", then
 *                as many bytes of data, then a newline. Paths are absolute.
 *   DISK_FAULT   "operation:needle:nth:errno:many": the nth call of this kind (write, sync, rename, create, truncate,
 *                unlink, mkdir, or "any" of them) on a path that has this text in it, or that it matches where it has
 *                a "*", fails, and the next ones, `many` in all (0: all). A disk that gets full takes half of what the
 *                first of these writes has
 *   DISK_STRUCK  where to append a line "seconds since the epoch TAB operation TAB path" for each call that failed
 *   DISK_SLOW    "needle:milliseconds": how much longer a sync takes of a path that has this text in it
 *   DISK_KILL    "nth:where": SIGKILL at the nth call that changes anything, `before` it, `after` it, or `torn`, with
 *                half of a write done
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[FDS];
static char below[PATH_MAX];
static int log_fd = -1, struck_fd = -1;
static char fault_op[16], fault_needle[256], kill_where[16], slow_needle[256];
static long fault_nth, fault_many, fault_seen, kill_nth, calls, slow_ms;
static int fault_errno, is_half, is_halved;
static volatile int ready;

#define REAL(type, name, ...) \
    static type (*real_##name)(__VA_ARGS__); \
    if (real_##name == NULL) real_##name = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void prepare(void)
{
    REAL(int, open64, const char *, int, ...);
    const char *text = getenv("DISK_BELOW");
    if (text == NULL) return;
    snprintf(below, sizeof below, "%s", text);
    if ((text = getenv("DISK_LOG")) != NULL)
        log_fd = real_open64(text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if ((text = getenv("DISK_STRUCK")) != NULL)
        struck_fd = real_open64(text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if ((text = getenv("DISK_SLOW")) != NULL) sscanf(text, "%255[^:]:%ld", slow_needle, &slow_ms);
    if ((text = getenv("DISK_FAULT")) != NULL)
        sscanf(text, "%15[^:]:%255[^:]:%ld:%d:%ld", fault_op, fault_needle, &fault_nth, &fault_errno, &fault_many);
    if ((text = getenv("DISK_KILL")) != NULL) sscanf(text, "%ld:%15s", &kill_nth, kill_where);
    ready = 1;
}

/* The absolute path of a name, where it is below the folder; NULL where it is not. Not resolved: no link leads in. */
static char *inside(int folder, const char *name, char *into)
{
    if (!ready || name == NULL) return NULL;
    if (name[0] == '/') {
        snprintf(into, PATH_MAX, "%s", name);
    } else if (folder != AT_FDCWD) {
        if (folder < 0 || folder >= FDS || names[folder] == NULL) return NULL;
        snprintf(into, PATH_MAX, "%s/%s", names[folder], name);
    } else {
        char here[PATH_MAX / 2];
        if (getcwd(here, sizeof here) == NULL) return NULL;
        snprintf(into, PATH_MAX, "%s/%s", here, name);
    }
    size_t length = strlen(below);
    return strncmp(into, below, length) == 0 && (into[length] == '/' || into[length] == 0) ? into : NULL;
}

static char *path_of(int fd) { return ready && fd >= 0 && fd < FDS ? names[fd] : NULL; }

static void note(const char *op, const char *path, const char *other, long long offset, const void *data, size_t length)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (log_fd < 0) return;
    char head[2 * PATH_MAX + 80];
    int size = snprintf(head, sizeof head, "%s\t%s\t%s\t%lld\t%zu\n", op, path, other ? other : "", offset, length);
    struct iovec parts[3] = {{head, size}, {(void *)data, length}, {"\n", 1}};
    if (real_writev(log_fd, parts, 3) < 0) _exit(97);
}

static void end(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int matches(const char *path, const char *needle)
{
    return strchr(needle, '*') ? fnmatch(needle, path, 0) == 0 : strstr(path, needle) != NULL;
}

static void struck(const char *op, const char *path)
{
    REAL(ssize_t, write, int, const void *, size_t);
    char line[PATH_MAX + 80];
    struct timespec now;
    if (struck_fd < 0) return;
    clock_gettime(CLOCK_REALTIME, &now);
    int size = snprintf(line, sizeof line, "%lld.%06ld\t%s\t%s\n", (long long)now.tv_sec, now.tv_nsec / 1000, op, path);
    if (real_write(struck_fd, line, size) < 0) _exit(97);
}

/* Called with the lock held, before a call that changes something: whether it is to fail, or the end is here. */
static int refused(const char *op, const char *path)
{
    calls++;
    is_half = 0;
    if (kill_nth == calls && strcmp(kill_where, "before") == 0) end();
    if (fault_op[0] == 0 || (strcmp(op, fault_op) != 0 && strcmp(fault_op, "any") != 0)) return 0;
    if (!matches(path, fault_needle)) return 0;
    fault_seen++;
    if (fault_seen < fault_nth || (fault_many && fault_seen >= fault_nth + fault_many)) return 0;
    if (fault_errno == ENOSPC && fault_seen == fault_nth && strcmp(op, "write") == 0 && !is_halved) {
        is_half = is_halved = 1;
        fault_seen--;
        return 0;
    }
    struck(op, path);
    errno = fault_errno;
    return 1;
}

static void done(void)
{
    if (kill_nth == calls && strcmp(kill_where, "before") != 0) end();
}

static int opened(int fd, char *path)
{
    if (fd >= 0 && fd < FDS && path != NULL) {
        free(names[fd]);
        names[fd] = strdup(path);
    }
    return fd;
}

static int opening(int folder, const char *name, int flags, mode_t mode)
{
    REAL(int, openat64, int, const char *, int, ...);
    char space[PATH_MAX], *path = inside(folder, name, space);
    if (path == NULL) return real_openat64(folder, name, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat found;
    int makes = (flags & O_CREAT) && lstat(path, &found) != 0;
    int empties = !makes && (flags & O_TRUNC);
    int fd = -1;
    if (!(makes || empties) || !refused(makes ? "create" : "truncate", path)) {
        fd = real_openat64(folder, name, flags, mode);
        if (fd >= 0 && makes) note("create", path, NULL, mode, NULL, 0);
        if (fd >= 0 && empties) note("truncate", path, NULL, 0, NULL, 0);
        if (makes || empties) done();
    }
    opened(fd, path);
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        return opening(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        return opening(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd)
{
    REAL(int, close, int);
    if (fd >= 0 && fd < FDS && names[fd] != NULL) {
        pthread_mutex_lock(&lock);
        free(names[fd]);
        names[fd] = NULL;
        int result = real_close(fd);
        pthread_mutex_unlock(&lock);
        return result;
    }
    return real_close(fd);
}

/* offset -1: where the file stands, or its end in append mode. */
static ssize_t writing(int fd, const void *data, size_t length, off64_t offset)
{
    REAL(ssize_t, write, int, const void *, size_t);
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    char *path = path_of(fd);
    if (path == NULL) return offset < 0 ? real_write(fd, data, length) : real_pwrite64(fd, data, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t result = -1;
    if (!refused("write", path)) {
        off64_t at = offset;
        if (at < 0) {
            int flags = fcntl(fd, F_GETFL);
            struct stat64 found;
            at = flags & O_APPEND ? (fstat64(fd, &found), found.st_size) : lseek64(fd, 0, SEEK_CUR);
        }
        if (is_half || (kill_nth == calls && strcmp(kill_where, "torn") == 0)) length = length > 1 ? length / 2 : length;
        result = offset < 0 ? real_write(fd, data, length) : real_pwrite64(fd, data, length, offset);
        if (result >= 0) note("write", path, NULL, at, data, result);
        done();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t length) { return writing(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return writing(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return writing(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (path_of(fd) == NULL) return real_writev(fd, parts, count);
    ssize_t total = 0;
    for (int number = 0; number < count; number++) {
        ssize_t part = writing(fd, parts[number].iov_base, parts[number].iov_len, -1);
        if (part < 0) return total ? total : -1;
        total += part;
        if ((size_t)part < parts[number].iov_len) break;
    }
    return total;
}

#define ON_FD(name, op, ...) \
    int name(int fd __VA_OPT__(, off64_t size)) \
    { \
        REAL(int, name, int __VA_OPT__(, off64_t)); \
        char *path = path_of(fd); \
        if (path == NULL) return real_##name(fd __VA_OPT__(, size)); \
        if (slow_ms && strcmp(op, "sync") == 0 && matches(path, slow_needle)) usleep(slow_ms * 1000); \
        pthread_mutex_lock(&lock); \
        int result = -1; \
        if (!refused(op, path)) { \
            result = real_##name(fd __VA_OPT__(, size)); \
            if (result == 0) note(op, path, NULL, 0 __VA_OPT__(+ size), NULL, 0); \
            done(); \
        } \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
ON_FD(fsync, "sync")
ON_FD(fdatasync, "sync")
ON_FD(ftruncate, "truncate", size)
ON_FD(ftruncate64, "truncate", size)

/* One or two names, as the "at" calls have them. */
#define NAMED(op, from_folder, from, to_folder, to, call) \
    char one_space[PATH_MAX], two_space[PATH_MAX]; \
    char *one = inside(from_folder, from, one_space), *two = inside(to_folder, to, two_space); \
    char *path = two ? two : one; \
    if (path == NULL) return call; \
    pthread_mutex_lock(&lock); \
    int result = -1; \
    if (!refused(op, path)) { \
        result = call; \
        if (result == 0) note(op, one ? one : from, two, 0, NULL, 0); \
        done(); \
    } \
    pthread_mutex_unlock(&lock); \
    return result

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    NAMED("rename", AT_FDCWD, from, AT_FDCWD, to, real_rename(from, to));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    NAMED("rename", from_folder, from, to_folder, to, real_renameat(from_folder, from, to_folder, to));
}

int unlink(const char *name)
{
    REAL(int, unlink, const char *);
    NAMED("unlink", AT_FDCWD, name, AT_FDCWD, NULL, real_unlink(name));
}

int unlinkat(int folder, const char *name, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    NAMED("unlink", folder, name, AT_FDCWD, NULL, real_unlinkat(folder, name, flags));
}

int mkdir(const char *name, mode_t mode)
{
    REAL(int, mkdir, const char *, mode_t);
    NAMED("mkdir", AT_FDCWD, name, AT_FDCWD, NULL, real_mkdir(name, mode));
}

/* A link's text is its first name, as it was given. */
int symlink(const char *text, const char *name)
{
    REAL(int, symlink, const char *, const char *);
    char space[PATH_MAX], *path = inside(AT_FDCWD, name, space);
    if (path == NULL) return real_symlink(text, name);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!refused("create", path)) {
        result = real_symlink(text, name);
        if (result == 0) note("symlink", path, text, 0, NULL, 0);
        done();
    }
    pthread_mutex_unlock(&lock);
    return result;
}
