// The ends of routers, of their sockets and of their processes, and what they say on standard error until then.

import Config
import Glibc
import Linux
import Logging
import Reactor
import RouterProtocol
import SystemPackage

extension Worker {
    /// Nothing more is read from it, so nothing more will be said of its streams.
    private func stopHearing(_ slot: UInt32) {
        links[slot].isGivenUp = true
        loseStreams(of: links[slot].id)
    }

    func giveUp(_ slot: UInt32, _ end: RouterEnd) {
        guard !links[slot].isGivenUp else { return }
        stopHearing(slot)
        around.poller.remove(links[slot].socketNumber)
        let id = links[slot].id
        withRouters(id.role) { $0.died(id, end, now: now) }
    }

    /// The router's socket has ended, and most often because its process has: then that says more.
    func socketEnded(_ slot: UInt32) {
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
    func reason(_ end: RouterEnd) -> String {
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
    func readErrors(_ slot: UInt32) {
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

    func tellErrorLinesLeftOut(_ slot: UInt32, isOver: Bool = false) {
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
