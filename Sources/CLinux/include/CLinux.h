// What Swift's Glibc module does not show of Linux: system headers that need _GNU_SOURCE, and inline
// functions for macros and variadic calls that Swift cannot import.
#ifndef CLINUX_H
#define CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "sockets.h"
#include "processes.h"

#endif
