// Processes, signals, shared memory, atomics for the scoreboard.
#ifndef CLINUX_PROCESSES_H
#define CLINUX_PROCESSES_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
