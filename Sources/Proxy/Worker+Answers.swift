// What comes from routers: lines, what they mean for the connections that are asked about, and the descriptors beside them.

import Config
import Control
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

    static let readsPerTurn = 16
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
                if links[slot].closePassed() { tellUnclaimed(slot) }
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

    func text(_ line: Span<UInt8>, most: Int = shownBytes) -> String {
        var bytes: [UInt8] = []
        for index in 0..<min(line.count, most) { bytes.append(line[index]) }
        return String(showing: bytes, most: most)
    }

    private static let shownBytes = 200
}
