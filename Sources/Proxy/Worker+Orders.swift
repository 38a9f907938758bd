// What routers tell all workers: connections to close, kept verdicts to forget. A router talks to its own worker; the
// arbiter passes the line on to the others.

import Addressing
import Control
import Logging
import Logs
import Reactor
import RouterProtocol

extension Worker {
    /// Has the arbiter tell the other workers; `instead` is for a line that is too long to be passed on.
    func tellOthers(_ line: Span<UInt8>, instead: String?) {
        var text: String? = instead
        if line.count <= ControlCodec.bytesMax / 2 {
            var bytes: [UInt8] = []
            for index in 0..<line.count { bytes.append(line[index]) }
            text = String(decoding: bytes, as: UTF8.self)
        }
        guard let text else { return log.error("a router's order is too long for the other workers") }
        // A router may write faster than the arbiter reads.
        guard !waitingOrders.isEmpty || control.send(.tellOthers(text)) == .full, !waitingOrders.add(text) else {
            return
        }
        guard let leftOut = lostOrderPace.permit(at: now) else { return }
        let more = leftOut > 0 ? " (and \(leftOut) more times)" : ""
        log.error(
            "the arbiter takes no more orders of routers: the other workers drop all kept verdicts, and close nothing\(more)"
        )
    }

    /// What the arbiter has not taken yet, once it does.
    func sendOrders() {
        waitingOrders.send { control.send(.tellOthers($0)) != .full }
    }

    /// A router of another worker has said something to all.
    func heed(_ text: String) {
        var text = text
        text.makeContiguousUTF8()
        do throws(ProtocolError) {
            switch try RouterMessage.parse(text.utf8.span) {
            case .invalidate(let invalidation): cache.invalidate(invalidation)
            case .close(let order): carryOut(order)
            default: log.error("an order that is none was passed on: \(text)")
            }
        } catch {
            log.error("an order that cannot be understood was passed on: \(error)")
        }
    }

    /// Ends the connections that an order names. Looks through all of them, so nothing is made for each.
    func carryOut(_ order: CloseOrder) {
        var slots: [UInt32] = []
        switch order.which {
        case .connection(let id):
            guard let wanted = connectionSerial(of: id) else { break }
            connections.forEachSlot { slab, slot in if slab[slot].facts.serial == wanted { slots.append(slot) } }
        case .tag(let tag):
            connections.forEachSlot { slab, slot in if slab[slot].facts.tags.contains(tag) { slots.append(slot) } }
        case .remote(let text):
            guard let remote = Endpoint(text) else { break }
            connections.forEachSlot { slab, slot in if slab[slot].facts.remote == remote { slots.append(slot) } }
        }
        for slot in slots where connections.isTaken(slot) { handle(slot, .close(reset: order.reset)) }
        guard !slots.isEmpty, let leftOut = closePace.permit(at: now) else { return }
        let more = leftOut > 0 ? " (and others for \(leftOut) more orders)" : ""
        log.info("closed \(slots.count) connection\(slots.count == 1 ? "" : "s") for the router\(more)")
    }
}
