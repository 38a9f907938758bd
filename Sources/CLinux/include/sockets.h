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

// How many descriptors one read can bring; more are closed at once.
enum { TP_DESCRIPTORS_MAX = 4 };

// What one read from a Unix socket brought.
struct tp_received {
    ssize_t count;
    int error;
    // The process that wrote it, 0 when unknown (unix(7), SCM_CREDENTIALS).
    pid_t writer;
    int descriptor_count;
    int descriptors[TP_DESCRIPTORS_MAX];
    int truncated;
};

// recvmsg(2) without blocking, with what came beside the bytes. Received descriptors are close-on-exec.
void tp_receive(int socket, void *memory, size_t size, struct tp_received *received);

// send(2) of a packet with one descriptor beside it (SCM_RIGHTS), without SIGPIPE. The count, or -1 and errno.
ssize_t tp_send_descriptor(int socket, const void *memory, size_t size, int descriptor);

// Has the kernel tell who wrote what is read (SO_PASSCRED). 0, or -1 and errno.
int tp_tell_writers(int socket);

// The user of the process that listens, or that connected (SO_PEERCRED). 0, or -1 and errno.
int tp_peer_user(int socket, uid_t *user);

// A copy of another process's descriptor (pidfd_getfd(2)), close-on-exec; -1 and errno.
int tp_take_descriptor(pid_t process, int number);

// Opens a file that lies below a folder, whatever links and dots are in its path (openat2(2), RESOLVE_BENEATH). The
// descriptor, close-on-exec, or -1 and errno.
int tp_open_beneath(int folder, const char *path, int flags);

// fcntl(2) and splice(2), whose names need _GNU_SOURCE.
enum { TP_F_SETPIPE_SZ = 1031, TP_F_GETPIPE_SZ = 1032 };
enum { TP_SPLICE_F_MOVE = 1, TP_SPLICE_F_NONBLOCK = 2 };
#endif
