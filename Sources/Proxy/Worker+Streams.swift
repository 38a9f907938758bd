// Rewriting, the worker's part: telling routers of streams, letting them in, and telling connections what became of it. The
// bytes are the connection's affair.

import CLinux
import Config
import Control
import Glibc
import Linux
import Logging
import Logs
import Reactor
import RouterProtocol
import SystemPackage

/// What a router says of a stream.
enum StreamNotice {
    case end(String)
    case detach(String)
}

/// Why a direction that is to be rewritten cannot be, or not to its end.
enum StreamFailure {
    /// No router is there that would do it.
    case noRouter
    /// None dialled back in time.
    case deadline
    /// Its socket ended, and nobody had said that it would.
    case closed
    /// It was to leave, and closed before it had read all that it was given.
    case leftBytes
    /// Its router is gone.
    case routerLost

    /// As the log says it.
    var words: String {
        switch self {
        case .noRouter: "there is no router to rewrite it"
        case .deadline: "no router has dialled back to rewrite it"
        case .closed: "its rewriter has closed without stream_end"
        case .leftBytes: "its rewriter has closed after detach, and had not read to the end"
        case .routerLost: "the router that rewrites it is gone"
        }
    }
}

extension Worker {
    // MARK: - Beginning

    /// Which directions a router of this worker rewrites, for a verdict of `router`, or without one (`nil`) for a kept verdict. Nil
    /// while there is no router that could.
    func rewrites(_ router: RouterID?) -> StreamDirections? {
        rewriter(router).map { links[$0].abilities.methods.rewrites }
    }

    /// The link of the router that is to rewrite: the one that decided, if it is there, or else one that decides now.
    private func rewriter(_ decider: RouterID?) -> UInt32? {
        for router in [decider, routers.anyHolder] {
            // One whose socket has ended hears nothing, though what it died of is not known yet.
            guard let router, let slot = linkSlot(router), !links[slot].isGivenUp, links[slot].endsUntil == nil,
                withRouters(router.role, { $0.takesStreams(router) })
            else { continue }
            return slot
        }
        return nil
    }

    /// Has routers dial back for these directions of a connection. What comes of it: `streamArrived` or `streamFailed`, for each.
    func openStreams(
        _ connection: Token, _ directions: StreamDirections, decider: RouterID?, extra: [UInt8]?
    ) {
        let deadline = now + Int64(settings.routerTimeoutMilliseconds)
        for direction in StreamDirection.allCases where directions.contains(StreamDirections(direction)) {
            let token = streams.add(connection, direction, extra: extra, deadline: deadline)
            tell(token, decider)
        }
    }

    /// Tells a router of a stream; without one it stays untold, and is tried again each round.
    private func tell(_ token: StreamToken, _ decider: RouterID?) {
        guard let stream = streams[token], let slot = rewriter(decider) else { return }
        let connection = stream.connection
        guard connections.holds(connection.slot, generation: connection.generation) else { return }
        guard links[slot].abilities.methods.rewrites.contains(StreamDirections(stream.direction)) else {
            return fail(connection, stream.direction, .noRouter)
        }
        let router = links[slot].id
        streams.tell(token, router)
        scoreboard.add(.streams)
        withRouters(router.role) { $0.streamBegan(router) }
        let notice = Notice.rewrite(
            stream.direction, token: "\(token)", connection: id(connections[connection.slot].facts), extra: stream.extra
        )
        links[slot].write { notice.append(to: &$0) }
        unflushed.append(slot)
    }

    // MARK: - The door

    /// A router rewrites these: from now on it can dial back.
    func openDoor(_ directions: StreamDirections) {
        makeRoom(rewrittenDirections: directions == .both ? 2 : 1)
        do throws(Errno) {
            try door.open(around.poller)
        } catch {
            log.error("routers cannot dial back to rewrite, no socket can be opened for that: \(error)")
        }
    }

