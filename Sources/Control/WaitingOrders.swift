// What routers tell all workers, on its way to somebody who does not read at the moment.

import Config

/// Lines that wait for room in a control channel: in order, and bounded by `Limits.ordersWaitingMax`.
public struct WaitingOrders: Sendable {
    /// In place of what is too much or too long: more than was asked for, and nothing stale is left.
    public static let invalidateAll = #"{"jsonrpc":"2.0","method":"invalidate","params":{"all":true}}"#

    private var lines: [String] = []

    public init() {}

    public var isEmpty: Bool { lines.isEmpty }
    public var count: Int { lines.count }

    /// Adds a line behind those that wait. False when there were too many: all of them have come to `invalidateAll`, and
    /// connections that were to be closed go on.
    public mutating func add(_ line: String) -> Bool {
        guard lines.count < Limits.ordersWaitingMax else {
            lines = [Self.invalidateAll]
            return false
        }
        lines.append(line)
        return true
    }

    /// Hands them out for as long as `take` says that there is room.
    public mutating func send(_ take: (String) -> Bool) {
        lines.removeFirst(lines.firstIndex { !take($0) } ?? lines.count)
    }
}
