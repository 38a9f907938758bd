// The worker's loop: waits, lets each event happen to its connection, performs what the connection asks for.
// One thread, one epoll instance. Worker+Stages.swift has its beginning and end, Worker+Routers.swift the side towards the
// routers.

import Addressing
import Config
import Control
import Linux
import Logging
import Logs
import Reactor
import RouterProtocol
import SystemPackage
import TLS

/// One worker process's state. There is one instance, owned by `WorkerProcess`.
final class Worker {
    /// What the worker is about.
    enum Stage: Equatable {
        /// The router has not answered `hello` yet: nothing is accepted.
        case booting
        case serving
        /// Accepts no more and finishes what is open; by the deadline, if there is one.
        case draining(deadline: Int64?)
        /// No connection is left: the routers are leaving.
        case leaving(deadline: Int64)
        case ended(status: Int32)
    }

    let settings: Settings
    let log: Logger
    let routerLog: Logger
    let connectionLog: Logger
    let logFile: LogFile
    let serial: UInt64
    let scoreboard: WorkerSlot
    let control: WorkerChannel
    let signals: SignalDescriptor
    let softDescriptorLimit: UInt64
    let routerEnvironment: [String]
    /// How many connections this worker holds at most, and how many it has descriptors for.
    private(set) var connectionsMax: Int
    private(set) var connectionsPossible: Int
    /// The most directions of a connection that any router rewrites.
    private var rewrittenDirections = 0

    var stage = Stage.booting
    var around: Surroundings
    var connections = Slab<Connection>()
    var timers: Timers
    var acceptor: Acceptor
    /// What listeners with TLS speak it with, nil when there is none. Connections go on with what they began with.
    var listenerTLS: ListenerTLS?
    var routers: Routers
    /// Those that decide for a share of the clients, and those whose answers are only compared: idle unless wanted.
    var canary: Routers
    var shadow: Routers
    var comparisons = ShadowComparisons()
    var shadowPace = LogPace()
    var links = Slab<RouterLink>()
    /// Which link belongs to which router: a handful at most.
    var linkSlots: [(id: RouterID, slot: UInt32)] = []
    /// Processes whose links are closed but that have not ended yet.
    var unreaped: [Int32] = []
    /// Links whose socket has ended and whose process has not, yet.
    var ending: [Token] = []
    /// Links that have lines to write at the end of the round.
    var unflushed: [UInt32] = []
    var generation: UInt64
    /// The router that decides wants to hear of ends.
    var wantsClosed = false
    /// Orders of routers that the arbiter has not taken yet.
    var waitingOrders = WaitingOrders()
    var lostOrderPace = LogPace()
    var closePace = LogPace()
    /// The number of the reload command that is under way.
    var reloadNumber: UInt32?
    var resolver: Resolver
    var cache: VerdictCache
    var accessLog: AccessLog?
    /// What the router that ended last wrote to stderr before it had answered `hello`; nil when it had answered.
    var lastWords: String?
    /// Rewriting: where routers dial back, which streams there are, and ends that have to be explained.
    var door = StreamDoor()
    var streams = StreamTable()
    var unexplainedEnds: [(connection: Token, direction: StreamDirection)] = []
    /// The connections whose questions were taken back in this round, by who asked: they may be gone when that is told.
    var withdrawn: [Asker: String] = [:]
    var strangerPace = LogPace()
    /// When accept(2) is tried again at the door.
    var doorOpensAt: Int64?
    var unfinished: [Token] = []
    /// Those whose next turn it is.
    private var resuming: [Token] = []
    private var due: [UInt32] = []
    private var connectionSerial: UInt64 = 0
    private var nextHeartbeat: Int64 = 0
    private var shownConnections = -1
    private var paces: [CloseReason: LogPace] = [:]

    var now: Int64 { around.now }

