// What Swift's Glibc module does not show of Linux.
//
// These headers must not define _GNU_SOURCE: the Glibc module was built without it, and a type with two
// definitions (fd_set, enum __rusage_who) does not compile in Swift. So functions and constants behind
// _GNU_SOURCE are declared here by hand, and whatever needs the macro itself lives in a .c file.
#ifndef CLINUX_H
#define CLINUX_H

#include "sockets.h"
#include "processes.h"
#include "resolver.h"

#endif
