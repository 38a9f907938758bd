// Names of registrations: what epoll gives back with an event.

/// Names a registration for one use of a slot: an event for an earlier use is recognised and dropped, for the
/// generation differs. It never holds a descriptor's number, which the kernel gives out again at once.
///
/// Layout: slot 32 bits, generation 24, kind 8.
public struct Token: Hashable, Sendable {
    /// The 64 bits that epoll keeps.
    public let bits: UInt64

    /// Rebuilds a token from what epoll kept.
    public init(bits: UInt64) { self.bits = bits }

    /// Names the `kind` of registration of a slot in its present generation (of which 24 bits count).
    public init(slot: UInt32, generation: UInt32, kind: UInt8) {
        bits = UInt64(slot) | UInt64(generation & Self.generationMask) << 32 | UInt64(kind) << 56
    }

    public var slot: UInt32 { UInt32(truncatingIfNeeded: bits) }
    public var generation: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) & Self.generationMask }
    public var kind: UInt8 { UInt8(truncatingIfNeeded: bits >> 56) }

    /// The same slot and generation as another kind of registration.
    public func with(kind: UInt8) -> Token { Token(slot: slot, generation: generation, kind: kind) }

    /// What wraps around in a generation. A stale event would have to outlive 16 million uses of its slot.
    public static let generationMask: UInt32 = 0xff_ffff
}
