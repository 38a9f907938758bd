// Waiting with an end: every wait of these tests is for an event and has a deadline; none is a sleep.

import Foundation
import Glibc

/// What went wrong, in words.
struct Failure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// How long a test waits for what must happen. Generous, for the machine may be busy; nothing waits it out when all is well.
let patience = 15.0

/// A point in time by the monotonic clock.
struct Deadline: Sendable {
    private let nanoseconds: UInt64

    init(in seconds: Double) {
        nanoseconds = Self.now + UInt64(max(0, seconds) * 1e9)
    }

    private static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    var isOver: Bool { Self.now >= nanoseconds }

    /// What poll(2) takes: rounded up, at least 0.
    var milliseconds: Int32 {
        let now = Self.now
        return now >= nanoseconds ? 0 : Int32(clamping: (nanoseconds - now + 999_999) / 1_000_000)
    }

    var date: Date { Date(timeIntervalSinceNow: Double(milliseconds) / 1000) }

    /// Waits until a descriptor is ready; false when time is up.
    func wait(for raw: Int32, _ events: Int32) -> Bool {
        while true {
            var question = pollfd(fd: raw, events: Int16(events), revents: 0)
            let count = poll(&question, 1, milliseconds)
            if count > 0 { return true }
            if count == 0 || errno != EINTR { return false }
        }
    }

    /// Asks again and again, for a state that nothing announces (what /proc says of a process), until it is so.
    func until(_ what: String, _ condition: () throws -> Bool) throws {
        while try !condition() {
            if isOver { throw Failure("waited in vain: \(what)") }
            _ = poll(nil, 0, 5)
        }
    }
}

/// Seconds that something took.
func seconds(_ body: () throws -> Void) throws -> Double {
    let clock = ContinuousClock()
    let start = clock.now
    try body()
    let time = (clock.now - start).components
    return Double(time.seconds) + Double(time.attoseconds) / 1e18
}
