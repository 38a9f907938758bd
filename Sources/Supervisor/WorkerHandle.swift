// What the arbiter holds of one running worker.

import Control
import Linux

/// A running worker: its pid, our end of its control channel, its place on the scoreboard.
///
/// There is one for each child that has been spawned and not been reaped, so `pid` is never somebody else's.
final class WorkerHandle: OrderTaker {
    let serial: Serial
    let pid: Int32
    let slot: Int
    let channel: ArbiterChannel
    private var lastNumber: UInt32 = 0
    /// Orders of other workers' routers that it has not taken yet.
    var waitingOrders = WaitingOrders()

    init(serial: Serial, pid: Int32, slot: Int, channel: consuming ArbiterChannel) {
        self.serial = serial
        self.pid = pid
        self.slot = slot
        self.channel = channel
    }

    /// Sends a command under the next number, and a copy of a descriptor with it.
    func tell(_ command: Command, passing descriptor: Int32? = nil) -> ArbiterChannel.Sending {
        lastNumber &+= 1
        return channel.send(command, number: lastNumber, passing: descriptor)
    }

    var name: String { WorkerName(serial: serial, pid: pid).description }

    func send(order: String) -> Bool { tell(.told(order)) != .full }

    func send(_ signal: Signal) {
        // It fails only when the child has ended already, which is what was wanted.
        try? Signals.send(signal, to: pid)
    }
}