    init(_ inheritance: consuming WorkerInheritance, log: Logger, logFile: LogFile) throws(Errno) {
        settings = inheritance.settings
        serial = inheritance.serial
        generation = inheritance.generation
        scoreboard = inheritance.slot
        softDescriptorLimit = inheritance.softDescriptorLimit
        self.log = log
        self.logFile = logFile
        routerLog = Logger(logFile, .router, inheritance.settings)
        connectionLog = Logger(logFile, .connection, inheritance.settings)
        routerEnvironment = Spawn.routerEnvironment(Process.environment())
        var listeners: [WorkerListener] = []
        for inherited in inheritance.listeners { listeners.append(try WorkerListener(inherited)) }
        acceptor = Acceptor(listeners, workers: inheritance.settings.workers)
        signals = try SignalDescriptor(WorkerProcess.signals)
        let microseconds = Int64(clamping: Instant.now().nanoseconds / 1000)
        let openFiles = (try? Process.descriptorLimits())?.soft
        let wanted = inheritance.settings.workerConnections
        connectionsPossible = openFiles.map { Self.connectionsPossible($0, each: 2) } ?? wanted
        connectionsMax = min(connectionsPossible, wanted)
        Self.warn(log, openFiles, connectionsMax, wanted)
        around = Surroundings(
            pools: Pools(pipesMax: Self.pipesMax()), poller: try Poller(), takenFile: nil,
            settings: inheritance.settings,
            ownAddresses: listeners.flatMap(\.reached), nowMicroseconds: microseconds)
        timers = Timers(now: microseconds / 1000)
        var limits = RouterLimits()
        limits.questionsMax = connectionsPossible
        limits.routers = inheritance.settings.routers
        limits.livesMax = inheritance.settings.routers + Limits.routersLeavingMax
        if inheritance.settings.router.socketPath != nil { (limits.kind, limits.mayBeAbsent) = (.unix, true) }
        limits.routerTimeoutMilliseconds = Int64(inheritance.settings.routerTimeoutMilliseconds)
        limits.waitingTimeoutMilliseconds = Int64(
            max(inheritance.settings.verdictTimeoutMilliseconds, 3 * inheritance.settings.routerTimeoutMilliseconds))
        // Who has somewhere else to send clients does not keep them waiting for a router that is not there.
        if inheritance.settings.fallback != nil { limits.absenceMilliseconds = limits.routerTimeoutMilliseconds }
        limits.progressMaxMilliseconds = Int64(inheritance.settings.verdictTimeoutMilliseconds)
        let generation = Int(clamping: inheritance.generation)
        routers = Routers(limits: limits, generation: generation)
        if inheritance.settings.workers > 1 { routers.shareClients() }
        canary = Self.beside(inheritance.settings.canaryRouter, limits, .canary, generation)
        shadow = Self.beside(inheritance.settings.shadowRouter, limits, .shadow, generation)
        resolver = try Resolver()
        cache = VerdictCache(listeners: listeners.map(\.name))
        control = inheritance.takeControl()
        try around.poller.add(control.raw, .readable, Token(slot: 0, generation: 0, kind: TokenKind.control))
        try around.poller.add(signals.raw, .readable, Token(slot: 0, generation: 0, kind: TokenKind.signals))
        try around.poller.add(resolver.raw, .readable, Token(slot: 0, generation: 0, kind: TokenKind.resolver))
    }

    /// A sixteenth of the descriptors, two a pipe.
    private static func pipesMax() -> Int {
        guard let limits = try? Process.descriptorLimits() else { return Limits.pipesMax }
        return min(Limits.pipesMax, Int(clamping: limits.soft) / 32)
    }

    /// So many descriptors a connection, and a reserve for pipes, routers, logs: what a limit of open files allows.
    private static func connectionsPossible(_ openFiles: UInt64, each: Int) -> Int {
        // Of a small limit no more than a quarter is kept back.
        let soft = Int(clamping: openFiles)
        let reserve = min(Limits.descriptorReserve + 2 * Limits.pipesMax, soft / 4)
        return max(1, (soft - reserve) / each)
    }

