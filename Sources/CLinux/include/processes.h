// Processes, signals, shared memory.
#ifndef CLINUX_PROCESSES_H
#define CLINUX_PROCESSES_H

#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

// What a process is started with. Strings and arrays stay with the caller and end with NULL.
struct tp_spawn {
    const char *path;
    char *const *arguments;
    char *const *environment;
};

// Starts a router: its own process group, killed with the thread that started it, default signals and an empty mask,
// `socket` as its descriptors 0 and 1, `error_pipe` as 2 and no other, its soft descriptor limit set to
// `descriptor_limit` (no higher than the hard one). Returns 0, or the errno of what failed, execve included; then no
// process is left. `pidfd` is close-on-exec.
int tp_spawn_router(const struct tp_spawn *spawn, int socket, int error_pipe, uint64_t descriptor_limit,
                    pid_t *pid, int *pidfd);

// How tp_spawn_self treats what a daemon must not share with its shell.
enum {
    // A session of its own, without a terminal.
    TP_SPAWN_SESSION = 1,
    // /dev/null as descriptors 0 and 1.
    TP_SPAWN_NULL_INPUT_OUTPUT = 2,
    // /dev/null as descriptor 2.
    TP_SPAWN_NULL_ERRORS = 4,
};

// Starts another process of this program with `count` descriptors from `first` on: those of `sources`, in order.
// Descriptors 0, 1 and 2 are inherited unless `flags` say otherwise, so is the signal mask; ignored signals are back to
// their defaults. Returns 0 or an errno; then no process is left.
int tp_spawn_self(const struct tp_spawn *spawn, const int *sources, int count, int first, int flags, pid_t *pid);

// Becomes this user for good: supplementary groups, group, user, all three ids of each, and no program that is executed
// from here on gets any more rights. With `dumpable` a core may be written, and the user's tools may look at it; without,
// nobody but root sees what it holds. Returns 0 or an errno; EPERM when root could be had back.
int tp_become_user(uid_t user, gid_t group, const gid_t *groups, size_t count, int dumpable);

// Keeps this process's memory from everybody but root: no core, no debugger, nothing in /proc. Until it executes another
// program. 0, or an errno.
int tp_hide_memory(void);

int tp_memfd_create(const char *name);
int tp_seal_size(int descriptor);
// Nobody can change it from here on.
int tp_seal_contents(int descriptor);
int tp_pidfd_open(pid_t pid);

// RLIMIT_NOFILE. Returns 0 or an errno.
int tp_get_descriptor_limits(uint64_t *soft, uint64_t *hard);
int tp_set_soft_descriptor_limit(uint64_t soft);

// getenv's array, which Swift does not let through. Changed by the first tp_set_title.
char **tp_environment(void);

// Shows `title` as this process's command line. What the arguments and the environment held is kept elsewhere first.
// A title beyond the room there is (about the size of arguments and environment together) is cut.
void tp_set_title(const char *title);

// Names the process in /proc/PID/comm; 15 bytes count.
void tp_set_name(const char *name);

// wait4(which, WNOHANG): the pid of a child that has ended, 0 when none has, -1 when there is no such child (errno).
// `is_signal` tells what `code` is: the signal that killed it or its exit status.
pid_t tp_reap(pid_t which, int *is_signal, int *code, int *core_dumped);

#endif
