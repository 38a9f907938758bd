// What name resolution needs beside <netdb.h>.
#ifndef CLINUX_RESOLVER_H
#define CLINUX_RESOLVER_H

#include <malloc.h>

// getaddrinfo(3), behind _GNU_SOURCE: the name has no address of the families asked for.
enum { TP_EAI_ADDRFAMILY = -9 };

// All threads of this process share one arena: without this each thread reserves 64 MiB of address space
// (mallopt(3)). Before the first thread is started.
static inline void tp_share_one_arena(void) { (void)mallopt(M_ARENA_MAX, 1); }

#endif