    private static func warn(_ log: Logger, _ openFiles: UInt64?, _ possible: Int, _ wanted: Int) {
        guard let openFiles, possible < wanted else { return }
        log.warning(
            "the limit of \(openFiles) open files allows \(possible) connections, not \(wanted) (--worker-connections); raise it with ulimit -n"
        )
    }

    /// Beside the two descriptors of a connection, each direction that is rewritten takes one.
    func makeRoom(rewrittenDirections count: Int) {
        guard count > rewrittenDirections, let openFiles = (try? Process.descriptorLimits())?.soft else { return }
        rewrittenDirections = count
        connectionsPossible = Self.connectionsPossible(openFiles, each: 2 + count)
        let before = connectionsMax
        connectionsMax = min(connectionsPossible, settings.workerConnections)
        if connectionsMax < before { Self.warn(log, openFiles, connectionsMax, settings.workerConnections) }
    }

    // MARK: - The loop

    /// Serves until it is told to end; returns the exit status.
    func run() throws(Errno) -> Int32 {
        startRouters()
        serveRouters()
        while true {
            let count = try around.poller.wait(timeoutMilliseconds: timeout())
            around.nowMicroseconds = Int64(clamping: Instant.now().nanoseconds / 1000)
            for index in 0..<count { dispatch(around.poller.event(index)) }
            resume()
            expire()
            advanceRouters()
            serveStreams()
            serveRouters()
            if !waitingOrders.isEmpty { sendOrders() }
            accessLog?.flush()
            try changeStage()
            if case .ended(let status) = stage {
                endRouters()
                return status
            }
            if now >= nextHeartbeat { beat() }
        }
    }

    /// How long nothing has to be done unless something happens.
    private func timeout() -> Int32 {
        if !unfinished.isEmpty || !unexplainedEnds.isEmpty { return 0 }
        var wait = max(0, nextHeartbeat - now)
        if let next = timers.millisecondsUntilNext(now: now) { wait = min(wait, next) }
        if let next = nextRouterDeadline { wait = min(wait, max(0, next - now)) }
        if let next = acceptor.deadline { wait = min(wait, max(0, next - now)) }
        if let next = nextStreamDeadline { wait = min(wait, max(0, next - now)) }
        if !waitingOrders.isEmpty { wait = min(wait, Int64(Limits.ordersPauseMilliseconds)) }
        return Int32(clamping: wait)
    }

    private func dispatch(_ event: Poller.Event) {
        let token = event.token
        switch token.kind {
        case TokenKind.client: deliver(token, .ready(.client, event.readiness))
        case TokenKind.remote: deliver(token, .ready(.remote, event.readiness))
        case TokenKind.racer: deliver(token, .ready(.racer, event.readiness))
        case TokenKind.routerSocket: routerReady(token, event.readiness)
        case TokenKind.routerErrors: routerSpeaks(token)
        case TokenKind.routerProcess: routerEnded(token)
        case TokenKind.listener: accept(Int(token.slot))
        case TokenKind.control: obey()
        case TokenKind.signals: handleSignals()
        case TokenKind.resolver: takeAddresses()
        case TokenKind.toRemoteRewriter: deliver(token, .ready(.rewriter(.toRemote), event.readiness))
        case TokenKind.toClientRewriter: deliver(token, .ready(.rewriter(.toClient), event.readiness))
        case TokenKind.streamDoor: acceptRewriters()
        case TokenKind.streamDialer: hearRewriter(token)
        default: log.error("an event of an unknown kind \(token.kind)")
        }
    }

    /// Lets something happen to the connection a token names, if it still is that connection.
    func deliver(_ token: Token, _ event: ConnectionEvent) {
        guard connections.holds(token.slot, generation: token.generation) else { return }
        handle(token.slot, event)
    }

