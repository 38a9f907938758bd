// Taking clients from the listeners that all workers share, and leaving them to the kernel's queue when there is no room.

import Addressing
import Config
import Control
import Linux
import Logs
import Reactor
import SystemPackage

/// A listener as the worker holds it.
struct WorkerListener {
    let raw: Int32
    /// What routers know it by: the `-b` text, normalised, with the real port, and `tls://` if clients speak TLS to it.
    let name: String
    let isTLS: Bool
    /// Where it listens.
    let address: SocketAddress
    /// The address clients see, nil when it has to be asked for with each connection (a wildcard) or there is none.
    let local: Endpoint?

    /// Describes an inherited listener. The C function is `getsockname`.
    init(_ inherited: InheritedListener) throws(Errno) {
        raw = inherited.descriptor
        isTLS = inherited.isTLS
        address = try Socket.localAddress(raw)
        // Port 0 let the kernel choose: what it chose is the better name.
        let bind: BindAddress =
            switch (inherited.bind, address) {
            case (.ipv4(let host, port: 0), .ipv4(_, let port)): .ipv4(host, port: port)
            case (.ipv6(let host, port: 0), .ipv6(_, let port)): .ipv6(host, port: port)
            default: inherited.bind
            }
        name = InheritedListener.name(bind, isTLS: isTLS)
        switch address {
        case .ipv4(.any, _), .ipv6(.any, _), .unix, .unnamed: local = nil
        case .ipv4, .ipv6: local = address.endpoint
        }
    }

    /// The addresses under which clients reach it: two, when an inherited one takes IPv4 and IPv6.
    var reached: [SocketAddress] {
        guard case .ipv6(let host, let port) = address, Socket.isDualStack(raw) else { return [address] }
        if host == .any { return [address, .ipv4(.any, port: port)] }
        return [address] + (host.mappedIPv4.map { [.ipv4($0, port: port)] } ?? [])
    }

    /// Whether each connection's local address has to be asked for.
    var isWildcard: Bool {
        switch address {
        case .ipv4(.any, _), .ipv6(.any, _): true
        case .ipv4, .ipv6, .unix, .unnamed: false
        }
    }
}

/// Accepting, and the reasons not to.
struct Acceptor: ~Copyable {
    let listeners: [WorkerListener]
    private(set) var isClosed = false
    /// Several workers share the listeners: take few, and go to the end of the line.
    private var isShared: Bool
    private var acceptsPerTurn: Int
    /// How many to take at the next turn: as many as lately came at once, so that a queue that is empty is seldom asked.
    private(set) var turn = 1
    private(set) var isWatching = false
    /// After the kernel ran out of descriptors or memory.
    private var pausedUntil: Int64?
    private var pace = LogPace()

    /// `workers` is how many share the listeners.
    init(_ listeners: [WorkerListener], workers: Int) {
        self.listeners = listeners
        isShared = workers > 1
        acceptsPerTurn = workers > 1 ? Limits.acceptsPerTurn : Limits.acceptsPerTurnAlone
    }

    /// Others have joined: from now on takes turns with them. The next `update` watches the listeners anew.
    mutating func share(_ poller: borrowing Poller) {
        guard !isShared else { return }
        isShared = true
        acceptsPerTurn = Limits.acceptsPerTurn
        guard isWatching else { return }
        for listener in listeners { poller.remove(listener.raw) }
        isWatching = false
    }

    /// When accepting may go on after a pause.
    var deadline: Int64? { isClosed ? nil : pausedUntil }

    /// Watches the listeners while there is room, and only then. True when accepting has just been paused.
    mutating func update(hasRoom: Bool, now: Int64, _ poller: borrowing Poller) throws(Errno) -> Bool {
        if let pausedUntil, now >= pausedUntil { self.pausedUntil = nil }
        let wanted = hasRoom && pausedUntil == nil && !isClosed
        guard wanted != isWatching else { return false }
        isWatching = wanted
        for index in listeners.indices {
            if wanted { try watch(index, poller) } else { poller.remove(listeners[index].raw) }
        }
        return !wanted
    }

    private func watch(_ index: Int, _ poller: borrowing Poller) throws(Errno) {
        let interest: Readiness = isShared ? [.readable, .exclusive] : .readable
        let token = Token(slot: UInt32(index), generation: 0, kind: TokenKind.listener)
        try poller.add(listeners[index].raw, interest, token)
    }

    /// What taking one client came to.
    enum Taken: ~Copyable {
        case client(Socket.Accepted)
        /// The queue is empty.
        case none
        /// The kernel has no room: accepting pauses. The text is for the log, at most once a second.
        case failed(String?)
    }

    /// Takes the next client of a listener's queue.
    mutating func take(_ index: Int, now: Int64) -> Taken {
        do throws(Errno) {
            if let accepted = try Socket.accept(listeners[index].raw) { return .client(accepted) }
            return .none
        } catch {
            pausedUntil = now + Int64(Limits.acceptPauseMilliseconds)
            guard let leftOut = pace.permit(at: now) else { return .failed(nil) }
            let more = leftOut > 0 ? " (and \(leftOut) times before)" : ""
            return .failed("cannot accept on \(listeners[index].name): \(error); trying again\(more)")
        }
    }

    /// What a turn has shown of how many come at once.
    mutating func learn(taken: Int, queueWasEmpty: Bool) {
        turn = queueWasEmpty ? min(max(1, taken), acceptsPerTurn) : min(max(turn, 2 * taken), acceptsPerTurn)
    }

    /// After a turn in which clients were taken: goes to the end of the line of those that share the listener.
    /// Whoever was added last is woken last; without this one worker gets every client (epoll_ctl(2), EPOLLEXCLUSIVE).
    mutating func endTurn(_ index: Int, now: Int64, _ poller: borrowing Poller) throws(Errno) {
        guard isShared, isWatching else { return }
        poller.remove(listeners[index].raw)
        do throws(Errno) {
            try watch(index, poller)
        } catch {
            // The kernel has no room to watch: like one that has none to accept, it is tried again after a pause.
            for listener in listeners { poller.remove(listener.raw) }
            isWatching = false
            pausedUntil = now + Int64(Limits.acceptPauseMilliseconds)
            throw error
        }
    }

    /// Closes our copies for good: other holders go on.
    mutating func close(_ poller: borrowing Poller) {
        guard !isClosed else { return }
        for listener in listeners {
            if isWatching { poller.remove(listener.raw) }
            _ = Descriptor(owning: listener.raw)
        }
        isWatching = false
        isClosed = true
    }

    /// What routers know a listener by.
    func name(_ listener: Int) -> String { listeners[listener].name }

    /// The address a client sees: the listener's own, or what the kernel says of the connection.
    func local(_ listener: Int, _ client: () -> Int32?) -> Endpoint? {
        guard listeners[listener].isWildcard, let raw = client() else { return listeners[listener].local }
        return (try? Socket.localAddress(raw))?.endpoint
    }
}