    /// Lets in whoever dials. Bounded, as accepting clients is.
    func acceptRewriters() {
        for _ in 0..<Limits.acceptsPerTurnAlone {
            let knock: StreamDoor.Knock
            do throws(Errno) {
                knock = try door.accept(now: now) { isTrusted($0) }
            } catch {
                log.error("cannot accept a rewriter: \(error)")
                door.watch(false, around.poller)
                doorOpensAt = now + Int64(Limits.acceptPauseMilliseconds)
                return
            }
            switch knock {
            case .none: return
            case .stranger(let user): turnAway("user \(user) has no business here")
            case .dialer(let dialer):
                // Whoever has a token has said it by now, most often.
                guard hear(dialer) == .nothing else { break }
                watch(dialer)
                let count = door.dropExcess(expected: streams.awaited)
                if count > 0 { turnAway("it has not said its token, and others wait to be heard", count: count) }
            }
        }
    }

    /// A dialer that had not said its token has said something.
    func hearRewriter(_ dialer: Token) { _ = hear(dialer) }

    private func hear(_ dialer: Token) -> StreamDoor.Said {
        let said = door.hear(dialer)
        switch said {
        case .nothing: break
        case .nonsense: turnAway("what it said is no token")
        case .token(let token): letIn(dialer, token)
        }
        return said
    }

    private func letIn(_ dialer: Token, _ token: StreamToken) {
        guard let descriptor = door.take(dialer) else { return }
        guard let stream = streams.arrive(token, now: now) else {
            return turnAway("its token is not waited for, or not any more")
        }
        // Watched as a dialer until here; now it is the connection's to watch.
        around.poller.remove(descriptor.raw)
        streamArrived(stream.connection, stream.direction, consume descriptor)
    }

    /// Edge-triggered: what has been looked at stays in the socket.
    private func watch(_ dialer: Token) {
        guard let raw = door.number(dialer) else { return }
        try? around.poller.add(raw, [.readable, .peerEnded, .edgeTriggered], dialer)
    }

    /// Who may rewrite: our own user, root, and whoever runs the router we are connected to.
    private func isTrusted(_ user: UInt32) -> Bool {
        if user == 0 || user == geteuid() { return true }
        return linkSlots.contains { links[$0.slot].user == user }
    }

    private func turnAway(_ why: String, count: Int = 1) {
        scoreboard.add(.streamsRefused, UInt64(clamping: count))
        guard let leftOut = strangerPace.permit(at: now) else { return }
        let more = leftOut > 0 ? " (and \(leftOut) more)" : ""
        log.warning("a rewriter was turned away: \(why)\(more)")
    }

    // MARK: - What routers say, and when they say nothing more

    func heed(_ notice: StreamNotice, of router: RouterID) {
        switch notice {
        case .end(let text):
            guard let token = StreamToken(Array(text.utf8)), let stream = streams.endSaid(token, by: router) else {
                return
            }
            streamEnded(stream.connection, stream.direction)
        case .detach(let text):
            guard let token = StreamToken(Array(text.utf8)), let stream = streams.detaching(token, by: router)
            else { return }
            streamDetached(stream.connection, stream.direction)
        }
    }

    /// A router says nothing more.
    func loseStreams(of router: RouterID) {
        guard !streams.isEmpty else { return }
        let (broken, left) = streams.lost(router)
        withRouters(router.role) { $0.streamsEnded(router, count: left, now: now) }
        for stream in broken { fail(stream.connection, stream.direction, .routerLost) }
    }

    /// A rewriter's socket has ended, and `streamEnded` has not come. Whether it was meant is known once everything has been
    /// read that the router wrote before: at the end of the round. Then one of `streamEnded` and `streamFailed` comes.
    func explainEnd(_ connection: Token, _ direction: StreamDirection) {
        unexplainedEnds.append((connection, direction))
    }