    /// The next turn of those whose share was used up.
    private func resume() {
        guard !unfinished.isEmpty else { return }
        swap(&unfinished, &resuming)
        for token in resuming where connections.holds(token.slot, generation: token.generation) {
            connections[token.slot].waitsForTurn = false
            handle(token.slot, .resume)
        }
        resuming.removeAll(keepingCapacity: true)
    }

    private func expire() {
        timers.advance(to: now, into: &due)
        guard !due.isEmpty else { return }
        for slot in due where connections.isTaken(slot) { handle(slot, .deadline(wait(slot))) }
        due.removeAll(keepingCapacity: true)
    }

    /// Why a connection's question has not been put to a router, if it has one that waits.
    private func wait(_ slot: UInt32) -> QuestionFailure? {
        guard let question = connections[slot].question else { return nil }
        return withRouters(question.role) { $0.wait(question, now: now) }
    }

    // MARK: - Connections

    /// Takes clients of a listener, a few at a time, while there is room for them.
    private func accept(_ listener: Int) {
        guard acceptor.isWatching else { return }
        var count = 0
        var isEmpty = false
        taking: while count < acceptor.turn, hasRoom {
            switch acceptor.take(listener, now: now) {
            case .client(let accepted):
                count += 1
                admit(accepted, listener)
            case .none:
                isEmpty = true
                break taking
            case .failed(let complaint):
                if let complaint { log.warning("\(complaint)") }
                break taking
            }
        }
        acceptor.learn(taken: count, queueWasEmpty: isEmpty)
        guard count > 0 else { return }
        do throws(Errno) {
            try acceptor.endTurn(listener, now: now, around.poller)
        } catch {
            log.error("cannot watch \(acceptor.name(listener)): \(error)")
        }
    }

    /// Takes what is queued on every listener, until there are so many connections: after this nobody here will.
    func acceptRest(upTo most: Int) {
        for listener in acceptor.listeners.indices {
            taking: while connections.count < most {
                switch acceptor.take(listener, now: now) {
                case .client(let accepted): admit(accepted, listener)
                case .none: break taking
                case .failed: break taking
                }
            }
        }
    }

    /// Whether another client may be accepted.
    var hasRoom: Bool { stage == .serving && connections.count < connectionsMax && !routers.isFull }

    private func admit(_ accepted: consuming Socket.Accepted, _ listener: Int) {
        connectionSerial &+= 1
        let serial = connectionSerial
        let address = accepted.address
        var client: Transport? = Transport(accepted.take())
        if acceptor.listeners[listener].isTLS {
            guard let raw = client?.raw, let listenerTLS,
                let session = TLSSession(listener: listenerTLS, socket: raw, wire: around.pools.wire)
            else { return log.error("no memory for a TLS session: a client is closed") }
            client!.speak(session)
        }
        let slot = connections.insert { slot, generation in
            let facts = Facts(
                token: Token(slot: slot, generation: generation, kind: TokenKind.client), serial: serial,
                listener: listener, client: address, acceptedAt: around.nowMicroseconds)
            guard let client = client.take() else { preconditionFailure("insert calls its body once") }
            return Connection(client: client, facts, around)
        }
        scoreboard.add(.accepted)
        // What has come already is read at once: the question then leaves in this round.
        handle(slot, .ready(.client, []))
    }

    /// Lets one thing happen to a connection and does what it asks for.
    func handle(_ slot: UInt32, _ event: ConnectionEvent) {
        let effects = connections[slot].handle(event, &around)
        switch effects.asking {
        case .nothing: break
        case .question: ask(slot, .proxy)
        case .errorQuestion: ask(slot, .proxyError)
        case .withdraw: withdraw(slot)
        }
        guard connections.isTaken(slot) else { return }
        if let remark = effects.remark { note(slot, remark, connections[slot].phase.reason ?? .undecided) }
        if let reason = connections[slot].closeReason ?? effects.watchFailure {
            close(slot, reason)
            return
        }
        // Once in the queue, however many of the round's events left something to do.
        if effects.moreToDo, !connections[slot].waitsForTurn {
            connections[slot].waitsForTurn = true
            unfinished.append(connections[slot].facts.token)
        }
        timers.set(slot, deadline: connections[slot].phase.deadline)
        // Last: a look-up that is refused, or a stream that nobody rewrites, may be the connection's end.
        if let name = effects.lookUp { lookUp(name, slot) }
        if effects.concernsStreams { tendStreams(slot, effects) }
    }

