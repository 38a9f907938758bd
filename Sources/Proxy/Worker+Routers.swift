// The worker's side towards its routers: carries out what `Routers` decides. Worker+Answers.swift hears what they say,
// Worker+RouterEnds.swift sees them end.

import Config
import Control
import Glibc
import Linux
import Logging
import Reactor
import RouterProtocol
import SystemPackage

extension Worker {
    /// Does what `Routers` decides and writes what came of it. A router that reads again may be asked more at once, and one that
    /// does not is replaced: nothing else would bring us back for that.
    func serveRouters() {
        repeat { performRouterActions() } while flushRouters()
    }

    private func performRouterActions() {
        while let (action, role) = nextRouterAction() {
            switch action {
            case .spawn(let id, _, let generation): spawn(id, generation)
            case .send(let question):
                send(question)
                if role == .main, question.kind == .proxy, question.replay == 0 {
                    askShadow(question.asker, Token(bits: question.asker.rawValue).slot)
                }
            case .cancel(let id, let question, let asker):
                let connection = withdrawn[asker] ?? connectionID(Token(bits: asker.rawValue))
                write(id) { Notice.cancel(id: question, connection: connection).append(to: &$0) }
            case .shutdown(let id, let told):
                guard let slot = linkSlot(id) else { break }
                if told { links[slot].write { Notice.shutdown.append(to: &$0) } }
                // At once, not at the end of the round: nothing may follow.
                flush(slot)
                links[slot].endInput()
            case .terminate(let id): if let slot = linkSlot(id) { links[slot].signal(SIGTERM) }
            case .kill(let id): if let slot = linkSlot(id) { links[slot].signal(SIGKILL) }
            case .release(let id): release(id)
            case .fail(let asker, _) where role == .shadow: shadowFailed(asker)
            case .fail(let asker, let failure) where role == .canary && failure != .notImplemented:
                askInsteadOfCanary(asker)
            case .fail(let asker, let failure):
                undecided(asker)
                let token = Token(bits: asker.rawValue)
                guard connections.holds(token.slot, generation: token.generation) else { break }
                connections[token.slot].question = nil
                questionFailed(token.slot, failure)
            case .ready where role != .main, .bootFailed where role != .main, .reloaded where role != .main: break
            case .reloadFailed where role != .main: scoreboard.add(.reloadsFailed)
            case .ready:
                // It may have been told to end in the same turn of the loop: then it stays with that.
                guard stage == .booting else { break }
                stage = .serving
                scoreboard[.state] = WorkerState.serving.rawValue
                control.send(.ready)
            case .bootFailed(let end):
                // The arbiter says it.
                control.send(.bootFailed("the router \(settings.router.text) \(reason(end))"))
                stage = .ended(status: WorkerProcess.bootFailureStatus)
            case .reloaded:
                cache.reload()
                scoreboard[.generation] = generation
                if let number = reloadNumber { control.send(.reloaded, number: number) }
                reloadNumber = nil
            case .reloadFailed(let end):
                scoreboard.add(.reloadsFailed)
                if let number = reloadNumber {
                    control.send(.reloadFailed("the new router \(reason(end))"), number: number)
                }
                reloadNumber = nil
            case .drained: if case .leaving = stage, routersHaveLeft { stage = .ended(status: 0) }
            case .note(let routerNote):
                routerLog.log(level: routerNote.level.logLevel, "\(routerNote)")
                // The one before decides again, and wants what it wanted.
                if role == .main, case .undone(_, _, let old?, _, _) = routerNote, let slot = linkSlot(old) {
                    takeWishes(links[slot].abilities)
                }
            }
        }
        if !withdrawn.isEmpty { withdrawn.removeAll(keepingCapacity: true) }
    }

