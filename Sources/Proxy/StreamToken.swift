// The names of streams that are rewritten: what a router says to get one.

/// 128 random bits, written as 32 hexadecimal digits. Nobody guesses one, and none is used twice.
struct StreamToken: Hashable, CustomStringConvertible {
    private let high: UInt64
    private let low: UInt64

    /// How many bytes it is written in.
    static let textBytes = 32

    /// A new one, of the system's random numbers.
    init() {
        var random = SystemRandomNumberGenerator()
        (high, low) = (random.next(), random.next())
    }

    /// Reads one; nil for anything but 32 digits in lower case, as they were given out.
    init?(_ digits: some Collection<UInt8>) {
        guard digits.count == Self.textBytes else { return nil }
        var halves: (high: UInt64, low: UInt64) = (0, 0)
        for (place, digit) in digits.enumerated() {
            let value: UInt8
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit &- UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = digit &- UInt8(ascii: "a") &+ 10
            default: return nil
            }
            if place < 16 {
                halves.high = halves.high &<< 4 | UInt64(value)
            } else {
                halves.low = halves.low &<< 4 | UInt64(value)
            }
        }
        (high, low) = halves
    }

    var description: String {
        var text = ""
        text.reserveCapacity(Self.textBytes)
        for half in [high, low] {
            for shift in stride(from: 60, through: 0, by: -4) {
                text.append(Self.digits[Int(half &>> UInt64(shift) & 0xf)])
            }
        }
        return text
    }

    private static let digits = Array("0123456789abcdef")
}