    private func ask(_ slot: UInt32, _ kind: QuestionKind) {
        let asker = Asker(rawValue: connections[slot].facts.token.bits)
        if kind == .proxyError {
            connections[slot].facts.errorQuestions += 1
            if connections[slot].facts.errorQuestions > Limits.errorQuestionsMax {
                return handle(slot, .routerFailed(.overloaded))
            }
        }
        switch kind {
        case .proxy: if !isForCanary(slot), let kept = findKept(slot) { return handle(slot, .verdict(kept)) }
        case .proxyError: dropKept(slot)
        }
        // One question a connection: an event that gives one up and asks the next says only the latter.
        withdraw(slot)
        switch askRouters(slot, asker, kind) {
        case .accepted(let question): connections[slot].question = question
        case .refused(let failure): questionFailed(slot, failure)
        }
    }

    /// A question ends without a verdict.
    func questionFailed(_ slot: UInt32, _ failure: QuestionFailure) {
        if failure != .notImplemented { note(slot, failure.remark, CloseReason(failure)) }
        handle(slot, .routerFailed(CloseReason(failure)))
    }

    func withdraw(_ slot: UInt32) {
        guard let question = connections[slot].question else { return }
        connections[slot].question = nil
        withdrawFromRouters(question, Asker(rawValue: connections[slot].facts.token.bits))
    }

    /// The end of a connection: whatever it held is closed by being dropped, and the access line is written.
    func close(_ slot: UInt32, _ reason: CloseReason) {
        withdraw(slot)
        timers.set(slot, deadline: nil)
        let facts = connections[slot].facts
        forgetStreams(facts.token)
        _ = connections.remove(slot)
        scoreboard.add(.closed)
        scoreboard.add(.bytesToRemote, facts.bytesToRemote)
        scoreboard.add(.bytesToClient, facts.bytesToClient)
        tellClosed(facts, reason)
        guard accessLog != nil else { return }
        accessLog?.append(
            AccessRecord(
                id: id(facts), client: facts.client.endpoint, listener: acceptor.name(facts.listener),
                verdict: facts.verdict, remote: facts.remote, attempts: facts.attempts,
                verdictMicroseconds: facts.verdictAt.map { UInt64(clamping: $0 - facts.acceptedAt) },
                connectMicroseconds: facts.connectedAt.map { UInt64(clamping: $0 - (facts.verdictAt ?? $0)) },
                durationMicroseconds: UInt64(clamping: around.nowMicroseconds - facts.acceptedAt),
                bytesToRemote: facts.bytesToRemote, bytesToClient: facts.bytesToClient, reason: reason.rawValue,
                note: facts.note))
    }

    /// Tells the router that decides about the end of a connection, if it wants to know and reads.
    private func tellClosed(_ facts: Facts, _ reason: CloseReason) {
        guard wantsClosed, let holder = routers.anyHolder, let slot = linkSlot(holder), !links[slot].isBlocked
        else { return }
        let notice = Notice.closed(
            connection: id(facts), bytesToRemote: facts.bytesToRemote, bytesToClient: facts.bytesToClient,
            durationMilliseconds: UInt64(clamping: (around.nowMicroseconds - facts.acceptedAt) / 1000),
            reason: reason.rawValue)
        links[slot].write { notice.append(to: &$0) }
        unflushed.append(slot)
    }

    /// The id that routers and logs know a connection by: unique for the life of the arbiter.
    func id(_ facts: Facts) -> String { "\(serial).\(facts.serial)" }

