#define _GNU_SOURCE 1
#include "CLinux.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static int kept_above_standard(int descriptor) {
    return descriptor > 2 ? descriptor : fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
}

// What the child of tp_spawn_router does. It shares the parent's memory until execve, so it only makes system calls
// and leaves the errno of a failure where the parent finds it.
static void become_router(const struct tp_spawn *spawn, int socket, int error_pipe, const struct rlimit *limit,
                          pid_t parent, volatile int *failure) {
    // The worker signals the whole group, so what a router's shell starts goes with it; and Ctrl-C on the
    // terminal is the arbiter's to decide about.
    if (setpgid(0, 0) != 0) goto failed;
    // Nobody is left to end a router whose worker was killed, and one that does not read its socket never sees the
    // end of the stream. The parent may be gone before prctl: then the signal never comes.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) goto failed;
    if (getppid() != parent) _exit(127);

    // All of them, so the system call: sigaction(3) keeps 32 and 33 for the C library. SIG_DFL without flags or mask
    // is zeros on every machine. EINVAL for KILL and STOP.
    const unsigned long defaults[8] = {0};
    for (int number = 1; number < NSIG; number++) syscall(SYS_rt_sigaction, number, defaults, NULL, NSIG / 8);

    // A source that is itself 0, 1 or 2 would be overwritten before it is copied.
    socket = kept_above_standard(socket);
    error_pipe = kept_above_standard(error_pipe);
    if (socket < 0 || error_pipe < 0) goto failed;
    if (dup2(socket, 0) < 0 || dup2(socket, 1) < 0 || dup2(error_pipe, 2) < 0) goto failed;
    // Ours are close-on-exec anyway; this is for what the shell that started us left open.
    close_range(3, ~0U, 0);
    if (setrlimit(RLIMIT_NOFILE, limit) != 0) goto failed;

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(spawn->path, spawn->arguments, spawn->environment);
failed:
    *failure = errno;
    _exit(127);
}

int tp_spawn_router(const struct tp_spawn *spawn, int socket, int error_pipe, uint64_t descriptor_limit,
                    pid_t *pid, int *pidfd) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return errno;
    if (descriptor_limit < limit.rlim_max || limit.rlim_max == RLIM_INFINITY) limit.rlim_cur = descriptor_limit;
    else limit.rlim_cur = limit.rlim_max;

    // No handler may run in the child while it shares our memory.
    sigset_t all, before;
    sigfillset(&all);
    if (sigprocmask(SIG_BLOCK, &all, &before) != 0) return errno;
    volatile int failure = 0;
    pid_t parent = getpid();
    // vfork and not posix_spawn: that has no way to set PR_SET_PDEATHSIG. The parent goes on when the child has
    // called execve or _exit, so `failure` is written by then.
    pid_t child = vfork();
    if (child == 0) become_router(spawn, socket, error_pipe, &limit, parent, &failure);
    int vfork_error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (child < 0) return vfork_error;

    int descriptor = -1;
    if (failure == 0) {
        descriptor = tp_pidfd_open(child);
        if (descriptor < 0) {
            failure = errno;
            kill(child, SIGKILL);
        }
    }
    if (failure != 0) {
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
        return failure;
    }
    *pid = child;
    *pidfd = descriptor;
    return 0;
}

int tp_spawn_self(const struct tp_spawn *spawn, const int *sources, int count, int first, int flags, pid_t *pid) {
    if (count < 0 || count > 1024) return EINVAL;
    int copies[count + 1];
    int copied = 0;
    int result = 0;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions) != 0) return ENOMEM;
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return ENOMEM;
    }
    // A source among the targets would be overwritten before its turn: all move out of the way first.
    for (; copied < count; copied++) {
        copies[copied] = fcntl(sources[copied], F_DUPFD_CLOEXEC, first + count);
        if (copies[copied] < 0) {
            result = errno;
            break;
        }
        result = posix_spawn_file_actions_adddup2(&actions, copies[copied], first + copied);
        if (result != 0) {
            copied++;
            break;
        }
    }
    for (int standard = 0; standard <= 2 && result == 0; standard++) {
        int flag = standard == 2 ? TP_SPAWN_NULL_ERRORS : TP_SPAWN_NULL_INPUT_OUTPUT;
        if (flags & flag) result = posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
    }
    if (result == 0) result = posix_spawn_file_actions_addclosefrom_np(&actions, first + count);
    if (result == 0) {
        // The mask is kept: a signal that comes before the child looks for it waits instead of killing it.
        sigset_t every;
        sigfillset(&every);
        posix_spawnattr_setsigdefault(&attributes, &every);
        posix_spawnattr_setflags(
            &attributes, POSIX_SPAWN_SETSIGDEF | (flags & TP_SPAWN_SESSION ? POSIX_SPAWN_SETSID : 0));
        result = posix_spawn(pid, spawn->path, &actions, &attributes, spawn->arguments, spawn->environment);
    }
    for (int index = 0; index < copied; index++) close(copies[index]);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return result;
}

