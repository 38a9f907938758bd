// The reactor's edge: one epoll instance, one event buffer for ever.

import CLinux
public import Linux
public import SystemPackage

/// Waits for readiness and names the registrations it came from.
@safe public struct Poller: ~Copyable {
    /// One event: which registration, and what it is ready for.
    public struct Event {
        public let token: Token
        public let readiness: Readiness
    }

    private let epoll: Epoll
    private let events: UnsafeMutableBufferPointer<epoll_event>
    private var count = 0

    /// How many events one wait can bring. More come with the next one.
    public static let eventsPerRoundMax = 256

    public init() throws(Errno) {
        epoll = try Epoll()
        unsafe events = .allocate(capacity: Self.eventsPerRoundMax)
        unsafe events.initialize(repeating: epoll_event())
    }

    deinit { unsafe events.deallocate() }

    /// Starts watching a descriptor.
    public borrowing func add(_ raw: Int32, _ interest: Readiness, _ token: Token) throws(Errno) {
        try epoll.add(raw, interest, token: token.bits)
    }

    /// Changes what is watched.
    public borrowing func modify(_ raw: Int32, _ interest: Readiness, _ token: Token) throws(Errno) {
        try epoll.modify(raw, interest, token: token.bits)
    }

    /// Stops watching a descriptor that stays open.
    public borrowing func remove(_ raw: Int32) {
        // It fails only when the descriptor was not watched, which is what was wanted.
        try? epoll.remove(raw)
    }

    /// Waits and returns how many events there are; `event(_:)` reads them.
    public mutating func wait(timeoutMilliseconds: Int32) throws(Errno) -> Int {
        count = try unsafe epoll.wait(into: events, timeoutMilliseconds: timeoutMilliseconds)
        return count
    }

    /// One event of the last wait.
    public borrowing func event(_ index: Int) -> Event {
        precondition(index < count, "only events that came can be read")
        let event = unsafe events[index]
        return unsafe Event(token: Token(bits: event.data.u64), readiness: Readiness(rawValue: event.events))
    }
}
