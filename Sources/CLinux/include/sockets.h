// Sockets, epoll, pipes, files.
#ifndef CLINUX_SOCKETS_H
#define CLINUX_SOCKETS_H

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#ifndef _GNU_SOURCE
int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags);
int pipe2(int ends[2], int flags);
ssize_t splice(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t count, unsigned int flags);
#endif

// fcntl(2) and splice(2), whose names need _GNU_SOURCE.
enum { TP_F_SETPIPE_SZ = 1031, TP_F_GETPIPE_SZ = 1032 };
enum { TP_SPLICE_F_MOVE = 1, TP_SPLICE_F_NONBLOCK = 2 };
#endif