int tp_become_user(uid_t user, gid_t group, const gid_t *groups, size_t count, int dumpable) {
    // In this order: whoever is not root any more may change no group.
    if (setgroups(count, groups) != 0) return errno;
    if (setresgid(group, group, group) != 0) return errno;
    if (setresuid(user, user, user) != 0) return errno;
    uid_t real, effective, saved;
    if (getresuid(&real, &effective, &saved) != 0) return errno;
    if (real != user || effective != user || saved != user) return EPERM;
    // A capability that survived (securebits) would show here.
    if (user != 0 && (setuid(0) == 0 || seteuid(0) == 0)) return EPERM;
    if (user != 0 && group != 0 && setegid(0) == 0) return EPERM;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
    // The kernel has just taken it away. Never for a moment where it is not wanted: others run as this user.
    if (dumpable && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return errno;
    if (!dumpable && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return errno;
    return 0;
}

int tp_hide_memory(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : errno; }

int tp_memfd_create(const char *name) { return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); }

int tp_seal_size(int descriptor) { return fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL); }

int tp_seal_contents(int descriptor) {
    return fcntl(descriptor, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int tp_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int tp_get_descriptor_limits(uint64_t *soft, uint64_t *hard) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return errno;
    *soft = limit.rlim_cur;
    *hard = limit.rlim_max;
    return 0;
}

int tp_set_soft_descriptor_limit(uint64_t soft) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return errno;
    limit.rlim_cur = soft;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : errno;
}

char **tp_environment(void) { return environ; }

// The kernel shows as the command line the memory from argv[0] on, and goes on into the environment behind it once
// the last byte of the arguments is no longer NUL. So a title is written over both.
static char *title_start;
static size_t title_room;
static int our_argc;
static char **our_argv;

// glibc hands main's arguments to constructors; Swift's runtime gives no promise that its copy is the real one.
__attribute__((constructor)) static void remember_arguments(int argc, char **argv) {
    our_argc = argc;
    our_argv = argv;
}

static void find_title_room(void) {
    char *end = our_argv[0];
    for (int index = 0; index < our_argc; index++) {
        if (our_argv[index] == end) end += strlen(end) + 1;
    }
    int count = 0;
    for (; environ && environ[count]; count++) {
        if (environ[count] == end) end += strlen(end) + 1;
    }
    // Never freed: they live as long as the process, like what they replace.
    char **copy = calloc((size_t)count + 1, sizeof(char *));
    if (!copy) return;
    for (int index = 0; index < count; index++) {
        copy[index] = strdup(environ[index]);
        if (!copy[index]) return;
    }
    for (int index = 0; index < our_argc; index++) {
        char *argument = strdup(our_argv[index]);
        if (!argument) return;
        // our_argv[0] is where the room begins; remembered before it is replaced.
        if (index == 0) title_start = our_argv[0];
        our_argv[index] = argument;
    }
    environ = copy;
    title_room = (size_t)(end - title_start);
}

void tp_set_title(const char *title) {
    if (!our_argv || our_argc < 1 || !our_argv[0]) return;
    if (!title_start) find_title_room();
    if (title_room < 2) return;
    size_t length = strnlen(title, title_room - 1);
    memcpy(title_start, title, length);
    memset(title_start + length, 0, title_room - length);
}

void tp_set_name(const char *name) { prctl(PR_SET_NAME, name); }

pid_t tp_reap(pid_t which, int *is_signal, int *code, int *core_dumped) {
    int status = 0;
    pid_t pid = wait4(which, &status, WNOHANG, NULL);
    if (pid <= 0) return pid;
    *is_signal = WIFSIGNALED(status);
    *code = *is_signal ? WTERMSIG(status) : WEXITSTATUS(status);
    *core_dumped = *is_signal && WCOREDUMP(status);
    return pid;
}
