// What routers tell all workers: connections to close, kept verdicts to forget. A router talks to its own worker; the
// arbiter passes the line on to the others.

import Config
import Control
import Linux
import Logging
import Reactor
import RouterProtocol

extension Worker {
    /// In place of a line that is too long to be passed on.
    static let invalidateAll = #"{"jsonrpc":"2.0","method":"invalidate","params":{"all":true}}"#

    /// Has the arbiter tell the other workers.
    func tellOthers(_ line: Span<UInt8>, instead: String?) {
        var text: String? = instead
        if line.count <= ControlCodec.bytesMax / 2 {
            var bytes: [UInt8] = []
            for index in 0..<line.count { bytes.append(line[index]) }
            text = String(decoding: bytes, as: UTF8.self)
        }
        guard let text else { return log.error("a router's order is too long for the other workers") }
        if control.send(.tellOthers(text)) == .full {
            log.error("the arbiter does not take a router's order for the other workers")
        }
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

    /// Ends the connections that an order names. Looks through all of them: it is a rare thing to want.
    func carryOut(_ order: CloseOrder) {
        var slots: [UInt32] = []
        connections.forEachSlot { slab, slot in
            let facts = slab[slot].facts
            let isMeant =
                switch order.which {
                case .connection(let wanted): wanted == self.id(facts)
                case .tag(let tag): facts.tags.contains(tag)
                case .remote(let remote): facts.remote.map { "\($0)" == remote } ?? false
                }
            if isMeant { slots.append(slot) }
        }
        for slot in slots where connections.isTaken(slot) { handle(slot, .close(reset: order.reset)) }
        log.info("closed \(slots.count) connection\(slots.count == 1 ? "" : "s") for the router")
    }
}
