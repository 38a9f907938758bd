// A worker's stages from its boot to its end, and the commands and signals that lead through them.

import Config
import Control
import Linux
import Logging
import Logs
import Reactor
import SystemPackage
import TLS

extension Worker {
    func obey() {
        while true {
            var passed: Descriptor?
            switch control.receive(&passed) {
            case .message(let numbered):
                switch numbered.message {
                case .renewTLS, .renewTicketKeys: renewTLS(numbered, passed.take())
                case .drain: drain(within: nil)
                case .drainLast: drain(within: nil, isLast: true)
                case .stop: stop()
                case .reload(let generation):
                    self.generation = generation
                    reloadNumber = numbered.number
                    around.remoteTLS.forget()
                    reloadRouters()
                case .reopenLogs:
                    reopenLogs()
                    control.send(.logsReopened, number: numbered.number)
                case .shareListeners:
                    acceptor.share(around.poller)
                    routers.shareClients()
                case .told(let line): heed(line)
                }
            case .notUnderstood(let error): log.error("from the arbiter: \(error)")
            case .wouldBlock: return
            case .closed:
                around.poller.remove(control.raw)
                log.error(
                    "the arbiter is gone; finishing what is open within \(settings.gracefulTimeoutMilliseconds) ms")
                drain(within: Int64(settings.gracefulTimeoutMilliseconds))
                return
            }
        }
    }

    func handleSignals() {
        while let signal = try? signals.next() {
            switch signal {
            case .terminate, .quit: drain(within: nil)
            case .user1: reopenLogs()
            default: break
            }
        }
    }

    private func reopenLogs() {
        logFile.reopen(failuresTo: log)
        accessLog?.reopen(failuresTo: log)
    }

    /// A log could not be opened. The arbiter is told as well, whose own may be read.
    func tellRefusal(_ refusal: String) {
        log.error("\(refusal)")
        control.send(.logRefused(refusal))
    }

    /// Accepts what is queued, then no more; what is open is finished. The last to accept leaves nobody in a queue.
    private func drain(within milliseconds: Int64?, isLast: Bool = false) {
        let deadline = milliseconds.map { now + $0 }
        switch stage {
        case .booting:
            // Its router goes first: nothing of ours is left behind when the last process is gone.
            acceptor.close(around.poller)
            leave()
        case .serving:
            acceptRest(upTo: isLast ? connectionsPossible : connectionsMax)
            acceptor.close(around.poller)
            scoreboard[.state] = WorkerState.draining.rawValue
            stage = .draining(deadline: deadline)
            control.send(.draining)
            showTitle()
        case .draining(let earlier): if deadline != nil { stage = .draining(deadline: earlier ?? deadline) }
        case .leaving, .ended: break
        }
    }

    /// Ends every connection now.
    private func stop() {
        if stage == .serving { acceptor.close(around.poller) }
        let count = connections.count
        if count > 0 { log.warning("stopping: \(count) connection\(count == 1 ? "" : "s") closed") }
        var slots: [UInt32] = []
        connections.forEachSlot { _, slot in slots.append(slot) }
        for slot in slots where connections.isTaken(slot) { handle(slot, .stop) }
        unfinished.removeAll()
        switch stage {
        case .booting, .serving, .draining: leave()
        case .leaving: stage = .ended(status: 0)
        case .ended: break
        }
    }

    private func leave() {
        drainRouters()
        stage = .leaving(deadline: now + Int64(Limits.killAfterMilliseconds))
        serveRouters()
    }

    /// Whoever did not leave when told to goes now, so that nothing of ours is there once the last process is gone.
    func endRouters() {
        links.forEachSlot { slab, slot in
            guard !slab[slot].isReaped else { return }
            slab[slot].signal(Signal.kill.rawValue)
            if slab[slot].hasEnded(withinMilliseconds: Self.endedWithinMilliseconds) { _ = slab[slot].reap() }
        }
    }

    /// What the kernel needs at most to end a process that was killed.
    private static let endedWithinMilliseconds: Int32 = 200

    /// Goes on to what the state of things allows.
    func changeStage() throws(Errno) {
        switch stage {
        case .booting, .ended: break
        case .serving:
            if try acceptor.update(hasRoom: hasRoom, now: now, around.poller) { scoreboard.add(.acceptPauses) }
        case .draining(let deadline):
            if connections.count == 0 {
                leave()
            } else if let deadline, now >= deadline {
                stop()
            }
        case .leaving(let deadline):
            if now >= deadline { stage = .ended(status: 0) }
        }
    }
}