    private func fail(_ connection: Token, _ direction: StreamDirection, _ failure: StreamFailure) {
        scoreboard.add(.streamsFailed)
        streamFailed(connection, direction, failure)
    }

    // MARK: - Once a round

    /// Explains ends, tells routers of streams that the last one has not taken, and ends what has taken too long.
    func serveStreams() {
        var unread: [(connection: Token, direction: StreamDirection)] = []
        while let (connection, direction) = unexplainedEnds.popLast() {
            guard let (_, stream) = streams.find(connection, direction), !stream.isEndSaid else { continue }
            if let slot = linkSlot(stream.router), !links[slot].isGivenUp, !readRouter(slot, toTheEnd: true) {
                // It has written more than one turn takes: the next turn goes on.
                unread.append((connection, direction))
                continue
            }
            guard let (_, left) = streams.find(connection, direction), !left.isEndSaid else { continue }
            fail(connection, direction, .closed)
        }
        unexplainedEnds += unread
        for token in streams.untold { tell(token, nil) }
        if let next = streams.nextDeadline, next <= now {
            for stream in streams.expired(now: now) {
                fail(stream.connection, stream.direction, .deadline)
            }
        }
        if let next = door.nextDeadline, next <= now {
            let count = door.expire(now: now)
            if count > 0 { turnAway("it has not said its token", count: count) }
        }
        if let opensAt = doorOpensAt, opensAt <= now {
            doorOpensAt = nil
            door.watch(true, around.poller)
        }
    }

    var nextStreamDeadline: Int64? {
        guard door.isOpen else { return nil }
        return [streams.nextDeadline, door.nextDeadline, doorOpensAt].compactMap { $0 }.min()
    }

    // MARK: - Ending

    /// A direction is over, or goes by itself: its rewriter's socket is closed.
    func streamOver(_ connection: Token, _ direction: StreamDirection) {
        guard let router = streams.remove(connection, direction) else { return }
        withRouters(router.role) { $0.streamsEnded(router, now: now) }
    }

    /// The connection is gone.
    func forgetStreams(_ connection: Token) {
        guard !streams.isEmpty else { return }
        for router in streams.remove(connection) {
            withRouters(router.role) { $0.streamsEnded(router, now: now) }
        }
    }

    // MARK: - Where connections join

    /// Does what a connection asks for about its streams.
    func tendStreams(_ slot: UInt32, _ effects: Effects) {
        let facts = connections[slot].facts
        for direction in StreamDirection.allCases {
            if effects.streamsOver.contains(StreamDirections(direction)) { streamOver(facts.token, direction) }
            if effects.endsUnexplained.contains(StreamDirections(direction)) { explainEnd(facts.token, direction) }
        }
        if !effects.streams.isEmpty {
            openStreams(facts.token, effects.streams, decider: facts.decider, extra: effects.extra)
        }
    }

    /// A rewriter is there for a direction of a connection.
    private func streamArrived(
        _ connection: Token, _ direction: StreamDirection, _ descriptor: consuming Descriptor
    ) {
        around.arrivedStream = consume descriptor
        deliver(connection, .streamArrived(direction))
        around.arrivedStream = nil
    }

    /// The end of the rewriter's bytes, whenever it comes, is meant. It may come as ECONNRESET: that is what the kernel says when a
    /// rewriter closes with bytes left that it has not read, after all that it has written.
    private func streamEnded(_ connection: Token, _ direction: StreamDirection) {
        deliver(connection, .streamEnded(direction))
    }

    /// The rewriter is to get no more. Once its bytes have ended the source's go on without it.
    private func streamDetached(_ connection: Token, _ direction: StreamDirection) {
        deliver(connection, .streamDetached(direction))
    }

    /// The direction cannot be rewritten: the connection is to be reset.
    private func streamFailed(_ connection: Token, _ direction: StreamDirection, _ failure: StreamFailure) {
        deliver(connection, .streamFailed(direction, failure))
    }
}