    /// The serial number of the connection that has this id, if it is one of this worker's.
    func connectionSerial(of id: String) -> UInt64? {
        let own = "\(serial)."
        guard id.hasPrefix(own), let number = UInt64(id.dropFirst(own.count)), "\(own)\(number)" == id else {
            return nil
        }
        return number
    }

    /// Logs why a connection does not go as it should: at most one line a second for each cause.
    func note(_ slot: UInt32, _ remark: String, _ reason: CloseReason) {
        let facts = connections[slot].facts
        guard let leftOut = paces[reason, default: LogPace()].permit(at: now) else { return }
        let more = leftOut > 0 ? " (and \(leftOut) more like it)" : ""
        let client = facts.client.endpoint.map { "\($0)" } ?? "a Unix client"
        connectionLog.warning("connection \(id(facts)) from \(client): \(String(showing: remark.utf8))\(more)")
    }

    // MARK: - Names

    private func lookUp(_ name: String, _ slot: UInt32) {
        let deadline = connections[slot].phase.deadline ?? .max
        let requester = lookUpToken(connections[slot].facts).bits
        if case .refused(let failure) = resolver.start(name, requester: requester, deadline: deadline) {
            handle(slot, .namesFailed("\(failure)"))
        }
    }

    /// Names a connection and which of its remotes the answer is for: that of a remote already given up comes late, and
    /// its addresses must not be taken for those of the next one.
    private func lookUpToken(_ facts: Facts) -> Token {
        facts.token.with(kind: UInt8(truncatingIfNeeded: facts.attempts))
    }

    private func takeAddresses() {
        for (requester, result) in resolver.collect() {
            let token = Token(bits: requester)
            guard connections.holds(token.slot, generation: token.generation),
                lookUpToken(connections[token.slot].facts) == token
            else { continue }
            switch result {
            case .success(let addresses):
                let port = connections[token.slot].facts.remote?.port ?? 0
                handle(token.slot, .names(addresses.map { $0.with(port: port) }))
            case .failure(let failure): handle(token.slot, .namesFailed("\(failure)"))
            }
        }
    }

    // MARK: - The heartbeat

    private func beat() {
        nextHeartbeat = now + Int64(Limits.heartbeatMilliseconds)
        scoreboard.beat(at: .now())
        scoreboard[.connections] = UInt64(connections.count)
        scoreboard[.openQuestions] = UInt64(clamping: routers.openCount - routers.waitingCount)
        scoreboard[.waitingQuestions] = UInt64(clamping: routers.waitingCount)
        scoreboard[.pipesLent] = UInt64(clamping: around.pools.pipesLent)
        scoreboard[.questions] = routers.counters.sent
        scoreboard[.answers] = routers.counters.answered
        scoreboard[.replays] = routers.counters.replayed
        scoreboard[.lateAnswers] = routers.counters.lateAnswers
        scoreboard[.routerRestarts] = routers.counters.lost
        scoreboard[.poisonousQuestions] = routers.counters.poisonous
        scoreboard[.cacheHits] = cache.counters.hits
        scoreboard[.cacheMisses] = cache.counters.misses
        scoreboard[.cacheEntries] = UInt64(clamping: cache.count)
        unreaped.removeAll { Process.reap($0) != nil }
        tellErrorLinesLeftOut()
        logFile.flush()
        if connections.count != shownConnections { showTitle() }
    }

    func showTitle() {
        shownConnections = connections.count
        let what =
            stage == .serving || stage == .booting ? "handling \(shownConnections) connections" : "stop accepting"
        ProcessTitle.set("tproxy: worker [\(settings.name)] - \(what)")
    }
}

extension CloseReason {
    /// Why no verdict came.
    init(_ failure: QuestionFailure) {
        self =
            switch failure {
            case .deadline: .routerTimeout
            case .noRouter: .noRouter
            case .overloaded: .overloaded
            case .poison: .poison
            case .notImplemented: .routerError
            }
    }
}
