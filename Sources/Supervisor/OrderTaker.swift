// Orders of routers on their way to whoever has connections: workers, and the arbiters of other versions.

import Control
import Logging

/// Somebody to whom orders of routers are passed on, now or once it reads.
protocol OrderTaker: AnyObject {
    /// For the log.
    var name: String { get }
    /// Those that it has not taken yet.
    var waitingOrders: WaitingOrders { get set }
    /// Sends one now. False when there is no room; somebody who has ended takes everything.
    func send(order: String) -> Bool
}

extension OrderTaker {
    /// Passes an order on. False when so little is read that all that waits has come to one order.
    func pass(_ order: String) -> Bool {
        guard !waitingOrders.isEmpty || !send(order: order) else { return true }
        return waitingOrders.add(order)
    }

    /// What it has not taken yet, once it does.
    func passWaiting() {
        waitingOrders.send { send(order: $0) }
    }
}

extension Arbiter {
    /// Everybody whose workers have connections, and every worker of ours.
    var orderTakers: [any OrderTaker] {
        let others: [any OrderTaker] = Array(successors.values) + (older.map { [$0] } ?? [])
        return others + Array(workers.values)
    }

    func pass(_ order: String, to taker: some OrderTaker) {
        guard !taker.pass(order) else { return }
        log.warning("\(taker.name) takes no orders of routers: it is to drop all kept verdicts")
    }

    /// To the arbiters beside us, but the one that it came from.
    func passOn(_ order: String, from speaker: ArbiterCore.Speaker) {
        for handle in successors.values where speaker != .successor(pid: handle.pid) { pass(order, to: handle) }
        if let older, speaker != .origin { pass(order, to: older) }
    }
}
