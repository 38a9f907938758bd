// Deadlines of slots: one each, on a hashed timing wheel (Varghese and Lauck, 1987, scheme 6).

/// One deadline per slot. Setting, moving and clearing cost O(1) and allocate only when the slab has grown.
///
/// Times are monotonic milliseconds. A deadline is never early and late by at most one tick.
public struct Timers: ~Copyable {
    /// The width of a bucket in milliseconds.
    public static let tickMilliseconds: Int64 = 16
    private static let bucketCount = 1024
    private static let none: UInt32 = .max

    private struct Entry {
        var deadline: Int64 = .max
        var next: UInt32 = Timers.none
        var previous: UInt32 = Timers.none
        /// The bucket that lists it, -1 when none does.
        var bucket: Int16 = -1
    }

    private var heads = [UInt32](repeating: Timers.none, count: Timers.bucketCount)
    /// One bit a bucket that lists anything, so that an idle worker need not look through them all.
    private var occupied = [UInt64](repeating: 0, count: Timers.bucketCount / 64)
    private var entries: [Entry] = []
    /// The last tick whose bucket has been emptied of what was due.
    private var tick: Int64

    public init(now: Int64) { tick = now / Self.tickMilliseconds }

    /// Sets or moves a slot's deadline; nil clears it.
    public mutating func set(_ slot: UInt32, deadline: Int64?) {
        let index = Int(slot)
        while entries.count <= index { entries.append(Entry()) }
        guard let deadline else {
            entries[index].deadline = .max
            if entries[index].bucket >= 0 { unlink(slot) }
            return
        }
        if entries[index].deadline == deadline { return }
        let isLater = entries[index].bucket >= 0 && deadline > entries[index].deadline
        entries[index].deadline = deadline
        // A later deadline stays where it is listed: it is found not to be due then, and listed anew.
        if isLater { return }
        if entries[index].bucket >= 0 { unlink(slot) }
        link(slot)
    }

    private mutating func link(_ slot: UInt32) {
        // Rounded up, so never early; at least the next tick, for this one's bucket has been looked at.
        let wanted = entries[Int(slot)].deadline
        let due = max(wanted / Self.tickMilliseconds + 1, tick + 1)
        let bucket = Int(due % Int64(Self.bucketCount))
        let head = heads[bucket]
        entries[Int(slot)].next = head
        entries[Int(slot)].previous = Self.none
        entries[Int(slot)].bucket = Int16(bucket)
        if head != Self.none { entries[Int(head)].previous = slot }
        heads[bucket] = slot
        occupied[bucket >> 6] |= 1 << UInt64(bucket & 63)
    }

    private mutating func unlink(_ slot: UInt32) {
        let entry = entries[Int(slot)]
        let bucket = Int(entry.bucket)
        if entry.previous == Self.none {
            heads[bucket] = entry.next
            if entry.next == Self.none { occupied[bucket >> 6] &= ~(1 << UInt64(bucket & 63)) }
        } else {
            entries[Int(entry.previous)].next = entry.next
        }
        if entry.next != Self.none { entries[Int(entry.next)].previous = entry.previous }
        entries[Int(slot)].bucket = -1
    }

    /// Appends the slots whose deadline has come to `due` and clears those deadlines.
    public mutating func advance(to now: Int64, into due: inout [UInt32]) {
        let target = now / Self.tickMilliseconds
        guard target > tick else { return }
        let steps = min(target - tick, Int64(Self.bucketCount))
        let first = tick + 1
        tick = target
        for step in 0..<steps {
            let bucket = Int((first + step) % Int64(Self.bucketCount))
            var slot = heads[bucket]
            while slot != Self.none {
                let entry = entries[Int(slot)]
                let next = entry.next
                if entry.deadline <= now {
                    unlink(slot)
                    entries[Int(slot)].deadline = .max
                    due.append(slot)
                } else if entry.deadline / Self.tickMilliseconds + 1 != first + step {
                    // Moved later meanwhile, or more than one turn of the wheel away.
                    unlink(slot)
                    link(slot)
                }
                slot = next
            }
        }
    }

    /// Milliseconds until `advance` may have something to do; nil when no deadline is set.
    public func millisecondsUntilNext(now: Int64) -> Int64? {
        let start = Int((tick + 1) % Int64(Self.bucketCount))
        var offset = 0
        while offset < Self.bucketCount {
            let bucket = (start + offset) % Self.bucketCount
            let word = occupied[bucket >> 6] >> UInt64(bucket & 63)
            if word != 0 {
                let distance = Int64(offset + word.trailingZeroBitCount)
                return max(0, (tick + 1 + distance) * Self.tickMilliseconds - now)
            }
            offset += 64 - (bucket & 63)
        }
        return nil
    }
}
