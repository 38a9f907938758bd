// IP addresses as values: parsed strictly, printed canonically. No system call, no name resolution.

/// An IPv4 address, most significant byte first.
public struct IPv4Address: Hashable, Sendable, CustomStringConvertible {
    /// The address as a number in host order: 127.0.0.1 is 0x7f000001.
    public let bits: UInt32

    /// Makes an address of its number in host order.
    public init(bits: UInt32) { self.bits = bits }

    /// Reads four decimal numbers with dots; leading zeros are refused, for some readers take them as octal.
    public init?(_ text: some StringProtocol) {
        var bits: UInt32 = 0
        var parts = 0
        var digits = 0
        var value: UInt32 = 0
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"):
                guard digits < 3, !(digits > 0 && value == 0) else { return nil }
                value = value * 10 + UInt32(byte - UInt8(ascii: "0"))
                digits += 1
            case UInt8(ascii: "."):
                guard digits > 0, value <= 255, parts < 3 else { return nil }
                bits = bits << 8 | value
                (parts, digits, value) = (parts + 1, 0, 0)
            default: return nil
            }
        }
        guard parts == 3, digits > 0, value <= 255 else { return nil }
        self.bits = bits << 8 | value
    }

    public static let any = IPv4Address(bits: 0)
    public static let loopback = IPv4Address(bits: 0x7f00_0001)

    public var description: String {
        "\(bits >> 24).\(bits >> 16 & 0xff).\(bits >> 8 & 0xff).\(bits & 0xff)"
    }
}

/// An IPv6 address, with the zone (interface number) of a link-local one.
public struct IPv6Address: Hashable, Sendable, CustomStringConvertible {
    /// The first eight bytes as a number in host order.
    public let high: UInt64
    /// The last eight bytes as a number in host order.
    public let low: UInt64
    /// The interface's number, 0 when there is none (RFC 4007).
    public let zone: UInt32

    /// Makes an address of its two halves in host order.
    public init(high: UInt64, low: UInt64, zone: UInt32 = 0) {
        (self.high, self.low, self.zone) = (high, low, zone)
    }

    public static let any = IPv6Address(high: 0, low: 0)
    public static let loopback = IPv6Address(high: 0, low: 1)

    /// Reads RFC 4291 text: groups of hex digits, at most one `::`, an IPv4 tail, and a numeric zone after `%`.
    public init?(_ text: some StringProtocol) {
        var zone: UInt32 = 0
        var address = Substring(text)
        if let percent = address.firstIndex(of: "%") {
            guard let number = UInt32(address[address.index(after: percent)...]), number > 0 else { return nil }
            zone = number
            address = address[..<percent]
        }
        var groups: [UInt16] = []
        var gap: Int?
        var rest = address
        if rest.hasPrefix("::") {
            gap = 0
            rest = rest.dropFirst(2)
        } else if rest.hasPrefix(":") {
            return nil
        }
        while !rest.isEmpty {
            let end = rest.firstIndex(of: ":") ?? rest.endIndex
            let group = rest[..<end]
            if group.contains(".") {
                guard end == rest.endIndex, groups.count <= 6, let v4 = IPv4Address(group) else { return nil }
                groups += [UInt16(v4.bits >> 16), UInt16(truncatingIfNeeded: v4.bits)]
                rest = ""
                break
            }
            guard (1...4).contains(group.utf8.count), group.utf8.allSatisfy(Self.isHexDigit),
                let value = UInt16(group, radix: 16), groups.count < 8
            else { return nil }
            groups.append(value)
            if end == rest.endIndex { break }
            rest = rest[rest.index(after: end)...]
            if rest.hasPrefix(":") {
                guard gap == nil else { return nil }
                gap = groups.count
                rest = rest.dropFirst()
            } else if rest.isEmpty {
                return nil
            }
        }
        if let gap {
            guard groups.count < 8 else { return nil }
            groups.insert(contentsOf: repeatElement(0, count: 8 - groups.count), at: gap)
        }
        guard groups.count == 8 else { return nil }
        let numbers = groups.map(UInt64.init)
        high = numbers[0] << 48 | numbers[1] << 32 | numbers[2] << 16 | numbers[3]
        low = numbers[4] << 48 | numbers[5] << 32 | numbers[6] << 16 | numbers[7]
        self.zone = zone
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
            UInt8(ascii: "A")...UInt8(ascii: "F"):
            true
        default: false
        }
    }

    /// The IPv4 address inside `::ffff:a.b.c.d`, if this is one.
    public var mappedIPv4: IPv4Address? {
        high == 0 && low >> 32 == 0xffff ? IPv4Address(bits: UInt32(truncatingIfNeeded: low)) : nil
    }

    /// RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups as `::`.
    public var description: String {
        let zoneText = zone == 0 ? "" : "%\(zone)"
        if let mappedIPv4 { return "::ffff:\(mappedIPv4)\(zoneText)" }
        let groups = [high, low].flatMap { half in [48, 32, 16, 0].map { half >> UInt64($0) & 0xffff } }
        var best = 0..<0
        var start = 0
        while start < 8 {
            guard groups[start] == 0 else {
                start += 1
                continue
            }
            let end = groups[start...].firstIndex { $0 != 0 } ?? 8
            if end - start > max(best.count, 1) { best = start..<end }
            start = end
        }
        func hex(_ range: Range<Int>) -> String {
            groups[range].map { String($0, radix: 16) }.joined(separator: ":")
        }
        if best.isEmpty { return hex(0..<8) + zoneText }
        return hex(0..<best.lowerBound) + "::" + hex(best.upperBound..<8) + zoneText
    }
}
