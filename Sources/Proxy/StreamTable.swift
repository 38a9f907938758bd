// Which streams there are: waited for, open, said to end; whose they are, and which router has them. Pure.

import DequeModule
import Reactor
import RouterProtocol

/// The streams of a worker's connections. Instants are milliseconds of the monotonic clock.
///
///     add → untold → (tell) told → (arrive) open → over
///              ↑               │
///              └───────────────┘  its router is gone before it dialled back: the next one is told, under a new token
struct StreamTable {
    enum Phase: Equatable {
        /// No router has been told of it.
        case untold
        /// A router is to dial back.
        case told
        case open
    }

    struct Stream: Equatable {
        /// Names the connection: its registration as a client.
        let connection: Token
        let direction: StreamDirection
        /// What the rewriter is told, as JSON.
        let extra: [UInt8]?
        /// Until when a rewriter must have dialled back.
        let deadline: Int64
        var router = RouterID.none
        var phase = Phase.untold
        /// Its end, when it comes, is meant.
        var isEndSaid = false
    }

    private var streams: [StreamToken: Stream] = [:]
    /// The tokens of a connection's streams.
    private var tokens: [Token: [StreamToken]] = [:]
    /// Those that are waited for in the order in which their time ends, and some that are not any more.
    private var deadlines = Deque<(deadline: Int64, token: StreamToken)>()
    /// Those that no router has been told of.
    private(set) var untold: [StreamToken] = []
    /// How many a router was told of that has not dialled back for them.
    private(set) var awaited = 0

    var isEmpty: Bool { streams.isEmpty }
    var count: Int { streams.count }
    subscript(_ token: StreamToken) -> Stream? { streams[token] }

    /// The stream of a connection in this direction.
    func find(_ connection: Token, _ direction: StreamDirection) -> (token: StreamToken, stream: Stream)? {
        for token in tokens[connection] ?? [] {
            if let stream = streams[token], stream.direction == direction { return (token, stream) }
        }
        return nil
    }

    // MARK: Beginning

    /// A direction of a connection is to be rewritten; `tell` names the router that will.
    mutating func add(
        _ connection: Token, _ direction: StreamDirection, extra: [UInt8]?, deadline: Int64
    ) -> StreamToken {
        add(Stream(connection: connection, direction: direction, extra: extra, deadline: deadline))
    }

    private mutating func add(_ stream: Stream) -> StreamToken {
        let token = StreamToken()
        streams[token] = stream
        tokens[stream.connection, default: []].append(token)
        untold.append(token)
        // Mostly the last one: all have the same time, but one that is told again has what is left of it.
        let place = deadlines.lastIndex { $0.deadline <= stream.deadline }.map { $0 + 1 } ?? 0
        deadlines.insert((stream.deadline, token), at: place)
        return token
    }

    /// A router is told of it.
    mutating func tell(_ token: StreamToken, _ router: RouterID) {
        guard streams[token]?.phase == .untold else { return }
        untold.removeAll { $0 == token }
        streams[token]?.phase = .told
        awaited += 1
        streams[token]?.router = router
    }

    /// Somebody has said this token: the stream it names, once. Nil for one that nobody was told, that was said before, or whose
    /// time is up.
    mutating func arrive(_ token: StreamToken, now: Int64) -> Stream? {
        guard let stream = streams[token], stream.phase == .told, now < stream.deadline else { return nil }
        streams[token]?.phase = .open
        awaited -= 1
        return stream
    }

    // MARK: What routers say

    /// The end of the stream, whenever it comes, is meant. Nil unless this router has it. It may be said before the stream is
    /// open here, for the two sockets are read in any order.
    mutating func endSaid(_ token: StreamToken, by router: RouterID) -> Stream? {
        guard let stream = streams[token], stream.router == router, stream.phase != .untold, !stream.isEndSaid
        else { return nil }
        streams[token]?.isEndSaid = true
        return stream
    }

    /// The stream a router wants to leave. Nil unless this router has it.
    func detaching(_ token: StreamToken, by router: RouterID) -> Stream? {
        guard let stream = streams[token], stream.router == router, stream.phase != .untold else { return nil }
        return stream
    }

    /// A router says nothing more: the streams that it has open, which cannot end as they should unless that was said. Those
    /// that it had not dialled back for are untold again, under new tokens. `left` is how many it had in all.
    mutating func lost(_ router: RouterID) -> (broken: [Stream], left: Int) {
        var broken: [Stream] = []
        var left = 0
        for (token, stream) in streams where stream.router == router {
            left += 1
            switch stream.phase {
            case .open where !stream.isEndSaid: broken.append(stream)
            case .open: break
            case .untold, .told:
                remove(token)
                _ = add(
                    Stream(
                        connection: stream.connection, direction: stream.direction, extra: stream.extra,
                        deadline: stream.deadline))
            }
            streams[token]?.router = .none
        }
        return (broken, left)
    }

    // MARK: Ending

    /// A direction is rewritten no more. The router that had it, if one did.
    mutating func remove(_ connection: Token, _ direction: StreamDirection) -> RouterID? {
        guard let (token, stream) = find(connection, direction) else { return nil }
        remove(token)
        return stream.router == .none ? nil : stream.router
    }

    /// The connection is gone. The routers that had its streams, once for each.
    mutating func remove(_ connection: Token) -> [RouterID] {
        var routers: [RouterID] = []
        for token in tokens[connection] ?? [] {
            if let router = streams[token]?.router, router != .none { routers.append(router) }
            remove(token)
        }
        return routers
    }

    private mutating func remove(_ token: StreamToken) {
        guard let stream = streams.removeValue(forKey: token) else { return }
        switch stream.phase {
        case .untold: untold.removeAll { $0 == token }
        case .told: awaited -= 1
        case .open: break
        }
        tokens[stream.connection]?.removeAll { $0 == token }
        if tokens[stream.connection]?.isEmpty == true { tokens[stream.connection] = nil }
        // Its deadline goes when its time comes, or now if all of them may.
        if streams.isEmpty { deadlines.removeAll(keepingCapacity: true) }
    }

    /// When `expired` has something to say.
    var nextDeadline: Int64? { deadlines.first?.deadline }

    /// Those that nobody has dialled back for in time. They stay until they are removed, and cannot arrive any more.
    mutating func expired(now: Int64) -> [Stream] {
        var expired: [Stream] = []
        while let first = deadlines.first, first.deadline <= now {
            deadlines.removeFirst()
            if let stream = streams[first.token], stream.phase != .open { expired.append(stream) }
        }
        return expired
    }
}
