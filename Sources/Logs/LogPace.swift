// How often the same complaint is made.

import Config

/// Lets one message of a cause through in each second and counts what it holds back. Keep one for each cause.
public struct LogPace: Sendable, Equatable {
    private var next = Int64.min
    private var leftOut = 0

    public init() {}

    /// Whether to write a message now (monotonic milliseconds): nil is no; a number is yes, and how many messages like it
    /// were left out since the last one.
    public mutating func permit(at now: Int64) -> Int? {
        guard now >= next else {
            leftOut &+= 1
            return nil
        }
        defer { (next, leftOut) = (now &+ Int64(Limits.logPaceMilliseconds), 0) }
        return leftOut
    }

    /// For a quiet moment: how many messages were left out and have not been told of, once their second is over.
    public mutating func overdue(at now: Int64) -> Int? {
        guard leftOut > 0 else { return nil }
        return permit(at: now)
    }
}
