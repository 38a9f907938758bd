// The one clock deadlines are measured on: it never jumps when somebody sets the time.

import Glibc

/// A moment on CLOCK_MONOTONIC. The same clock in every process of this machine.
public struct Instant: Hashable, Comparable, Sendable {
    /// Since an arbitrary start, usually the machine's boot.
    public let nanoseconds: UInt64

    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    public init(milliseconds: Int64) { nanoseconds = UInt64(max(0, milliseconds)) &* 1_000_000 }

    /// Costs about 20 ns and no system call. The C function is `clock_gettime`.
    public static func now() -> Instant {
        var time = timespec()
        _ = clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec))
    }

    /// The same moment in whole milliseconds, rounded down: what timers count in.
    public var milliseconds: Int64 { Int64(nanoseconds / 1_000_000) }

    /// A later (or, with a negative number, earlier) moment; stays within what can be represented.
    public func advanced(byMilliseconds milliseconds: Int64) -> Instant {
        let distance = milliseconds.magnitude.multipliedReportingOverflow(by: 1_000_000)
        let step = distance.overflow ? UInt64.max : distance.partialValue
        let moved =
            milliseconds < 0
            ? nanoseconds.subtractingReportingOverflow(step) : nanoseconds.addingReportingOverflow(step)
        return Instant(nanoseconds: !moved.overflow ? moved.partialValue : milliseconds < 0 ? 0 : .max)
    }

    /// How long ago `earlier` was, rounded down; negative when it is yet to come.
    public func milliseconds(since earlier: Instant) -> Int64 {
        self >= earlier
            ? Int64((nanoseconds - earlier.nanoseconds) / 1_000_000)
            : -Int64((earlier.nanoseconds - nanoseconds) / 1_000_000)
    }

    public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
}