    /// What is told and asked besides the bytes of clients is what the main router wants, whoever decides.
    func takeWishes(_ abilities: HelloAnswer) {
        wantsClosed = abilities.methods.contains(.closed)
        let before = around.wantedEvents
        around.wantedEvents = abilities.events.reduce(into: EventSet()) { $0.insert(EventSet($1)) }
        guard !around.wantedEvents.subtracting(before).isEmpty else { return }
        // Those who wait for a router that was not there may be what it wants to hear of.
        var undecided: [UInt32] = []
        connections.forEachSlot { slab, slot in if slab[slot].phase.clientSocket != nil { undecided.append(slot) } }
        for slot in undecided where connections.isTaken(slot) { handle(slot, .resume) }
    }

    private func spawn(_ id: RouterID, _ generation: Int) {
        let started: RouterLink
        do throws(RouterLink.Failure) {
            started = try startLink(id, generation, spec(id.role))
        } catch {
            return withRouters(id.role) { $0.died(id, RouterEnd(error), now: now) }
        }
        do throws(Errno) {
            var link: RouterLink? = started
            let slot = links.insert { _, _ in
                guard let link = link.take() else { preconditionFailure("insert calls its body once") }
                return link
            }
            linkSlots.append((id, slot))
            let token = Token(slot: slot, generation: links.generation(slot), kind: TokenKind.routerSocket)
            try around.poller.add(links[slot].socketNumber, .readable, token)
            if let raw = links[slot].processNumber {
                try around.poller.add(raw, .readable, token.with(kind: TokenKind.routerProcess))
            }
            if let raw = links[slot].errorsNumber {
                try around.poller.add(raw, .readable, token.with(kind: TokenKind.routerErrors))
            }
            greet(slot, generation)
        } catch {
            withRouters(id.role) { $0.died(id, .spawnFailed(error.rawValue), now: now) }
        }
    }

    /// Starts a router's process, or connects to the router that somebody else runs.
    private func startLink(
        _ id: RouterID, _ generation: Int, _ spec: RouterSpec
    ) throws(RouterLink.Failure) -> RouterLink {
        if let path = spec.socketPath { return try RouterLink(id, generation: generation, path: path) }
        do throws(Errno) {
            return try RouterLink(
                id, generation: generation, arguments: spec.arguments, environment: routerEnvironment,
                softDescriptorLimit: softDescriptorLimit)
        } catch {
            throw .unstartable(error)
        }
    }

    /// The first id of each router: questions come after it.
    static let helloID: UInt64 = 1

    private func greet(_ slot: UInt32, _ generation: Int) {
        let hello = Hello(
            id: Self.helloID, version: Product.version, worker: "\(serial)", generation: generation,
            listeners: acceptor.listeners.map { Hello.Listener(name: $0.name, address: $0.address.endpoint) },
            limits: Hello.Limits(
                lineBytesMax: Limits.routerLineBytesMax, initialBytesMax: settings.maxInitialBytes,
                routerTimeoutMilliseconds: settings.routerTimeoutMilliseconds,
                verdictTimeoutMilliseconds: settings.verdictTimeoutMilliseconds),
            streams: door.address)
        links[slot].write { hello.append(to: &$0) }
        unflushed.append(slot)
    }

    /// Puts a question, first or again, from what its connection holds.
    private func send(_ question: QuestionToSend) {
        // A shadow's question is about the connection of the one it is compared with.
        guard let asker = subject(question.asker, question.router.role) else { return }
        let token = Token(bits: asker.rawValue)
        guard connections.holds(token.slot, generation: token.generation), let slot = linkSlot(question.router)
        else { return }
        let facts = connections[token.slot].facts
        let client = facts.client.endpoint
        let listener = acceptor.name(facts.listener)
        let deadline = Int(clamping: question.deadlineMilliseconds)
        switch question.kind {
        case .proxy:
            let local = acceptor.local(facts.listener) { connections[token.slot].phase.clientSocket }
            let tls = connections[token.slot].phase.tlsFacts
            connections[token.slot].phase.withQuestion { asked, data in
                let message = RouterProtocol.Question(
                    id: question.id, connection: id(facts), event: asked.event, client: client, local: local,
                    listener: listener, replay: Int(question.replay), deadlineMilliseconds: deadline,
                    state: asked.state)
                let told = asked.hello.map { ClientHelloFacts($0, data) }
                links[slot].write { message.append(to: &$0, data: data, clientHello: told, tls: tls) }
            }
        case .proxyError:
            guard let failure = connections[token.slot].phase.failure else { return }
            let message = ErrorQuestion(
                id: question.id, connection: id(facts), failure: failure.kind, message: failure.message,
                errno: failure.errno?.rawValue, attempts: failure.attempts, client: client, remote: failure.remote,
                listener: listener, replay: Int(question.replay), deadlineMilliseconds: deadline)
            links[slot].write { message.append(to: &$0) }
        }
        if links[slot].hasMuchOutgoing { flush(slot) }
        unflushed.append(slot)
    }

