// Processes, signals, shared memory, atomics for the scoreboard.
#ifndef CLINUX_PROCESSES_H
#define CLINUX_PROCESSES_H

#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
