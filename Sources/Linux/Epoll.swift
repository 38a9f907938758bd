// epoll(7) and eventfd(2).

public import CLinux
import Glibc
public import SystemPackage

/// What epoll is asked to watch and what it reports.
public struct Readiness: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let readable = Readiness(rawValue: EPOLLIN.rawValue)
    public static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
    /// The peer has ended its side; bytes may still be there to read.
    public static let peerEnded = Readiness(rawValue: EPOLLRDHUP.rawValue)
    public static let hangUp = Readiness(rawValue: EPOLLHUP.rawValue)
    public static let error = Readiness(rawValue: EPOLLERR.rawValue)
    public static let edgeTriggered = Readiness(rawValue: 1 << 31)
    /// Of the workers that watch one listener, wake one (epoll_ctl(2), EPOLLEXCLUSIVE).
    public static let exclusive = Readiness(rawValue: 1 << 28)
}

/// An epoll instance.
public struct Epoll: ~Copyable {
    private let descriptor: Descriptor

    /// The C function is `epoll_create1`.
    public init() throws(Errno) {
        descriptor = Descriptor(owning: try check { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    }

    /// The C function is `epoll_ctl(EPOLL_CTL_ADD)`.
    public func add(_ raw: Int32, _ interest: Readiness, token: UInt64) throws(Errno) {
        try control(EPOLL_CTL_ADD, raw, interest, token)
    }

    /// The C function is `epoll_ctl(EPOLL_CTL_MOD)`.
    public func modify(_ raw: Int32, _ interest: Readiness, token: UInt64) throws(Errno) {
        try control(EPOLL_CTL_MOD, raw, interest, token)
    }

    /// The C function is `epoll_ctl(EPOLL_CTL_DEL)`. A closed descriptor removes itself.
    public func remove(_ raw: Int32) throws(Errno) {
        try control(EPOLL_CTL_DEL, raw, [], 0)
    }

    private func control(_ operation: Int32, _ raw: Int32, _ interest: Readiness, _ token: UInt64) throws(Errno) {
        var event = epoll_event(events: interest.rawValue, data: epoll_data_t(u64: token))
        let epoll = descriptor.raw
        _ = try check { epoll_ctl(epoll, operation, raw, &event) }
    }

    /// Waits for events, at most `timeoutMilliseconds` (-1: for ever), and returns how many were written.
    /// An interruption counts as none. The C function is `epoll_wait`.
    public func wait(
        into events: UnsafeMutableBufferPointer<epoll_event>, timeoutMilliseconds: Int32
    ) throws(Errno) -> Int {
        let count = epoll_wait(descriptor.raw, events.baseAddress, Int32(clamping: events.count), timeoutMilliseconds)
        if count >= 0 { return Int(count) }
        let error = currentErrno()
        if error == .interrupted { return 0 }
        throw error
    }
}
