// Calls on sockets whose macros and types Swift cannot use: control messages, pidfds.
#define _GNU_SOURCE 1
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void tp_receive(int socket, void *memory, size_t size, struct tp_received *received)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * TP_DESCRIPTORS_MAX) + CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr aligned;
    } control;
    struct iovec iov = {.iov_base = memory, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    received->descriptor_count = 0;
    received->writer = 0;
    received->count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    received->error = received->count < 0 ? errno : 0;
    if (received->count < 0) return;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET) continue;
        if (part->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
            received->writer = credentials.pid;
        } else if (part->cmsg_type == SCM_RIGHTS) {
            size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (size_t i = 0; i < count; i++) {
                int descriptor;
                memcpy(&descriptor, CMSG_DATA(part) + i * sizeof(int), sizeof descriptor);
                if (received->descriptor_count < TP_DESCRIPTORS_MAX)
                    received->descriptors[received->descriptor_count++] = descriptor;
                else
                    close(descriptor);
            }
        }
    }
    received->truncated = (message.msg_flags & MSG_CTRUNC) != 0;
}

ssize_t tp_send_descriptor(int socket, const void *memory, size_t size, int descriptor)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {{0}};
    struct iovec iov = {.iov_base = (void *)memory, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(part), &descriptor, sizeof descriptor);
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

int tp_tell_writers(int socket)
{
    int on = 1;
    return setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

int tp_take_descriptor(pid_t process, int number)
{
    int pidfd = (int)syscall(SYS_pidfd_open, process, 0);
    if (pidfd < 0) return -1;
    int taken = (int)syscall(438 /* pidfd_getfd(2) */, pidfd, number, 0);
    int error = errno;
    close(pidfd);
    errno = error;
    return taken;
}

int tp_open_beneath(int folder, const char *path, int flags)
{
    // struct open_how of linux/openat2.h, which older headers lack.
    struct { uint64_t flags, mode, resolve; } how = {
        .flags = (uint64_t)(flags | O_CLOEXEC), .resolve = 0x08 /* RESOLVE_BENEATH */ | 0x02 /* RESOLVE_NO_MAGICLINKS */};
    return (int)syscall(437 /* openat2(2) */, folder, path, &how, sizeof how);
}

int tp_peer_user(int socket, uid_t *user)
{
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return -1;
    *user = credentials.uid;
    return 0;
}
