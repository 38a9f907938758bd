// The worker's side towards its routers: carries out what `Routers` decides, and tells it what came of it.

import Addressing
import Config
import Control
import Glibc
import Linux
import Logging
import Logs
import Reactor
import RouterProtocol
import SystemPackage

extension Worker {
    /// What one line of a router comes to, once the link has been let go of.
    private enum Incoming {
        case nothing
        case greeting(HelloAnswer)
        case badGreeting(String)
        case answer(Answer)
        case close(CloseOrder)
        case stream(StreamNotice)
        case unreadable(String)
        case stray(String)
    }

    /// An answer, and what becomes of it.
    private struct Answer {
        let id: UInt64
        /// Nil when nobody waits for it any more.
        var question: AnsweredQuestion?
        var event = ConnectionEvent.resume
        /// The verdict names a descriptor of the router's, which has to be had first.
        var file: FileVerdict?
        /// What a shadow said: it is compared, and nothing else.
        var outcome: Outcome?
        /// Whether a descriptor came with it or is to be let go of, whatever else becomes of it.
        var claim = DescriptorClaim.none
    }

    private static let helloID: UInt64 = 1

    // MARK: - What Routers decides

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
    private func takeWishes(_ abilities: HelloAnswer) {
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
    private func flush(_ slot: UInt32) -> Bool {
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

    // MARK: - What comes from routers

    func routerReady(_ token: Token, _ readiness: Readiness) {
        guard links.holds(token.slot, generation: token.generation) else { return }
        if readiness.contains(.writable) { flush(token.slot) }
        guard !readiness.isDisjoint(with: [.readable, .hangUp, .error]) else { return }
        readRouter(token.slot)
    }

    /// Reads what a router wrote, many lines to a read, and acts on each. Bounded: a flood waits for the next round. A short read
    /// is taken for the last word, for it nearly always is; `toTheEnd`: only the kernel's is, for a descriptor that comes with a
    /// line cuts a read short as well. False: there may be more.
    @discardableResult
    func readRouter(_ slot: UInt32, toTheEnd: Bool = false) -> Bool {
        let id = links[slot].id
        for _ in 0..<Self.readsPerTurn {
            let received: Transfer
            do throws(Errno) {
                received = try links[slot].receive()
            } catch {
                giveUp(slot, .closed)
                return true
            }
            switch received {
            case .wouldBlock: return true
            case .endOfStream:
                socketEnded(slot)
                return true
            case .moved(let count):
                withRouters(id.role) { $0.heard(id, now: now) }
                guard takeLines(slot) else { return true }
                if count < Self.fullRead, !toTheEnd { return true }
            }
        }
        return false
    }

    private static let readsPerTurn = 16
    private static let fullRead = 65_536

    /// Acts on every whole line; false when the router was given up over one.
    private func takeLines(_ slot: UInt32) -> Bool {
        let router = links[slot].id
        while true {
            let isGreeted = links[slot].isGreeted
            let mindsDescriptors = links[slot].holdsDescriptors || links[slot].abilities.methods.contains(.taken)
            switch links[slot].nextLine({ understand($0, router, isGreeted, mindsDescriptors) }) {
            case .incomplete:
                links[slot].closeSurplus()
                return true
            case .overflow:
                routerLog.error("router \(router) wrote a line of more than \(Limits.routerLineBytesMax) bytes")
                giveUp(slot, .brokenFraming)
                return false
            case .line(let incoming):
                guard act(incoming, slot) else { return false }
                if mindsDescriptors, links[slot].closePassed() { tellUnclaimed(slot) }
            }
        }
    }

    /// Decodes one line. It is lent by the link, so nothing here touches the links.
    private func understand(
        _ line: Span<UInt8>, _ router: RouterID, _ isGreeted: Bool, _ mindsDescriptors: Bool
    ) -> Incoming {
        do throws(ProtocolError) {
            switch try RouterMessage.parse(line) {
            case .answer(Self.helloID, let result) where !isGreeted:
                do throws(ProtocolError) {
                    return .greeting(try HelloAnswer.decode(line, result))
                } catch {
                    return .badGreeting("\(error)")
                }
            case .failure(Self.helloID, _, _) where !isGreeted: return .greeting(.bare)
            case .answer(let id, let result):
                var answer = answered(line, result, router, id)
                if mindsDescriptors { answer.claim = DescriptorClaim(line, result) }
                return .answer(answer)
            case .failure(let id, let code, let message):
                var answer = Answer(
                    id: id, question: withRouters(router.role) { $0.answered(router, id: id, now: now) })
                guard let question = answer.question else { return .nothing }
                if router.role == .shadow {
                    answer.outcome = .refused
                    return .answer(answer)
                }
                decided(question.asker, .refused)
                scoreboard.add(.routerErrors)
                remark(question, "the router answered with error \(code): \(message)", .routerError)
                answer.event = .routerFailed(.routerError)
                return .answer(answer)
            case .progress(let id, let milliseconds):
                withRouters(router.role) {
                    $0.progressed(router, id: id, milliseconds: Int64(milliseconds), now: now)
                }
                return .nothing
            case .invalidate where router.role == .shadow, .close where router.role == .shadow: return .nothing
            case .invalidate(let invalidation):
                cache.invalidate(invalidation)
                tellOthers(line, instead: WaitingOrders.invalidateAll)
                return .nothing
            case .close(let order):
                tellOthers(line, instead: nil)
                return .close(order)
            case .streamEnd(let token): return .stream(.end(token))
            case .detach(let token): return .stream(.detach(token))
            case .ignored: return .nothing
            case .stray: return .stray(text(line))
            }
        } catch {
            return .unreadable("\(error): \(text(line))")
        }
    }

    /// Decodes an answer against the question it is to.
    private func answered(_ line: Span<UInt8>, _ result: Range<Int>, _ router: RouterID, _ id: UInt64) -> Answer {
        var answer = Answer(id: id, question: withRouters(router.role) { $0.answered(router, id: id, now: now) })
        guard let question = answer.question else { return answer }
        if router.role == .shadow {
            let dataBytes = comparisons[question.asker]?.dataBytes ?? 0
            let limits = VerdictLimits(dataBytes: dataBytes, initialBytesMax: settings.maxInitialBytes)
            answer.outcome = (try? Verdict.decode(line, result, limits: limits)).map { .verdict($0) } ?? .refused
            return answer
        }
        let token = Token(bits: question.asker.rawValue)
        guard connections.holds(token.slot, generation: token.generation) else { return answer }
        do throws(ProtocolError) {
            switch question.kind {
            case .proxyError: answer.event = .errorAnswer(try ProxyErrorAnswer.decode(line, result))
            case .proxy:
                let limits = VerdictLimits(
                    dataBytes: connections[token.slot].phase.askedBytes, initialBytesMax: settings.maxInitialBytes)
                let verdict = try Verdict.decode(line, result, limits: limits)
                answer.event = .verdict(verdict)
                if router.role == .main {
                    keep(verdict, token.slot)
                    decided(question.asker, .verdict(verdict))
                }
                if case .file(let file) = verdict, case .descriptor = file.source { answer.file = file }
            }
        } catch {
            decided(question.asker, .refused)
            scoreboard.add(.badVerdicts)
            remark(question, "the router's verdict is refused: \(error)", .badVerdict)
            answer.event = .routerFailed(.badVerdict)
        }
        return answer
    }

    /// Carries out what a line came to; false when the router was given up over it.
    private func act(_ incoming: Incoming, _ slot: UInt32) -> Bool {
        let router = links[slot].id
        switch incoming {
        case .nothing: links[slot].unreadableLines = 0
        case .greeting(let answer):
            links[slot].unreadableLines = 0
            links[slot].abilities = answer
            links[slot].isGreeted = true
            let methods = answer.methods
            let abilities = RouterAbilities(
                maxInFlight: answer.inFlightMax, answersProxyError: methods.contains(.proxyError),
                wantsCancel: methods.contains(.cancel), wantsShutdown: methods.contains(.shutdown))
            withRouters(router.role) { $0.greeted(router, abilities, now: now) }
            if router.role == .main { takeWishes(answer) }
            if router.role != .shadow, !methods.rewrites.isEmpty { openDoor(methods.rewrites) }
        case .badGreeting(let why):
            routerLog.error("router \(router): its answer to hello cannot be used: \(why)")
            giveUp(slot, .badGreeting)
            return false
        case .answer(let answer):
            links[slot].unreadableLines = 0
            tellIgnored(answer.event, slot)
            carryOut(answer, slot)
        case .close(let order):
            links[slot].unreadableLines = 0
            carryOut(order)
        case .stream(let notice):
            links[slot].unreadableLines = 0
            heed(notice, of: router)
        case .stray(let text):
            if let leftOut = links[slot].strayPace.permit(at: now) {
                let more = leftOut > 0 ? " (and \(leftOut) more lines)" : ""
                routerLog.info("router \(router) wrote a line that is no message: \(text)\(more)")
            }
        case .unreadable(let why):
            links[slot].unreadableLines += 1
            if let leftOut = links[slot].strayPace.permit(at: now) {
                let more = leftOut > 0 ? " (and \(leftOut) more lines)" : ""
                routerLog.warning("router \(router) wrote what cannot be understood: \(why)\(more)")
            }
            if links[slot].unreadableLines >= Limits.strayLinesMax {
                routerLog.error(
                    "router \(router) wrote \(Limits.strayLinesMax) lines in a row that cannot be understood")
                giveUp(slot, .brokenFraming)
                return false
            }
        }
        return true
    }

    /// The verdict happens to its connection; only then is the question forgotten.
    private func carryOut(_ answer: Answer, _ slot: UInt32) {
        var passed: Descriptor? = answer.claim == .attached ? links[slot].takePassed() : nil
        if answer.claim != .none, links[slot].abilities.methods.contains(.taken) {
            links[slot].write { Notice.taken(id: answer.id).append(to: &$0) }
            unflushed.append(slot)
        }
        guard let question = answer.question else { return }
        if let outcome = answer.outcome {
            shadowed(question, outcome)
            return withRouters(.shadow) { $0.applied(question.token, now: now) }
        }
        var event = answer.event
        if question.token.role == .canary, case .routerFailed = event {
            askInsteadOfCanary(question.asker)
            return withRouters(.canary) { $0.applied(question.token, now: now) }
        }
        if let file = answer.file {
            guard let taken = takeFile(slot, file, passed.take()) else {
                // The router died before its descriptor could be taken: the next one is asked.
                return withRouters(question.token.role) { $0.notApplied(question.token, now: now) }
            }
            event = taken
        }
        let token = Token(bits: question.asker.rawValue)
        if connections.holds(token.slot, generation: token.generation) {
            connections[token.slot].question = nil
            connections[token.slot].facts.decider = links[slot].id
            connections[token.slot].facts.rewritten = links[slot].abilities.methods.rewrites
            handle(token.slot, event)
        }
        around.takenFile = nil
        withRouters(question.token.role) { $0.applied(question.token, now: now) }
    }

    /// Takes the descriptor that a verdict names; nil when the router has ended and can be asked for it no more.
    private func takeFile(_ slot: UInt32, _ verdict: FileVerdict, _ passed: consuming Descriptor?) -> ConnectionEvent? {
        guard case .descriptor(let number, let attached) = verdict.source else { return .verdict(.file(verdict)) }
        let name = "file descriptor \(number) of the router"
        var descriptor = passed.take()
        if attached {
            if descriptor == nil { return .fileFailed(verdict, "\(name) did not come with the verdict") }
        } else {
            do throws(Errno) {
                descriptor = try links[slot].copyDescriptor(number)
            } catch {
                // Somebody else's router may be gone as well, but its next one knows this descriptor no better.
                if links[slot].processNumber != nil, links[slot].hasEnded { return nil }
                return .fileFailed(verdict, "\(name) could not be taken: \(error)")
            }
        }
        guard let descriptor = descriptor.take() else { return .fileFailed(verdict, "\(name) is missing") }
        do throws(RegularFile.Failure) {
            around.takenFile = try RegularFile(descriptor)
            return .takenFile(verdict)
        } catch {
            let why = if case .system(let errno) = error { "\(errno)" } else { "not a regular file" }
            return .fileFailed(verdict, "\(name): \(why)")
        }
    }

    private func tellUnclaimed(_ slot: UInt32) {
        guard let leftOut = links[slot].strayPace.permit(at: now) else { return }
        let more = leftOut > 0 ? " (and \(leftOut) more lines)" : ""
        routerLog.warning(
            "router \(links[slot].id) passed a descriptor beside a line that takes none (\"attached\": true), or more than one; closed\(more)"
        )
    }

    /// Says once of a router what in its `ssl_args` is for Python alone: a script gives it with each verdict.
    private func tellIgnored(_ event: ConnectionEvent, _ slot: UInt32) {
        let names =
            switch event {
            case .verdict(.remote(let verdict)), .errorAnswer(.remote(let verdict)): verdict.ignoredTLSArguments
            default: [String]()
            }
        guard !names.isEmpty, !links[slot].isIgnoredTold else { return }
        links[slot].isIgnoredTold = true
        let list = names.joined(separator: ", ")
        routerLog.warning("router \(links[slot].id): ssl_args: \(list): about Python's own sockets, and ignored")
    }

    private func remark(_ answered: AnsweredQuestion, _ text: String, _ reason: CloseReason) {
        let token = Token(bits: answered.asker.rawValue)
        guard connections.holds(token.slot, generation: token.generation) else { return }
        note(token.slot, text, reason)
    }

    private func text(_ line: Span<UInt8>, most: Int = shownBytes) -> String {
        var bytes: [UInt8] = []
        for index in 0..<min(line.count, most) { bytes.append(line[index]) }
        return String(showing: bytes, most: most)
    }

    private static let shownBytes = 200

    // MARK: - The ends of routers

    /// Nothing more is read from it, so nothing more will be said of its streams.
    private func stopHearing(_ slot: UInt32) {
        links[slot].isGivenUp = true
        loseStreams(of: links[slot].id)
    }

    private func giveUp(_ slot: UInt32, _ end: RouterEnd) {
        guard !links[slot].isGivenUp else { return }
        stopHearing(slot)
        around.poller.remove(links[slot].socketNumber)
        let id = links[slot].id
        withRouters(id.role) { $0.died(id, end, now: now) }
    }

    /// The router's socket has ended, and most often because its process has: then that says more.
    private func socketEnded(_ slot: UInt32) {
        guard !links[slot].isGivenUp else { return }
        guard links[slot].processNumber != nil else { return giveUp(slot, .closed) }
        guard links[slot].hasEnded else { return awaitEnd(slot) }
        stopHearing(slot)
        around.poller.remove(links[slot].socketNumber)
        // Once it is reaped, whoever did that tells of its end.
        if !links[slot].isReaped { processEnded(slot) }
    }

    /// A process that ends closes its socket first. What it ends with says more about its questions, so it has a moment for
    /// it, in which it is asked nothing.
    private func awaitEnd(_ slot: UInt32) {
        around.poller.remove(links[slot].socketNumber)
        let id = links[slot].id
        loseStreams(of: id)
        withRouters(id.role) { $0.blocked(id, true, now: now) }
        guard links[slot].endsUntil == nil else { return }
        links[slot].endsUntil = now + Self.endMilliseconds
        ending.append(Token(slot: slot, generation: links.generation(slot), kind: TokenKind.routerSocket))
    }

    /// Gives up the routers that have closed their socket and go on running.
    func giveUpClosed() {
        ending.removeAll { token in
            guard links.holds(token.slot, generation: token.generation), !links[token.slot].isGivenUp,
                let until = links[token.slot].endsUntil
            else { return true }
            guard until <= now else { return false }
            giveUp(token.slot, .closed)
            return true
        }
    }

    /// When `giveUpClosed` has something to do.
    var nextEnd: Int64 {
        var earliest = Int64.max
        for token in ending where links.holds(token.slot, generation: token.generation) {
            if let until = links[token.slot].endsUntil { earliest = min(earliest, until) }
        }
        return earliest
    }

    /// A router's interpreter may clean up between the two.
    private static let endMilliseconds: Int64 = 50

    /// The process has ended: what it wrote before is read first, then its end is told.
    func routerEnded(_ token: Token) {
        guard links.holds(token.slot, generation: token.generation) else { return }
        processEnded(token.slot)
    }

    private func processEnded(_ slot: UInt32) {
        let generation = links.generation(slot)
        // What it has forked goes with it; its group can be named only as long as it is not reaped.
        links[slot].signal(SIGKILL)
        guard let status = links[slot].reap() else { return }
        if let raw = links[slot].processNumber { around.poller.remove(raw) }
        for _ in 0..<Self.lastTurns {
            if links[slot].isGivenUp || readRouter(slot, toTheEnd: true) { break }
            guard links.holds(slot, generation: generation) else { return }
        }
        guard links.holds(slot, generation: generation) else { return }
        readErrors(slot)
        if !links[slot].isGivenUp {
            stopHearing(slot)
            around.poller.remove(links[slot].socketNumber)
        }
        let id = links[slot].id
        if id.role == .main { lastWords = links[slot].isGreeted ? nil : links[slot].lastWords }
        withRouters(id.role) { $0.died(id, RouterEnd(status), now: now) }
    }

    /// What the kernel holds of a dead router's words is read in so many turns, though each piece of them comes with a
    /// descriptor and takes a read of its own; a process that it has left behind might write for ever.
    private static let lastTurns = 64

    /// Why a router did not come up: what it wrote last says more than how it ended.
    private func reason(_ end: RouterEnd) -> String {
        switch (end, lastWords) {
        case (.exited(0), ""?):
            "\(end) and did not answer hello: it has to read lines until its input ends (a Python script that only "
                + "defines proxy is given without --router)"
        case (.exited, let words?) where !words.isEmpty, (.signalled, let words?) where !words.isEmpty:
            "\(end): \(words)"
        default: "\(end)"
        }
    }

    func routerSpeaks(_ token: Token) {
        guard links.holds(token.slot, generation: token.generation) else { return }
        readErrors(token.slot)
    }

    /// Passes lines of stderr on to the log. Bounded: of a flood so many lines a second are logged, the rest is counted.
    private func readErrors(_ slot: UInt32) {
        for _ in 0..<Self.readsPerTurn {
            let received = (try? links[slot].receiveErrors()) ?? .endOfStream
            switch received {
            case .wouldBlock: return
            case .endOfStream:
                if let raw = links[slot].errorsNumber { around.poller.remove(raw) }
                links[slot].closeErrors()
                return
            case .moved: break
            }
            takeErrorLines(slot)
        }
    }

    private func takeErrorLines(_ slot: UInt32) {
        let router = links[slot].id
        while true {
            switch links[slot].nextErrorLine({ text($0, most: Limits.routerErrorLineBytesMax) }) {
            case .incomplete, .overflow: return
            case .line(let text):
                links[slot].remember(text)
                tellErrorLinesLeftOut(slot)
                if links[slot].mayLogError(now) { routerLog.info("router \(router): \(text)") }
            }
        }
    }

    /// Says of all routers what was left out of their stderr; a flood that has stopped brings nobody else to it.
    func tellErrorLinesLeftOut() {
        for (_, slot) in linkSlots { tellErrorLinesLeftOut(slot) }
    }

    private func tellErrorLinesLeftOut(_ slot: UInt32, isOver: Bool = false) {
        guard let count = links[slot].takeErrorLinesLeftOut(now, isOver: isOver) else { return }
        let lines = "\(count) more line\(count == 1 ? "" : "s") of its standard error"
        routerLog.warning("router \(links[slot].id): \(lines) left out of the log")
    }
}

extension RouterEnd {
    /// Why there is none.
    init(_ failure: RouterLink.Failure) {
        self =
            switch failure {
            case .unstartable(let error): .spawnFailed(error.rawValue)
            case .unreachable(let error): .unreachable(error.rawValue)
            case .stranger(let user): .stranger(user)
            }
    }

    /// How a process ended.
    init(_ status: ExitStatus) {
        self =
            switch status {
            case .exited(let code): .exited(code)
            case .signaled(let signal, _): .signalled(signal)
            }
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