    private func write(_ id: RouterID, _ append: (inout [UInt8]) -> Void) {
        guard let slot = linkSlot(id) else { return }
        links[slot].write(append)
        unflushed.append(slot)
    }

    /// One write for all lines of the round. True when a router has begun to read again, or is given up for not reading: that brings
    /// more to do.
    private func flushRouters() -> Bool {
        var bringsMore = false
        for slot in unflushed where links.isTaken(slot) && links[slot].hasOutgoing {
            if flush(slot) { bringsMore = true }
            guard links[slot].unreadBytes > Limits.routerUnreadBytesMax, !links[slot].isGivenUp else { continue }
            routerLog.error(
                "router \(links[slot].id) does not read: \(links[slot].unreadBytes) bytes wait for it that are no questions"
            )
            giveUp(slot, .unread)
            bringsMore = true
        }
        unflushed.removeAll(keepingCapacity: true)
        return bringsMore
    }

    /// Writes what is outgoing. True when that was blocked before and is not any more.
    @discardableResult
    func flush(_ slot: UInt32) -> Bool {
        let id = links[slot].id
        let wasBlocked = links[slot].isBlocked
        do throws(Errno) {
            try links[slot].flush()
        } catch {
            // Its answers, if there are any, are read before its end is; nothing is written to it any more.
            if wasBlocked { watch(slot, .readable) }
            return false
        }
        guard links[slot].isBlocked != wasBlocked else { return false }
        watch(slot, links[slot].isBlocked ? [.readable, .writable] : .readable)
        let isBlocked = links[slot].isBlocked
        withRouters(id.role) { $0.blocked(id, isBlocked, now: now) }
        return wasBlocked
    }

    private func watch(_ slot: UInt32, _ interest: Readiness) {
        let token = Token(slot: slot, generation: links.generation(slot), kind: TokenKind.routerSocket)
        try? around.poller.modify(links[slot].socketNumber, interest, token)
    }

    private func release(_ id: RouterID) {
        guard let index = linkSlots.firstIndex(where: { $0.id == id }) else { return }
        let slot = linkSlots.remove(at: index).slot
        readErrors(slot)
        tellErrorLinesLeftOut(slot, isOver: true)
        if let pid = links[slot].unreaped {
            links[slot].signal(SIGKILL)
            unreaped.append(pid)
        }
        _ = links.remove(slot)
    }

    func linkSlot(_ id: RouterID) -> UInt32? { linkSlots.first { $0.id == id }?.slot }

    /// Whose connection a question is about.
    private func subject(_ asker: Asker, _ role: RouterRole) -> Asker? {
        role == .shadow ? comparisons[asker]?.asker : asker
    }

    func connectionID(_ token: Token) -> String {
        connections.holds(token.slot, generation: token.generation) ? id(connections[token.slot].facts) : ""
    }
}

extension RouterNote.Level {
    var logLevel: Logger.Level {
        switch self {
        case .debug: .debug
        case .info: .info
        case .warning: .warning
        case .error: .error
        }
    }
}

extension QuestionFailure {
    /// As the log says it of a connection that gets no verdict for it.
    var remark: String { "no verdict: \(words)" }

    /// As the log says it.
    var words: String {
        switch self {
        case .deadline: "the router did not answer in time"
        case .noRouter: "there is no router"
        case .overloaded: "too many questions wait for the router"
        case .poison: "routers die of it: it was the only question when one did, again"
        case .notImplemented: "the router does not answer that"
        }
    }
}
